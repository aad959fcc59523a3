"""Nothing is ever lost: each fault is made to happen, to the script as a user runs it."""

import errno
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from contextlib import closing
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from common import MUTATIONS, TINY, learn, make_agent, setup
from script import (
    COUNTING,
    PROBES,
    ROOT,
    children,
    complaints,
    files,
    group_ends,
    kill_group,
    read_until,
    run,
    start,
)

from tinyevo import checkpoint
from tinyevo.app.runs import NetworkSettings, RunFolder, Settings
from tinyevo.app.workers import map_here, map_in_pool, report_steps, worker_pool
from tinyevo.td3 import TD3, HyperParams
from tinyevo.tournament import TournamentSelection
from tinyevo.train import Run, train

pytestmark = pytest.mark.slow
resource = pytest.importorskip("resource", reason="makes faults as Unix makes them")
LONG = [*COUNTING, "--max-steps", "1e9", "--out", "run"]
HINT = f"resume with: python {ROOT}/train_lunar.py --resume run --no-gif\n"


def hint(workers, folder="run"):
    """The hint of a run that was told its workers."""
    return HINT.replace("--resume run", f"--resume {folder} --workers={workers}")


RESULTS = ("history.csv", "elite.pt", "population.pt", "config.json", "scenes.pt")
linux = pytest.mark.skipif(sys.platform != "linux", reason="looks at processes through /proc")


def results(folder):
    """What has to be the same after any interruption."""
    return {name: (folder / name).read_bytes() for name in RESULTS}


def loaded(folder):
    """The run in a folder, which must be whole."""
    with closing(RunFolder(folder)) as run_folder:
        return run_folder.load()[0]


def workers_of(script):
    """The pids of a started script's workers."""
    return [
        pid
        for pid in children(script.pid)
        if b"spawn_main" in Path(f"/proc/{pid}/cmdline").read_bytes()
    ]


@pytest.fixture(scope="module")
def straight(tmp_path_factory):
    """A run of eight generations that nobody disturbed."""
    folder = tmp_path_factory.mktemp("straight")
    done = run(folder, *COUNTING, "--max-steps", "640", "--out", "run")
    assert done.returncode == 0, done.stderr
    return folder / "run"


@pytest.fixture
def begun(straight, tmp_path):
    """A folder with a run of which all is there but the end."""
    shutil.copytree(straight, tmp_path / "run")
    return tmp_path


# Stopping


@pytest.mark.parametrize(
    "number, workers", [(signal.SIGINT, 2), (signal.SIGTERM, 2), (signal.SIGINT, 1)]
)
def test_ctrl_c_and_sigterm_end_cleanly_and_the_named_command_resumes(
    tmp_path, straight, number, workers
):
    script = start(tmp_path, *COUNTING, "--max-steps", "640", "--out", "run", "--workers", workers)
    read_until(script, "best confirmed")
    if number == signal.SIGINT:
        os.killpg(script.pid, number)  # as a terminal sends it: to the workers too
    else:
        script.send_signal(number)
    _, errors = script.communicate(timeout=30)
    assert script.returncode == 128 + number
    assert complaints(errors) == f"stopped; {hint(workers)}"
    assert group_ends(script), "a process was left behind"
    assert run(tmp_path, "--resume", "run", "--no-gif").returncode == 0
    assert results(tmp_path / "run") == results(straight)


@linux
@pytest.mark.parametrize("delay", [0.3, 0.7])
def test_ctrl_c_before_the_run_has_begun_prints_no_traceback(tmp_path, delay):
    script = start(tmp_path, *LONG, "--workers", "2")
    time.sleep(delay)
    for _ in range(100):  # let Python itself get as far as the script's first line
        caught = Path(f"/proc/{script.pid}/status").read_text().split("SigCgt:")[1].split()[0]
        if not int(caught, 16) & 1 << signal.SIGINT - 1:
            break
        time.sleep(0.01)
    os.killpg(script.pid, signal.SIGINT)
    _, errors = script.communicate(timeout=30)
    assert script.returncode in (-signal.SIGINT, 130)
    assert complaints(errors) in ("", "stopped\n", f"stopped; {hint(2)}")
    assert group_ends(script)


