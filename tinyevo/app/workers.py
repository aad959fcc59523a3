"""Processes in which the members of a generation fly side by side, and the bar that shows it.

Beside what the `map` of any executor does, `side_by_side` raises a member's fault at once, notices
a worker that died even in the middle of a result, gives memory back to the system, and moves the
bar while members fly. On a Dask cluster the shared memory travels to each worker once in a
generation, the bar moves when a member is done, and what a worker that died was doing is done
again: a generation is a pure function, so that gives the same bytes.

Mirrors the tutorial's section "Going further".
"""

import asyncio
import ctypes
import logging
import multiprocessing
import os
import pickle
import signal
import sys
import threading
from collections.abc import Callable
from concurrent.futures import (
    FIRST_EXCEPTION,
    CancelledError,
    ProcessPoolExecutor,
    ThreadPoolExecutor,
    wait,
)
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager, suppress
from functools import partial
from typing import NamedTuple

import torch
from tqdm import tqdm

from tinyevo.app.report import plain_warnings
from tinyevo.buffer import ReplayBuffer
from tinyevo.environment import find_spaces

SAVING = 7  # copies of the shared memory at once, as measured
TIMEOUT = 10  # seconds, to reach a cluster
STOPS = (signal.SIGINT, signal.SIGTERM)
_flown = None  # in a worker: the counter that it shares with the main process
_task = threading.local()  # in a worker of a cluster: `steps` of the task that a thread is doing


def check_memory(count, size, config):
    """Raise ValueError if the shared memory and its copies are more than this machine's memory.

    While members fly, the main process holds two, and each of `count` workers on this machine two
    and what it was sent; while a run is saved, the file is put together from copies. Until it is
    shared, what the `size` members experienced is held twice.
    """
    spaces = find_spaces(config.env_id)
    transition = ReplayBuffer(1, *spaces).storage.itemsize
    copies = config.memory_size * max(SAVING, 2 + 3 * count)
    experience = 2 * size * min(config.evo_steps, config.memory_size)
    needed = transition * (copies + experience)
    if not hasattr(os, "sysconf"):  # Windows does not say
        return
    installed = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    if needed > installed:
        what = f"{config.memory_size} transitions of {transition / 1e3:.1f} kB and their copies"
        have = f"{needed / 1e9:.1f} GB, and this machine has {installed / 1e9:.1f}"
        fewer = "take fewer workers, or lower the" if count > 1 else "lower the"
        what = f"{what} for {count} workers here take {have}"
        raise ValueError(f"{what}: {fewer} --memory-size of a new run")


class Workers(NamedTuple):
    """What `train` needs to train members side by side."""

    map: Callable  # calls a function for all members; a list of results, in order
    on_steps: Callable  # called, where members fly, with the number of steps that they took
    bar: tqdm  # of the steps of all members


@contextmanager
def side_by_side(count, run, config):
    """`Workers` for a run: `count` processes, or none beside this one if it is 1.

    The processes end with the `with` block, however it ends. Instead of a number, `count` may be
    the address of a Dask cluster, see `cluster_client`.
    """
    size = len(run.population)
    bar = tqdm(
        total=config.max_steps * size,
        initial=run.steps * size,
        unit=" steps",
        unit_scale=True,
        disable=None,
    )
    with bar, every_second(bar.refresh):
        if count == 1:
            yield Workers(map_here, bar.update, bar)
        elif isinstance(count, str):
            with cluster_client(count) as client:
                yield Workers(partial(map_on_cluster, client, bar.update), count_steps, bar)
        else:
            with worker_pool(count) as pool:
                yield Workers(partial(map_in_pool, pool, bar.update), report_steps, bar)


def map_here(function, *arguments):
    """`map` as a list, one call after another."""
    return [run_task(function, *task) for task in zip(*arguments)]


def map_in_pool(pool, on_steps, function, *arguments):
    """`map` as a list, in the processes of a `worker_pool`.

    `on_steps` is called, here, with the steps that workers report meanwhile. Raises what a call
    raised, and BrokenProcessPool if a worker died.
    """
    flown = pool.flown.get_obj()  # without its lock, which a worker that died may hold
    seen = flown.value
    futures = [pool.submit(run_task, function, *task) for task in zip(*arguments)]
    pending = futures
    while pending:
        done, pending = wait(futures, timeout=0.5, return_when=FIRST_EXCEPTION)
        for future in done:
            future.result()  # raises at once what the task raised
        # A pool notices a dead worker too, but not one that died while it sent its result.
        exits = [worker.exitcode for worker in list(pool._processes.values())]
        if pending and any(code is not None for code in exits):
            raise BrokenProcessPool("a worker process died")
        now = flown.value
        on_steps(now - seen)
        seen = now
    return [future.result() for future in futures]


@contextmanager
def worker_pool(count):
    """A pool of `count` fresh processes with one torch thread each; they end with the `with` block.

    Its attribute `flown` is a shared counter of the steps that `report_steps` was told.
    """
    vars(sys.modules["__main__"]).setdefault("__spec__", None)  # IPython's %run has none
    # Spawned, not forked: a fork copies torch's locks in whatever state its threads left them.
    context = multiprocessing.get_context("spawn")
    flown = context.Value("q", 0)
    pool = ProcessPoolExecutor(
        count, mp_context=context, initializer=_start_worker, initargs=(flown,)
    )
    pool.flown = flown
    results, tasks = pool._result_queue._writer, pool._call_queue._reader
    try:
        with signals_deferred():
            for _ in range(count):
                pool.submit(int)
        yield pool
    finally:
        results.close()  # the workers' end alone stays open: half a result ends with its sender
        for worker in list((pool._processes or {}).values()):
            worker.kill()
        # Python waits until a half-sent task is read to its end; since 3.11.5 it closes this end.
        if sys.version_info < (3, 11, 5):
            tasks.close()
        pool.shutdown(cancel_futures=True)


