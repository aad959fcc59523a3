"""What several benchmarks need: rows in a CSV file, and as a table of Markdown."""

import argparse
import csv
import io

from tinyevo import checkpoint


def positive(text):
    """A flag's number as an int; argparse shows its error if it is not whole and at least 1."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"must be a whole number of at least 1, not {text}")
    return int(text)


def read_rows(path):
    """The rows of a CSV file, each a dict of texts; none if it is not there."""
    if not path.exists():
        return []
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def write_rows(path, columns, rows):
    """Write rows, each a dict, as a CSV file."""
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    checkpoint.write(path, text.getvalue().encode())


def add_row(path, columns, row, names):
    """Add a row to a CSV file; returns all of them, those that others have added included.

    One that has the same values under these `names` gives way: another process flew that run too.
    """
    kept = read_rows(path)
    rows = [other for other in kept if any(other[name] != str(row[name]) for name in names)]
    rows.append(row)
    write_rows(path, columns, rows)
    return rows


def markdown(columns, rows):
    """Rows of cells as a table of Markdown."""
    cells = [columns, ["---"] * len(columns), *rows]
    return "\n".join(f"| {' | '.join(map(str, row))} |" for row in cells)
