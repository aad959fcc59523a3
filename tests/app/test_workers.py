"""Worker processes: they report, they fail aloud, and they end with their pool and their parent."""

import io
import multiprocessing
import os
import platform
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures.process import BrokenProcessPool
from dataclasses import replace
from functools import partial
from multiprocessing.connection import Connection
from pathlib import Path

import gymnasium as gym
import pytest
import torch
from common import TINY, run, setup, text
from script import ROOT, STOPS
from tqdm import tqdm

from tinyevo.app import workers
from tinyevo.app.workers import (
    check_memory,
    every_second,
    map_here,
    map_in_pool,
    report_steps,
    run_task,
    side_by_side,
    signals_deferred,
    stops_handled_by,
    worker_pool,
)
from tinyevo.buffer import ReplayBuffer
from tinyevo.environment import find_spaces
from tinyevo.train import Run

needs_proc = pytest.mark.skipif(
    not Path("/proc/self/stat").exists(), reason="looks at processes through /proc"
)


@pytest.fixture(scope="module")
def pool():
    """Two workers, whom no test may harm."""
    with worker_pool(2) as pool:
        yield pool


def running(pid):
    """Whether a process is alive; one that nobody has waited for yet is not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


def gone(pids, seconds=10):
    deadline = time.monotonic() + seconds
    while any(map(running, pids)) and time.monotonic() < deadline:
        time.sleep(0.05)
    return not any(map(running, pids))


def work(seconds, steps):
    time.sleep(seconds)
    report_steps(steps)
    return steps


def fail(seconds):
    if seconds == 0:
        raise ZeroDivisionError("at once")
    time.sleep(seconds)


def die(seconds):
    time.sleep(seconds)
    os.kill(os.getpid(), signal.SIGKILL)


def ignores_ctrl_c():
    """Whether a Ctrl-C that reaches this process does nothing."""
    blocked = signal.SIGINT in signal.pthread_sigmask(signal.SIG_BLOCK, ())
    return blocked or signal.getsignal(signal.SIGINT) is signal.SIG_IGN


# The two maps


def test_both_maps_give_a_list_of_results_in_order(pool):
    seconds, steps = [0.3, 0.0, 0.1], [1, 2, 3]
    assert map_here(work, seconds, steps) == [1, 2, 3]
    assert map_in_pool(pool, lambda steps: None, work, seconds, steps) == [1, 2, 3]
    assert map_here(work, [], []) == map_in_pool(pool, None, work, [], []) == []


def test_the_steps_that_workers_report_are_told_here_and_no_others(pool):
    for _ in range(2):
        told = []
        map_in_pool(pool, told.append, work, [0, 0.1, 0.2], [1, 2, 30])
        assert sum(told) == 33


def test_steps_are_told_while_members_fly(pool):
    began, told = time.monotonic(), []
    map_in_pool(pool, lambda steps: told.append((time.monotonic(), steps)), work, [0, 3], [7, 1])
    first = next(when for when, steps in told if steps == 7)
    assert first - began < 2


def test_without_a_pool_reported_steps_are_nobodys():
    report_steps(5)
    assert workers._flown is None


def test_what_a_member_raises_is_raised_at_once(pool):
    with pytest.raises(ZeroDivisionError, match="at once"):
        map_here(fail, [0, 60])
    began = time.monotonic()
    with pytest.raises(ZeroDivisionError, match="at once"):
        map_in_pool(pool, lambda steps: None, fail, [4, 0])
    assert time.monotonic() - began < 3


def test_a_worker_that_dies_is_noticed():
    with worker_pool(2) as own, pytest.raises(BrokenProcessPool):
        map_in_pool(own, lambda steps: None, die, [60, 0])


@needs_proc
def test_a_worker_that_dies_in_the_middle_of_its_result_is_noticed():
    with worker_pool(2) as own:
        began = time.monotonic()
        with pytest.raises(BrokenProcessPool):
            map_in_pool(own, lambda steps: None, half_a_result, [0, 60])
        assert time.monotonic() - began < 20


def half_a_result(seconds):
    """Die in the middle of sending the result."""

    def send(connection, data):
        os.write(connection.fileno(), data[:10])
        os.kill(os.getpid(), signal.SIGKILL)

    time.sleep(seconds)
    Connection._send = send


@pytest.mark.skipif(
    platform.libc_ver()[0] != "glibc", reason="the one C library that has to be asked"
)
@needs_proc
def test_memory_that_a_task_no_longer_needs_goes_back_to_the_system():
    def occupied():
        return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")

    before = occupied()
    run_task(scatter, 50_000)
    assert occupied() < before + 20 * 2**20  # of 200 MiB that the task had


def scatter(size):
    """Fill the heap with small pieces, and keep only the last one of them."""
    pieces = [bytearray(size) for _ in range(4000)]
    return pieces[-1]


# A run


def test_a_run_is_bit_for_bit_the_same_with_both_maps(pool):
    expected = text(run())
    told = []
    here = run(options={"map": map_here, "on_steps": told.append})
    assert text(here) == expected and sum(told) == 3 * TINY.max_steps
    told.clear()
    there = partial(map_in_pool, pool, told.append)
    assert text(run(options={"map": there, "on_steps": report_steps})) == expected
    assert sum(told) == 3 * TINY.max_steps


@pytest.fixture
def shown(monkeypatch):
    """Let the bar count where there is no terminal too."""
    bar = partial(tqdm, file=io.StringIO(), disable=False)
    monkeypatch.setattr(workers, "tqdm", lambda disable, **arguments: bar(**arguments))


def test_one_worker_is_this_process_and_the_bar_counts_the_steps_of_all_members(shown):
    with side_by_side(1, Run(*setup(), steps=30), TINY) as here:
        assert here.map is map_here and (here.bar.n, here.bar.total) == (90, 270)
        here.map(here.on_steps, [5, 6])
        assert here.bar.n == 101


def test_the_bar_is_drawn_again_while_nobody_reports_a_step(shown):
    with side_by_side(1, Run(*setup()), TINY) as here:
        drawn = here.bar.fp.getvalue()
        time.sleep(1.5)
        assert len(here.bar.fp.getvalue()) > len(drawn), "its clock stood still"


def test_two_workers_are_two_processes_that_end_with_the_block(shown):
    before = set(multiprocessing.active_children())
    with side_by_side(2, Run(*setup()), TINY) as both:
        mine = set(multiprocessing.active_children()) - before
        assert len(mine) == 2 and both.on_steps is report_steps
        both.map(work, [0, 0], [10, 20])
        assert both.bar.n == 30
    assert not any(process.is_alive() for process in mine)


# The pool


def test_workers_are_other_processes_with_one_torch_thread_that_ignore_ctrl_c(pool):
    assert pool.submit(os.getpid).result() != os.getpid()
    assert pool.submit(torch.get_num_threads).result() == 1
    assert pool.submit(ignores_ctrl_c).result()


def test_a_warning_from_a_worker_is_one_line_without_colour(capfd):
    with worker_pool(1) as own:
        own.submit(gym.logger.warn, "the engine\n is %s", "hot").result()
        own.shutdown()  # which a block may end with
    assert capfd.readouterr().err == "warning: the engine is hot\n"


@needs_proc
def test_the_pool_ends_its_workers_in_the_middle_of_their_work_and_no_other_process():
    bystander = multiprocessing.get_context("spawn").Process(target=time.sleep, args=(60,))
    bystander.start()
    with worker_pool(1) as own:
        pid = own.submit(os.getpid).result()
        own.submit(time.sleep, 60)
        began = time.monotonic()
    assert time.monotonic() - began < 10 and gone([pid])
    assert bystander.is_alive()
    bystander.kill()
    bystander.join()


def test_a_pool_starts_where_the_main_module_has_no_spec_as_in_a_notebook(monkeypatch):
    monkeypatch.delattr(sys.modules["__main__"], "__spec__")
    with worker_pool(1) as own:
        assert len(own._processes) == 1


PARENT = """
import multiprocessing, time
from tinyevo.app.workers import worker_pool
if __name__ == "__main__":
    with worker_pool(2) as pool:
        futures = [pool.submit(time.sleep, 3) for _ in range(2)]
        for future in futures:
            future.result()  # by now both have begun to watch
        print(*[child.pid for child in multiprocessing.active_children()], flush=True)
        pool.submit(time.sleep, 60).result()