@linux
@pytest.mark.parametrize("started", [1, 2])
def test_ctrl_c_while_workers_are_started_prints_no_traceback(tmp_path, started):
    for attempt in range(4):
        script = start(tmp_path, *LONG[:-1], f"run{attempt}", "--workers", "2")
        deadline = time.monotonic() + 60
        while len(workers_of(script)) < started and time.monotonic() < deadline:
            pass
        time.sleep(0.008 * attempt)
        os.killpg(script.pid, signal.SIGINT)
        _, errors = script.communicate(timeout=30)
        stopped = f"stopped; {hint(2, f'run{attempt}')}"
        assert (script.returncode, complaints(errors)) == (130, stopped)
        assert group_ends(script)


@linux
def test_a_worker_that_is_killed_ends_the_run_with_one_line_and_the_run_can_be_resumed(
    tmp_path, straight
):
    script = start(tmp_path, *COUNTING, "--max-steps", "640", "--out", "run", "--workers", "2")
    read_until(script, "best confirmed")
    os.kill(workers_of(script)[0], signal.SIGKILL)
    _, errors = script.communicate(timeout=30)
    assert script.returncode == 1
    errors = complaints(errors)
    assert (
        errors.startswith("stopped: a worker process died")
        and errors.endswith(hint(2))
        and errors.count("\n") == 1
    )
    assert group_ends(script)
    assert run(tmp_path, "--resume", "run", "--no-gif").returncode == 0
    assert results(tmp_path / "run") == results(straight)


@linux
def test_the_workers_of_a_script_that_is_killed_end_within_seconds(tmp_path):
    script = start(tmp_path, *LONG, "--workers", "2")
    read_until(script, "best confirmed")
    script.kill()
    script.communicate()
    assert group_ends(script)


@linux
def test_a_run_killed_again_and_again_gives_the_same_bytes_as_one_that_was_not(tmp_path):
    arguments = [*COUNTING, "--max-steps", "12000", "--no-gif"]  # 150 generations
    slow_saves = {"env": os.environ | PROBES | {"SLOW_SAVES": "1"}}  # so that a kill can find one
    assert run(tmp_path, *arguments, "--out", "straight").returncode == 0
    chance = random.Random(0)
    kills = torn = 0
    out, temporary = tmp_path / "run", tmp_path / "run" / "population.pt.tmp"
    while kills < 24:
        known = (out / "population.pt").exists()
        which = ["--resume", "run", "--no-gif"] if known else [*arguments, "--out", "run"]
        script = start(tmp_path, *which, "--workers", 1 + kills % 2, **slow_saves)
        if kills % 3 == 0:
            time.sleep(chance.uniform(0, 6))  # anywhere, the imports among it
        else:
            read_until(script, "device:")
            for _ in range(chance.randrange(3)):
                read_until(script, "best confirmed")
            time.sleep(chance.uniform(0, 0.5))
            deadline = time.monotonic() + 60
            while kills % 3 == 1 and not temporary.exists() and time.monotonic() < deadline:
                time.sleep(0.0005)
        assert script.poll() is None, f"the run ended after {kills} kills: make it longer"
        kill_group(script) if kills % 2 else script.kill()
        script.communicate()
        assert group_ends(script), "a process was left behind"
        kills += 1
        torn += temporary.exists()
    assert torn >= 5, "hardly a kill fell into a save"
    done = run(tmp_path, "--resume", "run", "--no-gif")
    assert done.returncode == 0, done.stderr
    assert files(out) == files(tmp_path / "straight")
    print(f"{kills} kills, {torn} of them inside a save")


# Files