@contextmanager
def stops_handled_by(handler):
    """Let a function answer Ctrl-C and SIGTERM until the `with` block ends."""
    before = [signal.signal(number, handler) for number in STOPS]
    try:
        yield
    finally:
        for number, old in zip(STOPS, before):
            signal.signal(number, old)


@contextmanager
def cluster_client(address):
    """A client of the Dask cluster whose scheduler has this address, such as "tcp://host:8786".

    "local:4" starts a cluster of four processes on this machine; it ends with the `with` block.
    Raises OSError if the cluster cannot be reached, or has no worker on which tinyevo is installed.
    """
    import dask
    import distributed  # noqa: F401  which sets its loggers up

    for name in ("distributed", "distributed.client"):
        logging.getLogger(name).setLevel(logging.CRITICAL)  # what matters is raised
    dask.config.set({"distributed.admin.large-graph-warning-threshold": "1TB"})  # sent only once
    where, _, count = address.partition(":")
    try:
        client = local_client(int(count)) if where == "local" else remote_client(address)
    except (RuntimeError, TypeError, ValueError) as error:  # of processes, of TLS, of a name
        raise ConnectionError(f"there is no cluster {address}: {error}") from error
    with client:
        client.wait_for_workers(1, timeout=TIMEOUT)
        try:
            client.run(exec, "import tinyevo.app.workers")
        except ImportError as error:
            raise ConnectionError(f"a worker of the cluster cannot help: {error}") from error
        yield client


def local_client(count):
    """A client of a new cluster of so many processes on this machine."""
    from distributed import Client

    place = {"dashboard_address": None, "silence_logs": logging.CRITICAL}
    with signals_deferred():
        return Client(n_workers=count, threads_per_worker=1, **place)


def remote_client(address):
    """A client of the cluster whose scheduler has this address."""
    from distributed import Client, Security
    from distributed.comm import connect

    async def knock():
        arguments = Security().get_connection_args("client")
        connection = await connect(address, TIMEOUT, **arguments)
        connection.abort()

    # Of its own, a client waits for ever for one who lets it in and says nothing.
    with ThreadPoolExecutor(1) as thread:  # a notebook's has a loop that runs
        answer = thread.submit(asyncio.run, asyncio.wait_for(knock(), 2 * TIMEOUT))
        try:
            answer.result()
        except TimeoutError as error:
            what = "accepts connections and does not answer: is it the scheduler's port?"
            raise ConnectionError(f"{address} {what}") from error
    return Client(address=address, timeout=TIMEOUT)


def map_on_cluster(client, on_steps, function, *arguments):
    """`map` as a list, on the workers of a Dask cluster.

    What the calls share, `function` with its bound arguments, is sent to the scheduler once, and
    from worker to worker once each. Only bytes cross the border. `on_steps` is called, here, with
    the steps that a call reported to `count_steps`, when it is done. Raises what a call raised, and
    ConnectionError if the scheduler is gone.
    """
    from distributed import as_completed

    shared = client.submit(bytes, pickle.dumps(function), pure=False)
    tasks = [pickle.dumps(task) for task in zip(*arguments)]
    futures = client.map(run_there, [shared] * len(tasks), tasks, pure=False)
    results = {}
    for future in as_completed(futures):
        try:
            results[future], steps = future.result()
        except CancelledError as error:
            raise ConnectionError("the scheduler of the cluster is gone") from error
        on_steps(steps)
    return [results[future] for future in futures]


def run_there(shared, task):
    """Do a task of `map_on_cluster` on a worker: (result, steps that it reported)."""
    _task.steps = 0
    return run_task(pickle.loads(shared), *pickle.loads(task)), _task.steps


def count_steps(steps):
    """Count steps for the task of a cluster that this thread is doing."""
    _task.steps += steps


@contextmanager
def signals_deferred():
    """Hold back Ctrl-C and SIGTERM until the `with` block ends: a process start is not interrupted.

    Processes that are started in it have SIGINT blocked, because Ctrl-C is the parent's business.
    """
    if threading.current_thread() is not threading.main_thread():
        yield  # signals interrupt the main thread alone
        return
    early = []
    masks = hasattr(signal, "pthread_sigmask")  # not on Windows
    with stops_handled_by(lambda number, _: early.append(number)):
        if masks:
            heard = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        try:
            yield
        finally:
            if masks:
                signal.pthread_sigmask(signal.SIG_SETMASK, heard)
    for number in early:
        signal.raise_signal(number)


def report_steps(steps):
    """Add steps to the counter of the pool that this worker belongs to, if it does."""
    if _flown is not None:
        with _flown.get_lock():
            _flown.value += steps


def run_task(function, *arguments):
    """Call a function, and give the memory that it no longer needs back to the system."""
    result = function(*arguments)
    # Unless asked, glibc keeps what millions of small tensors leave behind: 10 MB a generation.
    with suppress(AttributeError, OSError, TypeError):  # not glibc
        ctypes.CDLL(None).malloc_trim(0)
    return result


@contextmanager
def every_second(act):
    """Call `act()` once a second from a thread of its own, until the `with` block ends."""
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
        thread.join(timeout=1)  # an interrupted `act` may hold a lock that the thread waits for


def _start_worker(flown):
    global _flown
    _flown = flown
    plain_warnings()
    torch.set_num_threads(1)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # where it could not be blocked
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent():
    multiprocessing.parent_process().join()
    os._exit(1)