"""


@needs_proc
@pytest.mark.slow
def test_workers_end_when_their_parent_is_killed(tmp_path):
    (tmp_path / "parent.py").write_text(PARENT)
    command = [sys.executable, "parent.py"]
    env = os.environ | {"PYTHONPATH": str(ROOT)}
    parent = subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, text=True, env=env)
    pids = [int(pid) for pid in parent.stdout.readline().split()]
    assert len(pids) == 2 and all(map(running, pids))
    parent.send_signal(signal.SIGKILL)
    parent.wait()
    parent.stdout.close()
    assert gone(pids)


# Signals and seconds


@pytest.mark.parametrize("number", STOPS)
def test_a_stop_is_handled_as_said_until_the_block_ends_however_it_ends(number):
    heard, old = [], signal.getsignal(number)
    with pytest.raises(ZeroDivisionError), stops_handled_by(lambda number, _: heard.append(number)):
        signal.raise_signal(number)
        raise ZeroDivisionError
    assert heard == [number] and signal.getsignal(number) is old


@pytest.mark.parametrize("number", STOPS)
def test_a_deferred_signal_is_answered_after_the_block_by_the_handler_from_before(number):
    heard = []
    old = signal.signal(number, lambda number, frame: heard.append(number))
    try:
        with signals_deferred():
            os.kill(os.getpid(), number)
            time.sleep(0.05)
            assert heard == []
        assert heard == [number]
        os.kill(os.getpid(), number)
        assert heard == [number, number]
    finally:
        signal.signal(number, old)


def test_each_signal_that_was_deferred_is_answered():
    heard = []
    with stops_handled_by(lambda number, _: heard.append(number)):
        with signals_deferred():
            for number in STOPS:
                signal.raise_signal(number)
            assert heard == []
        assert sorted(heard) == sorted(STOPS)


@pytest.mark.skipif(not hasattr(signal, "pthread_sigmask"), reason="not on Windows")
def test_a_process_that_starts_meanwhile_has_ctrl_c_blocked_and_this_one_has_it_back():
    code = "import signal; print(signal.SIGINT in signal.pthread_sigmask(signal.SIG_BLOCK, ()))"
    with signals_deferred():
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout == "True\n"
    assert signal.SIGINT not in signal.pthread_sigmask(signal.SIG_BLOCK, ())


def test_another_thread_may_start_a_pool_too():
    entered = []

    def enter():
        with signals_deferred():
            entered.append(True)

    thread = threading.Thread(target=enter)
    thread.start()
    thread.join()
    assert entered == [True]


def test_what_is_to_happen_every_second_happens_while_the_main_thread_is_busy_and_not_after():
    times = []
    with every_second(lambda: times.append(time.monotonic())):
        until = time.monotonic() + 2.5
        while time.monotonic() < until:
            sum(range(1000))
    assert len(times) == 2
    assert times[1] - times[0] == pytest.approx(1, abs=0.5)
    time.sleep(1.2)
    assert len(times) == 2


@pytest.mark.parametrize("count, copies", [(1, 7), (2, 8), (4, 14)])
def test_a_memory_whose_copies_do_not_fit_is_refused_in_a_line_that_says_what_to_lower(
    monkeypatch, count, copies
):
    storage = ReplayBuffer(1000, *find_spaces(TINY.env_id)).storage
    needed = copies * storage.nbytes + 2 * 3 * TINY.evo_steps * storage.itemsize
    system = {"SC_PHYS_PAGES": needed, "SC_PAGE_SIZE": 1}
    monkeypatch.setattr(os, "sysconf", system.get, raising=False)
    check_memory(count, 3, TINY)
    system["SC_PHYS_PAGES"] -= 1
    fewer = "take fewer workers, or lower the" if count > 1 else "lower the"
    words = f"^1000 transitions .* {count} workers.*: {fewer} --memory-size of a new run$"
    with pytest.raises(ValueError, match=words):
        check_memory(count, 3, TINY)


def test_of_long_generations_only_what_the_memory_holds_is_kept_and_counted(monkeypatch):
    storage = ReplayBuffer(1000, *find_spaces(TINY.env_id)).storage
    system = {"SC_PHYS_PAGES": (7 + 2 * 3) * storage.nbytes, "SC_PAGE_SIZE": 1}
    monkeypatch.setattr(os, "sysconf", system.get, raising=False)
    check_memory(1, 3, replace(TINY, evo_steps=10**9))


def test_what_happens_every_second_ends_with_a_block_that_fails():
    running = threading.active_count()
    with pytest.raises(ZeroDivisionError), every_second(int):
        raise ZeroDivisionError
    assert threading.active_count() == running