def test_two_runs_never_write_into_one_folder(tmp_path):
    script = start(tmp_path, *LONG)
    read_until(script, "best confirmed")
    second = run(tmp_path, "--resume", "run", "--no-gif")
    assert (
        second.returncode == 2
        and second.stderr.count("\n") == 1
        and "another run is writing" in second.stderr
    )
    kill_group(script)  # whose lock dies with it
    script.communicate()
    done = run(tmp_path, "--resume", "run", "--no-gif", "--target=-1e6")
    assert done.returncode == 0, done.stderr


@linux
@pytest.mark.parametrize("begun_before", [False, True])
def test_a_full_disk_is_answered_with_the_path_and_the_last_generation_stays(
    tmp_path, begun_before, straight
):
    out = tmp_path / "run"
    shutil.copytree(straight, out) if begun_before else out.mkdir()
    before = files(out)
    (out / "population.pt.tmp").symlink_to("/dev/full")
    done = run(
        tmp_path, *(["--resume", "run", "--no-gif"] if begun_before else LONG), "--max-steps", "1e9"
    )
    assert done.returncode == 2 and done.stdout == ""
    assert (
        done.stderr
        == f"train_lunar.py: [Errno {errno.ENOSPC}] No space left on device: 'run/population.pt'\n"
    )
    assert files(out) == before


def test_a_file_that_grows_over_the_limit_is_answered_the_same_way(begun, straight):
    limit = (straight / "population.pt").stat().st_size + 100
    done = run(
        begun,
        *("--resume", "run", "--no-gif", "--max-steps", "1e9"),
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit)),
    )
    assert done.returncode == 1
    expected = f"stopped: [Errno {errno.EFBIG}] File too large: 'run/population.pt'; {HINT}"
    assert complaints(done.stderr) == expected
    assert not list((begun / "run").glob("*.tmp"))
    assert loaded(begun / "run").steps >= 640


@pytest.mark.skipif(not hasattr(os, "geteuid"), reason="no users here")
def test_a_folder_that_cannot_be_written_into_is_answered_with_the_path():
    folder = Path(tempfile.mkdtemp(dir="/tmp"))
    checkpoint.save({"generation": 1}, folder / "state.pt")
    folder.chmod(0o555)
    was_root = os.geteuid() == 0
    if was_root:
        os.seteuid(65534)  # root may write anywhere
    try:
        with pytest.raises(PermissionError, match=str(folder / "state.pt")):
            checkpoint.save({"generation": 2}, folder / "state.pt")
        assert checkpoint.load(folder / "state.pt") == {"generation": 1}
        assert os.listdir(folder) == ["state.pt"]
    finally:
        if was_root:
            os.seteuid(0)
        folder.chmod(0o755)
        shutil.rmtree(folder)


@linux
def test_a_folder_that_cannot_be_made_is_answered_with_the_path(tmp_path):
    done = run(tmp_path, *COUNTING, "--out", "/proc/tinyevo")
    assert done.returncode == 2 and done.stderr.count("\n") == 1 and "/proc/tinyevo" in done.stderr
    done = run("/proc", *COUNTING)
    assert done.returncode == 2 and done.stderr.count("\n") == 1 and "runs" in done.stderr
    done = run("/proc", *COUNTING, "--max-steps", "80", "--out", tmp_path / "run")
    assert done.returncode == 0, (
        "a read-only working folder is no obstacle if the output goes elsewhere"
    )


def test_any_bit_flipped_anywhere_in_a_run_is_noticed(straight, tmp_path):
    data = (straight / "population.pt").read_bytes()
    path, chance = tmp_path / "population.pt", random.Random(0)
    damaged = []
    for _ in range(300):
        flipped = bytearray(data)
        flipped[chance.randrange(len(data))] ^= 1 << chance.randrange(8)
        damaged.append(bytes(flipped))
    damaged += [data[: chance.randrange(len(data))] for _ in range(50)]
    for content in damaged:
        path.write_bytes(content)
        with pytest.raises(ValueError, match="damaged"):
            loaded(tmp_path)
        assert path.read_bytes() == content


