"""What a run tells: its settings, a table for each generation, the final score, and a page.

Mirrors the tutorial's section "Reading a run".
"""

import base64
import json
import math
import re
import textwrap
import warnings
from dataclasses import asdict
from pathlib import Path

import numpy as np
from tqdm import tqdm

from tinyevo.app.plots import KINDS
from tinyevo.population import member_row

COLUMNS = {  # of the table: the head and the format of each
    "": ":1",
    "id": ":>4",
    "from": ":>4",
    "mutation": ":<39",
    "fitness": ":>7",
    "mean5": ":>7",
    "train": ":>7",
    "steps": ":>8",
    "hidden": ":>11",
    "act": ":>5",
    "lr a": ":>7",
    "lr c": ":>7",
    "batch": ":>5",
    "ls": ":>2",
}
LINE = " ".join(f"{{{form}}}" for form in COLUMNS.values())


def population_table(population):
    """The population as text, one line per member; the fittest has a star.

    "from" is the parent, "mean5" the mean of the last five fitnesses of the member's lineage,
    "train" the mean return of its training episodes, "lr a" and "lr c" the learning rates of actor
    and critics, "ls" the `learn_step`.
    """
    lines = [LINE.format(*COLUMNS)]
    fittest = max(population, key=lambda agent: agent.fitness[-1:])
    for agent in population:
        row = member_row(agent)
        mean = np.mean(agent.fitness[-5:] or [math.nan])
        line = LINE.format(
            "*" if agent is fittest else "",
            row["id"],
            "-" if row["parent_id"] is None else row["parent_id"],
            row["mutation"],
            f"{row['fitness']:.1f}",
            f"{mean:.1f}",
            f"{row['train_return']:.1f}",
            row["steps"],
            row["hidden_size"],
            row["activation"],
            f"{row['lr_actor']:.1e}",
            f"{row['lr_critic']:.1e}",
            row["batch_size"],
            row["learn_step"],
        )
        lines.append(line)
    return "\n".join(lines)


def show_settings(run, options):
    """Print the settings of a run and, if it is resumed, where it stands."""
    settings = options.settings
    for title, group in asdict(settings).items():
        text = ", ".join(f"{name} {value}" for name, value in group.items())
        print(textwrap.fill(f"{title}: {text}", 120, subsequent_indent="    "))
    print(f"device: {options.device}, workers: {options.workers}, output: {options.folder}")
    if run.history:
        best = f"best confirmed mean return {run.best_return:.1f}"
        print(f"resumed after generation {run.generation - 1}, {best}")
    config = settings.config
    ends = {"--max-steps": run.steps >= config.max_steps}
    ends |= {"--target": run.best_return >= config.target}
    reached = " and ".join(flag for flag, ended in ends.items() if ended)
    if reached:
        print(f"this run is finished; a larger {reached} continues it")


def show_generation(run, bar):
    """Print the last generation above the bar."""
    diverged = [str(agent.id) for agent in run.population if agent.fitness[-1] == -math.inf]
    if diverged:
        tqdm.write(f"diverged, excluded from selection: agent {', '.join(diverged)}")
    tqdm.write(f"\ngeneration {run.generation - 1}\n{population_table(run.population)}")
    tqdm.write(f"best confirmed: {best_agent(run)}, mean return {run.best_return:.1f}")
    fitness = max(agent.fitness[-1] for agent in run.population)
    bar.set_postfix(fitness=f"{fitness:.0f}", confirmed=f"{run.best_return:.0f}")


def show_score(run, config, seed, returns):
    """Print the final score, and the call of `evaluate` that gives it again."""
    flight = {"episodes": len(returns), "seed": seed, "max_steps": config.eval_steps}
    arguments = ", ".join(f"{name}={value}" for name, value in flight.items())
    spread = f"+- {returns.std():.2f}, from {returns.min():.1f} to {returns.max():.1f}"
    print(f"\nthe best confirmed agent ({best_agent(run)}) in fresh episodes:")
    print(f"evaluate(agent, {config.env_id!r}, {arguments})")
    print(f"mean return {returns.mean():.2f} {spread}")


def show_film(returns):
    """Print what the film shows."""
    numbers = ", ".join(f"{value:.1f}" for value in returns)
    print(f"returns of {len(returns)} episodes rendered: {numbers}")


def write_report(history, files, file):
    """Write the page of a run into a binary file object: one HTML file that needs no other.

    If `evolution.gif` is among the paths `files`, that film becomes a part of it.
    """
    data = {"history": history, "kinds": KINDS, "film": None}
    for film in files:
        if film.name == "evolution.gif":
            data["film"] = f"data:image/gif;base64,{base64.b64encode(film.read_bytes()).decode()}"
    # Without a "<", no text in it can end the script.
    script = json.dumps(data).replace("<", "\\u003c")
    page = Path(__file__).with_name("report.html").read_text(encoding="utf-8")
    file.write(page.replace("REPORT_DATA", script, 1).encode())


def best_agent(run):
    """The best confirmed agent, in words."""
    return f"agent {run.best.id} after {run.best.steps} steps"


def plain_warnings():
    """Show each warning as one line, without what Gymnasium adds: colour codes and "WARN:"."""

    def one_line(message, *where):
        text = re.sub(r"\x1b\[[0-9;]*m(WARN: )?", "", str(message))
        return f"warning: {' '.join(text.split())}\n"

    warnings.formatwarning = one_line
