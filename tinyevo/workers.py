"""Processes that train the members of a generation side by side.

Mirrors the tutorial's section "Going further".
Leaves out: other machines. `train` takes any `concurrent.futures.Executor`, so a cluster is one argument.
Needs: nothing else.
"""

import ctypes
import multiprocessing
import os
import signal
import threading
from concurrent.futures import FIRST_EXCEPTION, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager, suppress

import torch

_flown = None  # in a worker: the counter that it shares with the main process


@contextmanager
def worker_pool(workers):
    """A pool of `workers` fresh processes with one torch thread each; they end with the `with` block, done or not.

    Its attribute `flown` is a shared counter of the environment steps that they report, for a progress bar.
    """
    # Spawned, not forked: a fork copies torch's locks in whatever state its threads left them.
    context = multiprocessing.get_context("spawn")
    flown = context.Value("q", 0)
    pool = ProcessPoolExecutor(
        workers, mp_context=context, initializer=_start_worker, initargs=(flown,)
    )
    pool.flown = flown
    others, writer = set(multiprocessing.active_children()), pool._result_queue._writer
    try:
        # Start them here, deaf to Ctrl-C from their first moment: that is the parent's business.
        if posix := hasattr(signal, "pthread_sigmask"):
            heard = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        for _ in range(workers):
            pool.submit(int)
        if posix:
            signal.pthread_sigmask(signal.SIG_SETMASK, heard)
        yield pool
    finally:
        writer.close()  # the workers' end alone stays open: half a result ends with its sender
        for worker in set(multiprocessing.active_children()) - others:
            worker.kill()
        pool.shutdown(cancel_futures=True)


def run_tasks(function, tasks, executor, steps, on_steps):
    """The results of `function(*task, progress)` for all tasks, in order.

    An executor of None runs them here, one after another. `on_steps` is told of environment steps as they happen, if
    the executor has a shared counter `flown` or there is none; else of `steps` for each task that is done.
    """
    if executor is None:
        return [_run(function, *task, on_steps) for task in tasks]
    counter = getattr(executor, "flown", None)
    seen = counter.value if counter else 0
    futures = pending = [executor.submit(_run, function, *task, report_steps) for task in tasks]
    while pending:
        done, pending = wait(futures, timeout=0.5, return_when=FIRST_EXCEPTION)
        for future in done:
            future.result()  # raises at once what the task raised
        # The pool notices a dead worker too, but not one that died in the middle of sending its result.
        if pending and any(
            worker.exitcode is not None
            for worker in [*getattr(executor, "_processes", {}).values()]
        ):
            raise BrokenProcessPool("a worker process died")
        now = counter.value if counter else len(done) * steps
        on_steps(now - seen)
        seen = now
    return [future.result() for future in futures]


def report_steps(steps):
    """Called in a worker: add to the counter of the pool. Without a pool there is nobody to tell."""
    if _flown is not None:
        with _flown.get_lock():
            _flown.value += steps


def _run(function, *arguments):
    """Do a task, and give the memory that it no longer needs back to the system."""
    result = function(*arguments)
    # glibc, unless asked, keeps what millions of small tensors leave behind: some 10 MB for each slice.
    with suppress(AttributeError, OSError, TypeError):  # not glibc
        ctypes.CDLL(None).malloc_trim(0)
    return result


@contextmanager
def every_second(act):
    """Call `act()` once a second, from a thread of its own, for as long as the `with` block takes."""
    done = threading.Event()

    def repeat():
        while not done.wait(1):
            act()

    thread = threading.Thread(target=repeat, daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join(
            timeout=1
        )  # an interrupted `act` may have left a lock behind that the thread waits for


def _start_worker(flown):
    global _flown
    _flown = flown
    torch.set_num_threads(1)  # small networks: a second thread costs more than it brings
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's business
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent():
    multiprocessing.parent_process().join()
    os._exit(1)