def test_a_checkpoint_whose_tensors_say_cuda_loads_on_the_cpu(tmp_path, monkeypatch):
    agent = learn(make_agent())
    monkeypatch.setattr(
        "torch.serialization.location_tag", lambda storage: "cuda:0"
    )  # as if saved from a GPU
    data = checkpoint.dumps(agent.state())
    monkeypatch.undo()
    assert b"cuda:0" in data and b"cuda:0" not in checkpoint.dumps(agent.state())
    (tmp_path / "elite.pt").write_bytes(data)
    back = TD3.load_checkpoint(tmp_path / "elite.pt")
    assert torch.equal(back.networks["actor"].weights[0], agent.networks["actor"].weights[0])


# Environments and agents


@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize(
    "fault, words",
    [
        ("raise", "raised RuntimeError('the engine is on fire')"),
        ("reward nan", "returned the reward nan"),
        ("exit", "raised SystemExit(3)"),
    ],
)
def test_an_environment_that_fails_ends_the_run_and_poisons_nothing(
    tmp_path, straight, fault, words, workers
):
    arguments = [*COUNTING, "--env", "probes:Faulty-v0", "--max-steps", "640", "--out", "run"]
    script = start(tmp_path, *arguments, "--workers", workers)
    read_until(script, "best confirmed")
    (tmp_path / "fault.new").write_text(fault)
    (tmp_path / "fault.new").rename(tmp_path / "fault")
    _, errors = script.communicate(timeout=60)
    last = complaints(errors)
    assert script.returncode == 1 and last.count("\n") == 1
    assert (
        last.startswith(f"stopped: the environment Faulty-v0 {words}")
        and "in step 4 of an episode" in last
    )
    memory = loaded(tmp_path / "run").memory
    records = memory.latest(len(memory))
    assert all(np.isfinite(records[name]).all() for name in ("obs", "action", "reward", "next_obs"))
    (tmp_path / "fault").unlink()  # repaired
    assert run(tmp_path, "--resume", "run", "--no-gif").returncode == 0
    for name in ("history.csv", "elite.pt"):
        assert (tmp_path / "run" / name).read_bytes() == (straight / name).read_bytes()


@pytest.mark.parametrize("workers", [1, 2])
def test_an_environment_that_raises_a_keyboard_interrupt_stops_the_run_as_ctrl_c_does(
    tmp_path, workers
):
    (tmp_path / "fault").write_text("interrupt")
    arguments = [*COUNTING, "--env", "probes:Faulty-v0", "--out", "run", "--workers", workers]
    done = run(tmp_path, *arguments)
    assert done.returncode == 130 and complaints(done.stderr) == f"stopped; {hint(workers)}"


@pytest.mark.parametrize("workers", [1, 2])
def test_what_an_environment_warns_of_is_one_line_without_colour(tmp_path, workers):
    (tmp_path / "fault").write_text("warn")
    arguments = [*COUNTING, "--env", "probes:Faulty-v0", "--out", "run", "--workers", workers]
    done = run(tmp_path, *arguments)
    lines = done.stderr.splitlines()
    assert done.returncode == 0 and "warning: the engine is hot" in lines
    assert all(line.startswith("warning: ") for line in lines) and "\x1b" not in done.stderr


def poison(path, members):
    """Make the weights of some members NaN, in a run that has not flown yet."""
    with closing(RunFolder(path.parent)) as folder:
        run, settings = folder.load()
        for member in members:
            run.population[member].networks["actor"].weights[0].data.fill_(np.nan)
        folder.save(run, settings)


