"""What trackers record: by an agent's id, over steps, and further when a run is resumed."""

import json
import os
import subprocess
import sys
from contextlib import closing
from dataclasses import replace
from functools import partial
from types import SimpleNamespace

import imageio.v3 as imageio
import numpy as np
import pytest
from common import MUTATIONS, SMALL, TINY, run, setup
from script import COUNTING, PROBES, call, files

import train_lunar
from tinyevo.app import cli
from tinyevo.app.plots import PICTURES
from tinyevo.app.runs import NetworkSettings, RunFolder, Settings
from tinyevo.app.trackers import TensorBoard, WandB, record
from tinyevo.tournament import TournamentSelection
from tinyevo.train import Run

SETTINGS = Settings(TINY, NetworkSettings((8,)), SMALL, TournamentSelection(2, True, 3), MUTATIONS)


class Notes:
    """A tracker that notes what it is told."""

    def __init__(self):
        self.notes, self.points = [], []

    def begin(self, folder, settings, steps):
        self.notes.append(("begin", str(folder), settings.config.seed, steps))

    def add(self, steps, values):
        self.points += [(name, steps, value) for name, value in values.items()]

    def add_file(self, path):
        self.notes.append(("file", path.name, path.stat().st_size > 0))

    def close(self):
        self.notes.append(("close",))


# What it is told


def test_fitness_and_confirmed_return_are_told_over_steps():
    notes = Notes()
    done = run(options={"on_generation": lambda run: record(notes, run, [])})
    steps = sorted({row["steps"] for row in done.history})
    told = {(name, at): value for name, at, value in notes.points}
    for generation, at in enumerate(steps):
        rows = [row for row in done.history if row["generation"] == generation]
        assert told["fitness", at] == max(row["fitness"] for row in rows)
    assert told["confirmed", done.steps] == done.best_return


def test_a_member_has_lines_of_its_own_by_its_id_which_begin_where_its_parent_was():
    notes, names = Notes(), list(MUTATIONS.hp_space)
    done = run(options={"on_generation": lambda run: record(notes, run, names)})
    told = {}
    for name, steps, value in notes.points:
        assert told.setdefault((name, steps), value) == value
    assert len(told) == len(notes.points), "a point was told twice"
    expected = {}
    for row in done.history:
        parent = [old for old in done.history if old["id"] == row["parent_id"]
                  and old["generation"] == row["generation"] - 1]  # fmt: skip
        for point in [row, *(parent if row["mutation_kind"] != "elite" else [])]:
            for name in ("fitness", *names):
                expected[f"{name}/{row['id']}", point["steps"]] = point[name]
    assert len(parent) == 1 and len({row["id"] for row in done.history}) == 3 + 2 * 2
    numbered = {key: value for key, value in told.items() if "/" in key[0]}
    assert numbered == expected


# When it is told


@pytest.fixture
def notes(tmp_path, monkeypatch):
    """The notes of a tracker that is asked for with `--track tensorboard`."""
    monkeypatch.chdir(tmp_path)
    notes = Notes()
    monkeypatch.setattr(cli, "TRACKERS", {"tensorboard": lambda: notes})
    monkeypatch.setattr(cli, "find_spec", lambda name: SimpleNamespace(origin="here"))
    page = train_lunar.QUICK
    hp, network = replace(page.hp, batch_size=8, learn_step=8), NetworkSettings((8,))
    config = replace(page.config, eval_episodes=2, confirm_episodes=3)
    small = replace(page, config=config, hp=hp, network=network)
    monkeypatch.setattr(train_lunar, "SETTINGS", small)
    monkeypatch.setattr(train_lunar, "QUICK", small)
    monkeypatch.setattr(
        train_lunar, "plot_evolution", lambda history, file, *what: file.write(b"picture")
    )
    return notes


ARGUMENTS = [*COUNTING, "--workers", "1", "--track", "tensorboard"]


def test_a_run_begins_its_record_tells_each_generation_adds_its_pictures_and_ends_it(
    notes, monkeypatch
):
    call(monkeypatch, *ARGUMENTS, "--out", "run", "--max-steps", "160")
    shown = [("file", f"{name}.png", True) for name in PICTURES]
    assert notes.notes == [("begin", "run", 0, 0), *shown, ("close",)]
    assert [steps for name, steps, _ in notes.points if name == "confirmed"] == [80, 160]
    assert {"lr_actor/0", "batch_size/0", "learn_step/0"} <= {name for name, *_ in notes.points}

    notes.notes.clear()
    notes.points.clear()
    resume = ["--resume", "run", "--no-gif", "--workers", "1", "--track", "tensorboard"]
    call(monkeypatch, *resume, "--max-steps", "240")
    assert notes.notes == [("begin", "run", 0, 160), *shown, ("close",)]
    assert [steps for name, steps, _ in notes.points if name == "confirmed"] == [240]


def test_a_run_that_is_refused_after_its_tracker_was_found_ends_no_record(notes, monkeypatch):
    with pytest.raises(SystemExit):
        call(monkeypatch, *ARGUMENTS, "--workers", "0")
    assert notes.notes == []


