"""Nothing is ever lost: each fault is made to happen, to the script as a user runs it."""

import errno
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from common import learn, make_agent
from script import (
    COUNTING,
    PROBES,
    ROOT,
    children,
    files,
    group_ends,
    kill_group,
    read_until,
    run,
    start,
)
from test_checkpoint import FOREIGN

from tinyevo import checkpoint
from tinyevo.buffer import ReplayBuffer
from tinyevo.mutation import Mutations, RLParameter
from tinyevo.population import create_population
from tinyevo.result import TrainResult
from tinyevo.td3 import TD3, HyperParams
from tinyevo.tournament import TournamentSelection
from tinyevo.train import TrainConfig, train
from tinyevo.workers import worker_pool

pytestmark = pytest.mark.slow
resource = pytest.importorskip("resource", reason="makes faults as Unix makes them")
LONG = [*COUNTING, "--max-steps", "1e9", "--out", "run"]
GO_ON = f"go on with: python {ROOT}/train_lunar.py --resume run --no-gif\n"
RESULTS = ("history.csv", "elite.pt", "population.pt", "config.json")
linux = pytest.mark.skipif(sys.platform != "linux", reason="looks at processes through /proc")


def results(folder):
    """What has to be the same after any interruption."""
    return {name: (folder / name).read_bytes() for name in RESULTS}


def complaints(errors):
    """What a script wrote to stderr, but for its warnings."""
    return "".join(
        line for line in errors.splitlines(keepends=True) if not line.startswith("warning: ")
    )