def test_an_agent_that_diverged_is_replaced_with_one_line_and_if_all_did_the_run_says_what_to_try(
    tmp_path,
):
    path = tmp_path / "run" / "population.pt"
    script = start(tmp_path, *COUNTING, "--max-steps", "160", "--out", "run", "--workers", "1")
    read_until(script, "device:")
    kill_group(script)
    script.communicate()

    assert loaded(tmp_path / "run").steps == 0
    poison(path, [1])
    done = run(tmp_path, "--resume", "run", "--no-gif")
    assert done.returncode == 0 and "diverged, excluded from selection: agent 1\n" in done.stdout
    assert all(agent.is_finite() for agent in loaded(tmp_path / "run").population)
    poison(path, [0, 1, 2])
    done = run(tmp_path, "--resume", "run", "--no-gif", "--max-steps", "320")
    error = complaints(done.stderr)
    assert done.returncode == 1 and error.count("\n") == 1
    assert "all members diverged" in error and "try lower learning rates" in error
    assert error.endswith("; results so far are in run\n")


# Surroundings


def test_without_home_and_display_it_works(tmp_path):
    bare = {
        "PATH": os.environ["PATH"],
        "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "tests")]),
    }
    done = run(tmp_path, *COUNTING, "--max-steps", "80", "--out", "run", env=bare)
    assert done.returncode == 0, done.stderr


def test_a_reader_who_leaves_gets_one_line(tmp_path):
    script = start(tmp_path, *LONG)
    script.stdout.readline()
    script.stdout.close()
    assert complaints(script.stderr.read()) == f"stopped: [Errno {errno.EPIPE}] Broken pipe; {HINT}"
    assert script.wait(timeout=30) == 1
    script.stderr.close()
    assert group_ends(script)


@pytest.mark.parametrize("closed", [1, 2])
def test_it_works_with_output_closed(tmp_path, straight, closed):
    run(
        tmp_path,
        *COUNTING,
        "--max-steps",
        "640",
        "--out",
        "run",
        capture_output=False,
        preexec_fn=lambda: os.close(closed),
    )
    assert results(tmp_path / "run") == results(straight)


def test_output_to_a_file_holds_everything(tmp_path):
    with (tmp_path / "log").open("w") as log:
        done = run(
            tmp_path,
            *COUNTING,
            "--max-steps",
            "80",
            "--out",
            "run",
            capture_output=False,
            stdout=log,
            stderr=log,
        )
    assert done.returncode == 0
    lines = (tmp_path / "log").read_text().splitlines()
    assert lines[0].startswith("config: ") and lines[-1].startswith("wrote ")


# Endurance


def resident_memory():
    """Bytes of memory that this process and its children occupy."""
    pids = [os.getpid(), *children(os.getpid())]
    return (
        sum(int(Path(f"/proc/{pid}/statm").read_text().split()[1]) for pid in pids)
        * resource.getpagesize()
    )


@linux
@pytest.mark.parametrize("workers", [0, 2])
def test_200_generations_leave_memory_and_open_files_flat(workers, tmp_path):
    config = replace(TINY, num_envs=8, evo_steps=80, max_steps=16_000)
    tournament = TournamentSelection(2, True, 3)
    settings = Settings(config, NetworkSettings(), HyperParams(), tournament, MUTATIONS)
    seen = []

    def on_generation(run):
        folder.save(run, settings)
        seen.append((resident_memory(), len(os.listdir("/proc/self/fd"))))

    def endure(map):
        begin = Run(*setup(config, hp=HyperParams()))
        train(begin, tournament, MUTATIONS, config, map, report_steps, on_generation)

    with closing(RunFolder(tmp_path / "run")) as folder:
        if workers:
            with worker_pool(workers) as pool:
                endure(partial(map_in_pool, pool, lambda steps: None))
        else:
            endure(map_here)
    (early, early_files), (late, late_files) = seen[49], seen[199]
    after = f"{early / 2**20:.1f} MiB after 50 generations, {late / 2**20:.1f} MiB after 200"
    print(f"{workers} workers: {after}")
    assert late_files == early_files
    assert late < early + (1 + workers) * 16 * 2**20