def test_a_record_changes_nothing_of_a_run(notes, tmp_path, monkeypatch):
    call(monkeypatch, *ARGUMENTS, "--out", "tracked")
    call(monkeypatch, *ARGUMENTS[:-2], "--out", "plain")
    assert files(tmp_path / "tracked") == files(tmp_path / "plain")


# The real ones


def two_sessions(path, tracker):
    """Let a tracker follow a tiny run of three generations that is interrupted after two."""
    picture = np.zeros((4, 6, 3), dtype=np.uint8)
    for config in (replace(TINY, max_steps=60), TINY):
        with closing(RunFolder(path)) as folder:
            start = folder.load()[0] if path.exists() else Run(*setup(config))
            folder.tracker = tracker()
            settings = replace(SETTINGS, config=config)
            folder.save(start, settings)
            save = partial(RunFolder.save, folder, settings=settings)
            run(config, start=start, options={"on_generation": save})
            for name in ("evolution.png", "lander.gif"):
                with folder.new_file(name) as file:
                    imageio.imwrite(file, picture, extension=name[-4:])


def events(folder):
    """What TensorBoard reads from a folder."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    accumulator = EventAccumulator(str(folder), size_guidance={"images": 0, "scalars": 0})
    return accumulator.Reload()


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_tensorboard_reads_back_what_two_sessions_of_a_run_wrote(tmp_path):
    pytest.importorskip("tensorboard")
    two_sessions(tmp_path / "run", TensorBoard)
    seen = events(tmp_path / "run" / "tensorboard")
    confirmed = [(event.step, event.value) for event in seen.Scalars("confirmed")]
    assert [step for step, _ in confirmed] == [30, 60, 90]
    assert seen.Scalars("lr_actor/0")[0].step == 30
    for name, start in (("evolution", b"\x89PNG"), ("lander", b"GIF8")):
        assert all(image.encoded_image_string.startswith(start) for image in seen.Images(name))
    (settings,) = seen.Tensors("settings/text_summary")[-1].tensor_proto.string_val
    assert b'"max_steps": 90' in settings
    assert b'"env_id": "probes:Counting-v0"' in settings


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_what_an_earlier_session_wrote_of_later_steps_no_longer_counts(tmp_path):
    pytest.importorskip("tensorboard")
    for steps, points in ((0, [(80, 1.0), (160, 2.0), (240, 3.0)]), (160, [(240, 4.0)])):
        tracker = TensorBoard()
        tracker.begin(tmp_path, train_lunar.SETTINGS, steps)
        for step, value in points:
            tracker.add(step, {"fitness": value})
        tracker.close()
    seen = [
        (event.step, event.value) for event in events(tmp_path / "tensorboard").Scalars("fitness")
    ]
    assert seen == [(80, 1.0), (160, 2.0), (240, 4.0)]


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_weights_and_biases_keeps_one_run_of_two_sessions_offline(tmp_path, monkeypatch):
    wandb = pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SILENT", "true")
    two_sessions(tmp_path / "run", WandB)
    wandb.teardown()  # as at the end of a process: its service writes what it still has
    identity = (tmp_path / "run" / "wandb.id").read_text()
    folders = sorted((tmp_path / "run" / "wandb").glob(f"offline-run-*-{identity}"))
    assert len(folders) == 2
    first, second = (rows(folder / f"run-{identity}.wandb") for folder in folders)
    assert [row["steps"] for row in first if "confirmed" in row] == [30, 60]
    assert [row["steps"] for row in second if "confirmed" in row] == [90]
    assert "lr_actor/0" in first[0]
    media = [path.suffix for path in (folders[0] / "files" / "media").rglob("*.*")]
    assert sorted(media) == [".gif", ".png"]


def rows(file):
    """The rows in a file of W&B's: a LevelDB log of records."""
    from wandb.proto.wandb_internal_pb2 import Record

    data, place, parts, found = file.read_bytes(), 7, b"", []
    while place < len(data):
        if 32768 - place % 32768 < 7:  # the rest of a block is empty
            place += 32768 - place % 32768
            continue
        length, kind = int.from_bytes(data[place + 4 : place + 6], "little"), data[place + 6]
        parts += data[place + 7 : place + 7 + length]
        place += 7 + length
        if kind in (1, 4):  # whole, or the last part
            record = Record.FromString(parts)
            if record.HasField("history"):
                names = [item.key or ".".join(item.nested_key) for item in record.history.item]
                values = [json.loads(item.value_json) for item in record.history.item]
                found.append(dict(zip(names, values)))
            parts = b""
    return found


def test_nothing_of_an_extra_is_imported_unless_it_is_asked_for(tmp_path):
    code = "import sys, train_lunar\nextras = {'wandb', 'tensorboard', 'distributed', 'dask'}\n"
    code += "print(extras & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True,
                          text=True, timeout=120, env=os.environ | PROBES)  # fmt: skip
    assert done.stdout == "set()\n", done.stderr