def loaded(folder):
    """The run in a folder, which must be whole."""
    return TrainResult.load_checkpoint(folder / "population.pt")


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
def test_ctrl_c_and_sigterm_end_cleanly_and_the_named_command_goes_on(
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
    assert complaints(errors) == f"stopped; {GO_ON}"
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
    assert complaints(errors) in ("", f"stopped; {GO_ON}")
    assert group_ends(script)


@linux
@pytest.mark.parametrize("started", [1, 2])
def test_ctrl_c_while_workers_are_started_prints_no_traceback(tmp_path, started):
    for attempt in range(8):
        script = start(tmp_path, *LONG[:-1], f"run{attempt}", "--workers", "2")
        deadline = time.monotonic() + 60
        while len(workers_of(script)) < started and time.monotonic() < deadline:
            pass
        time.sleep(0.004 * attempt)
        os.killpg(script.pid, signal.SIGINT)
        _, errors = script.communicate(timeout=30)
        assert (script.returncode, complaints(errors)) == (
            130,
            f"stopped; {GO_ON.replace('run ', f'run{attempt} ')}",
        )
        assert group_ends(script)


@linux
def test_a_worker_that_is_killed_ends_the_run_with_one_line_and_the_run_can_go_on(
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
        and errors.endswith(GO_ON)
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


# Resuming


def test_a_finished_run_says_so_and_nothing_changes(begun, straight):
    before = {path.name: path.stat().st_mtime_ns for path in (begun / "run").iterdir()}
    done = run(begun, "--resume", "run", "--no-gif")
    assert (
        done.returncode == 0
        and "this run is finished; a larger --max-steps or --target goes on" in done.stdout
    )
    assert files(begun / "run") == files(straight)
    assert {path.name: path.stat().st_mtime_ns for path in (begun / "run").iterdir()} == before


def test_what_follows_from_the_checkpoint_is_made_again(begun, straight):
    (begun / "run" / "history.csv").write_text("somebody's notes")
    (begun / "run" / "elite.pt").unlink()
    (begun / "run" / "evolution.png").unlink()
    assert run(begun, "--resume", "run", "--no-gif").returncode == 0
    assert files(begun / "run") == files(straight)


@pytest.mark.parametrize(
    "arguments, words",
    [
        (["--seed", "7"], "the run in run has seed 0, it cannot go on with 7"),
        (["--pop-size", "5"], "the run in run has population_size 3, it cannot go on with 5"),
        (
            ["--env", "LunarLanderContinuous-v3"],
            "env_id probes:Counting-v0, it cannot go on with LunarLander",
        ),
        (["--num-envs", "4"], "num_envs 8, it cannot go on with 4"),
        (["--evo-steps", "88"], "evo_steps 80, it cannot go on with 88"),
        (["--quick"], "evo_steps 80, it cannot go on with 1600"),
        (
            ["--max-steps", "80"],
            "max_steps must be at least the 640 that the run has flown, not 80",
        ),
        (["--max-steps", "inf"], "max_steps must be a whole number"),
        (["--device", "cuda:99"], "--device cuda:99 is not available"),
        ([], "--env probes:Counting-v0 cannot be rendered: add --no-gif"),
    ],
)
def test_a_run_that_is_resumed_with_something_else_is_refused(begun, straight, arguments, words):
    done = run(begun, "--resume", "run", *arguments, *(["--no-gif"] if arguments else []))
    assert (
        done.returncode == 2
        and done.stdout == ""
        and done.stderr.count("\n") == 1
        and words in done.stderr
    )
    assert files(begun / "run") == files(straight)


def test_a_run_of_an_environment_that_has_changed_since_is_refused(begun):
    state = checkpoint.load(begun / "run" / "population.pt")
    state["settings"]["config"]["env_id"] = "probes:Ticking-v0"
    checkpoint.save(state, begun / "run" / "population.pt")
    done = run(begun, "--resume", "run", "--no-gif")
    assert done.returncode == 2 and done.stderr.count("\n") == 1
    assert (
        "learned (Box(-inf, inf, (3,)" in done.stderr
        and "now has (Box(-1.0, 1.0, (1,)" in done.stderr
    )


@pytest.mark.parametrize(
    "settings", [{}, {"config": {"surprise": 1}, "mutations": {"hp_space": {}}}]
)
def test_a_run_that_another_program_kept_is_refused(begun, settings):
    state = checkpoint.load(begun / "run" / "population.pt")
    checkpoint.save(state | {"settings": settings}, begun / "run" / "population.pt")
    done = run(begun, "--resume", "run", "--no-gif")
    assert done.returncode == 2 and done.stderr.count("\n") == 1
    assert "run/population.pt was not written by this version of the script" in done.stderr


def test_two_runs_never_write_into_one_folder(tmp_path):
    script = start(tmp_path, *LONG)
    read_until(script, "best confirmed")
    second = run(tmp_path, "--resume", "run", "--no-gif")
    assert (
        second.returncode == 2
        and second.stderr.count("\n") == 1
        and "is another run writing" in second.stderr
    )
    third = run(tmp_path, *COUNTING, "--out", "run")
    assert third.returncode == 2 and "run is not empty" in third.stderr
    kill_group(script)  # whose lock dies with it
    script.communicate()
    done = run(tmp_path, "--resume", "run", "--no-gif", "--target=-1e6")
    assert done.returncode == 0, done.stderr


# Files


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
    expected = f"stopped: [Errno {errno.EFBIG}] File too large: 'run/population.pt'; {GO_ON}"
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


@pytest.mark.parametrize("write", FOREIGN)
def test_a_foreign_checkpoint_is_refused_with_one_line_untouched(tmp_path, write):
    (tmp_path / "run").mkdir()
    write(tmp_path / "run" / "population.pt")
    before = files(tmp_path / "run")
    done = run(tmp_path, "--resume", "run")
    assert done.returncode == 2 and done.stdout == "" and done.stderr.count("\n") == 1
    assert "cannot load run/population.pt: " in done.stderr
    assert files(tmp_path / "run") == before and os.listdir(tmp_path) == ["run"]


def test_any_bit_flipped_anywhere_in_a_run_is_noticed(straight, tmp_path):
    data, path, chance = (
        (straight / "population.pt").read_bytes(),
        tmp_path / "population.pt",
        random.Random(0),
    )
    for _ in range(300):
        damaged = bytearray(data)
        damaged[chance.randrange(len(data))] ^= 1 << chance.randrange(8)
        path.write_bytes(damaged)
        with pytest.raises(ValueError, match="damaged"):
            TrainResult.load_checkpoint(path)
        assert path.read_bytes() == damaged
    for _ in range(50):
        path.write_bytes(data[: chance.randrange(len(data))])
        with pytest.raises(ValueError, match="damaged"):
            TrainResult.load_checkpoint(path)


def test_a_checkpoint_of_another_format_is_refused_naming_both(begun, monkeypatch):
    state = checkpoint.load(begun / "run" / "population.pt")
    monkeypatch.setattr("tinyevo.checkpoint.FORMAT", "tinyevo-99")
    checkpoint.save(state, begun / "run" / "population.pt")
    done = run(begun, "--resume", "run")
    assert done.returncode == 2 and done.stderr.count("\n") == 1
    assert "'tinyevo-99'" in done.stderr and "'tinyevo-1'" in done.stderr


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
        ("observation inf", "returned the observation ["),
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


def poison(path, members):
    """Make the weights of some members NaN, in a run that has not flown yet."""
    result = TrainResult.load_checkpoint(path)
    for agent in (result.population[member] for member in members):
        agent.networks["actor"].weights[0].data.fill_(np.nan)
    result.save_checkpoint(path)


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
    assert done.returncode == 0 and "diverged, and gets no children: agent 1\n" in done.stdout
    assert all(agent.is_finite() for agent in loaded(tmp_path / "run").population)
    poison(path, [0, 1, 2])
    done = run(tmp_path, "--resume", "run", "--no-gif", "--max-steps", "320")
    assert done.returncode == 1 and complaints(done.stderr).count("\n") == 1
    assert "all members diverged" in done.stderr and "try lower learning rates" in done.stderr


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
    assert (
        complaints(script.stderr.read()) == f"stopped: [Errno {errno.EPIPE}] Broken pipe; {GO_ON}"
    )
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
    config = TrainConfig(
        "probes:Counting-v0", evo_steps=80, max_steps=16_000, memory_size=1000, eval_episodes=2
    )
    population = create_population(
        3, *(make_agent().observation_space, make_agent().action_space), HyperParams()
    )
    memory = ReplayBuffer(
        config.memory_size, population[0].observation_space, population[0].action_space
    )
    seen = []

    def on_generation(result):
        result.save_checkpoint(tmp_path / "population.pt")
        seen.append((resident_memory(), len(os.listdir("/proc/self/fd"))))

    space = {"learn_step": RLParameter(1, 16, int), "lr_actor": RLParameter(1e-4, 1e-2)}
    arguments = (
        population,
        memory,
        TournamentSelection(2, True, 3),
        Mutations(hp_space=space),
        config,
    )
    if workers:
        with worker_pool(workers) as pool:
            train(*arguments, pool, on_generation)
    else:
        train(*arguments, None, on_generation)
    (early, early_files), (late, late_files) = seen[49], seen[199]
    print(
        f"{workers} workers: {early / 2**20:.1f} MiB after 50 generations, {late / 2**20:.1f} MiB after 200"
    )
    assert late_files == early_files
    assert late < early + (1 + workers) * 16 * 2**20
