"""Worker processes: they report, and they end with their pool and with their parent."""

import multiprocessing
import os
import platform
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch

from tinyevo.workers import every_second, report_steps, run_tasks, worker_pool

needs_proc = pytest.mark.skipif(
    not Path("/proc/self/stat").exists(), reason="looks at processes through /proc"
)


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


def test_workers_are_other_processes_with_one_thread_each_and_report_to_the_pool():
    with worker_pool(2) as pool:
        for future in [pool.submit(report_steps, 5) for _ in range(4)]:
            future.result()
        assert pool.flown.value == 20
        assert pool.submit(torch.get_num_threads).result() == 1
        assert pool.submit(os.getpid).result() != os.getpid()


def test_tasks_run_in_order_here_or_anywhere_and_their_steps_are_told():
    tasks = [(0.3, 1), (0.0, 2), (0.1, 3)]
    with worker_pool(2) as own, ThreadPoolExecutor(2) as foreign:
        for executor, told in ((None, 6), (own, 6), (foreign, 30)):
            seen = []
            assert run_tasks(work, tasks, executor, 10, seen.append) == [1, 2, 3]
            assert sum(seen) == told


def test_a_pool_may_be_shut_down_before_its_end():
    with worker_pool(1) as pool:
        assert pool.submit(sum, [1, 2]).result() == 3
        pool.shutdown()


def test_a_pool_ends_no_other_process():
    bystander = multiprocessing.get_context("spawn").Process(target=time.sleep, args=(30,))
    bystander.start()
    with worker_pool(2) as pool:
        pool.submit(os.getpid).result()
    assert bystander.is_alive()
    bystander.terminate()
    bystander.join()


@pytest.mark.skipif(
    platform.libc_ver()[0] != "glibc", reason="the one C library that has to be asked"
)
@needs_proc
def test_memory_that_a_task_no_longer_needs_goes_back_to_the_system():
    def occupied():
        return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")

    before = occupied()
    run_tasks(scatter, [()], None, 0, None)
    assert occupied() < before + 20 * 2**20  # of 200 MiB that the task had


def scatter(on_steps):
    """Fill the heap with small pieces, and keep only the last one of them."""
    pieces = [bytearray(50_000) for _ in range(4000)]
    return pieces[-1]


def test_what_a_task_raises_is_raised():
    with ThreadPoolExecutor(2) as executor:
        for where in (None, executor):
            with pytest.raises(ZeroDivisionError):
                run_tasks(fail, [(), ()], where, 1, lambda steps: None)


def work(seconds, steps, on_steps):
    time.sleep(seconds)
    on_steps(steps)
    return steps


def fail(on_steps):
    raise ZeroDivisionError


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


def test_without_a_pool_nobody_is_told():
    report_steps(5)


@needs_proc
def test_the_pool_ends_its_workers_even_in_the_middle_of_their_work():
    with worker_pool(2) as pool:
        pid = pool.submit(os.getpid).result()
        pool.submit(time.sleep, 60)
        began = time.monotonic()
    assert time.monotonic() - began < 10
    assert gone([pid])


PARENT = """
import multiprocessing, time
from tinyevo.workers import worker_pool
if __name__ == "__main__":
    with worker_pool(2) as pool:
        futures = [pool.submit(time.sleep, 3) for _ in range(2)]
        for future in futures:
            future.result()  # by now both have begun to watch
        print(*[child.pid for child in multiprocessing.active_children()], flush=True)
        pool.submit(time.sleep, 60).result()
"""


@needs_proc
def test_workers_end_when_their_parent_is_killed(tmp_path):
    (tmp_path / "parent.py").write_text(PARENT)
    parent = subprocess.Popen(
        [sys.executable, "parent.py"], cwd=tmp_path, stdout=subprocess.PIPE, text=True
    )
    workers = [int(pid) for pid in parent.stdout.readline().split()]
    assert len(workers) == 2 and all(map(running, workers))
    parent.send_signal(signal.SIGKILL)
    parent.wait()
    parent.stdout.close()
    assert gone(workers)
