"""On a real cluster: the same bytes as in one process, whatever happens to its workers."""

import os
import re
import shutil
import socket
import subprocess
import sys
from dataclasses import replace
from functools import partial

import pytest
from common import TINY, run, text
from probes import look
from script import COUNTING, PROBES, SCRIPT, complaints, files, kill_group, read_until, start
from script import run as run_script

from tinyevo.app import workers
from tinyevo.app.workers import cluster_client, map_on_cluster

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore"),  # what a cluster warns of is its own business
]
FATAL = [*COUNTING, "--env", "probes:Fatal-v0", "--max-steps", "640"]  # 8 generations


@pytest.fixture(scope="module", autouse=True)
def dask():
    """Nothing here works without it."""
    return pytest.importorskip("distributed")


@pytest.fixture(scope="module")
def expected(tmp_path_factory):
    """The files of a run in one process."""
    folder = tmp_path_factory.mktemp("expected")
    done = run_script(folder, *FATAL, "--workers", "1", "--out", "run")
    assert done.returncode == 0, done.stderr
    return files(folder / "run")


@pytest.fixture
def cluster(tmp_path):
    """A scheduler and its two worker processes: the processes, and the address."""
    dask = [sys.executable, "-m", "distributed.cli.dask_"]
    pipes = {"cwd": tmp_path, "stderr": subprocess.DEVNULL, "start_new_session": True}
    pipes |= {"env": os.environ | PROBES}
    file = ["--scheduler-file", "cluster.json"]
    command = [*dask[:2], f"{dask[2]}scheduler", "--host", "127.0.0.1", "--port", "0", *file]
    scheduler = subprocess.Popen([*command, "--no-dashboard"], **pipes)
    command = [*dask[:2], f"{dask[2]}worker", *file, "--nworkers", "2", "--nthreads", "1"]
    workers = subprocess.Popen([*command, "--no-dashboard"], **pipes)
    try:
        yield scheduler, address(tmp_path / "cluster.json")
    finally:
        kill_group(workers)
        kill_group(scheduler)
        workers.wait()
        scheduler.wait()


def address(file):
    """The address of a cluster with two workers, once it is there."""
    from distributed import Client

    with Client(scheduler_file=str(file), timeout=120) as client:
        client.wait_for_workers(2, timeout=120)
        return client.scheduler.address


def test_a_cluster_without_a_worker_is_not_waited_for(tmp_path):
    from distributed import LocalCluster

    with LocalCluster(n_workers=0, dashboard_address=None, silence_logs=50) as cluster:
        address = cluster.scheduler_address
        done = run_script(tmp_path, *FATAL, "--cluster", address, "--out", "run")
    assert done.returncode == 1 and "0/1 workers" in complaints(done.stderr)


def test_a_cluster_gives_the_bytes_of_one_process_also_where_a_worker_is_killed(
    tmp_path, cluster, expected
):
    _, address = cluster
    for name in ("calm", "killed"):
        if name == "killed":
            (tmp_path / "kill").touch()
        done = run_script(tmp_path, *FATAL, "--cluster", address, "--out", name)
        assert done.returncode == 0, done.stderr
        assert files(tmp_path / name) == expected
    assert not (tmp_path / "kill").exists(), "nobody was killed"


def test_a_port_that_lets_in_and_says_nothing_is_not_waited_for(monkeypatch):
    monkeypatch.setattr(workers, "TIMEOUT", 1)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        address = f"127.0.0.1:{silent.getsockname()[1]}"
        words = f"{address} accepts connections and does not answer: is it the scheduler's port?"
        with pytest.raises(ConnectionError, match=re.escape(words)), cluster_client(address):
            pass


@pytest.mark.parametrize("address", ["node1..cluster:8786", "tls://127.0.0.1:8786"])
def test_an_address_that_nobody_can_have_is_a_fault_of_the_connection(address):
    with (
        pytest.raises(ConnectionError, match=f"there is no cluster {address}: "),
        cluster_client(address),
    ):
        pass


def test_a_scheduler_that_is_gone_is_answered_with_one_line_and_the_run_resumes(
    tmp_path, cluster, expected
):
    scheduler, address = cluster
    script = start(tmp_path, *FATAL, "--out", "run", "--cluster", address)
    read_until(script, "generation 0")
    kill_group(scheduler)
    _, errors = script.communicate(timeout=300)
    assert script.returncode == 1, errors
    assert complaints(errors).count("\n") == 1, errors
    assert errors.endswith(f"python {SCRIPT[1]} --resume run --cluster={address} --no-gif\n")
    assert "stopped: the scheduler of the cluster is gone; resume with: " in errors
    done = run_script(tmp_path, "--resume", "run", "--no-gif", "--cluster", address)
    assert done.returncode == 1 and complaints(done.stderr).startswith("stopped: Timed out")
    assert complaints(done.stderr).count("\n") == 1
    done = run_script(tmp_path, "--resume", "run", "--no-gif", "--workers", "1")
    assert done.returncode == 0 and files(tmp_path / "run") == expected


def test_what_tasks_share_is_sent_to_each_worker_once_and_the_steps_of_each_are_told(monkeypatch):
    from distributed.comm.tcp import TCP

    shared, sent, told = os.urandom(10_000_000), [], []
    write = TCP.write

    async def counting(self, *arguments, **options):
        sent.append(await write(self, *arguments, **options))
        return sent[-1]

    monkeypatch.setattr(TCP, "write", counting)  # of client and scheduler, both in this process
    with cluster_client("local:2") as client:
        results = map_on_cluster(client, told.append, partial(look, shared), range(8))
        passed_on = client.run(lambda dask_worker: dask_worker.transfer_outgoing_bytes_total)
    assert [size for _, size in results] == [10_000_000] * 8
    assert len({pid for pid, _ in results}) == 2, "one worker did it all"
    assert sorted(told) == list(range(8))
    copies = [round(sum(numbers) / 10_000_000, 1) for numbers in (sent, passed_on.values())]
    assert copies == [2.0, 1.0]  # client to scheduler to one worker, and from there to the other


def test_a_task_that_fails_is_raised_as_it_was():
    with (
        cluster_client("local:2") as client,
        pytest.raises(ZeroDivisionError),
    ):
        map_on_cluster(client, None, divmod, [1, 2], [0, 0])


def test_loky_gives_the_bytes_of_one_process():
    loky = pytest.importorskip("loky")
    with loky.get_reusable_executor(max_workers=2) as executor:
        assert text(run(options={"map": executor.map})) == text(run())


def test_a_killed_worker_of_loky_ends_the_run_and_what_was_kept_of_it_goes_on(
    tmp_path, monkeypatch
):
    loky = pytest.importorskip("loky")
    monkeypatch.chdir(tmp_path)
    config, kept = replace(TINY, env_id="probes:Fatal-v0"), []

    def keep(done):
        kept.append(done)
        (tmp_path / "kill").touch()

    with (
        loky.get_reusable_executor(max_workers=2) as executor,
        pytest.raises(loky.process_executor.TerminatedWorkerError),
    ):
        run(config, options={"map": executor.map, "on_generation": keep})
    assert len(kept) == 1
    with loky.get_reusable_executor(max_workers=2) as executor:
        done = run(config, start=kept[0], options={"map": executor.map})
    assert text(done) == text(run(config))


MPI = """
from common import run, text
from mpi4py.futures import MPIPoolExecutor

if __name__ == "__main__":
    with MPIPoolExecutor() as executor:
        assert text(run(options={"map": executor.map})) == text(run())
"""


@pytest.mark.skipif(shutil.which("mpiexec") is None, reason="needs MPI")
def test_mpi_gives_the_bytes_of_one_process(tmp_path):
    pytest.importorskip("mpi4py")
    (tmp_path / "script.py").write_text(MPI)
    command = ["mpiexec", "-n", "3", sys.executable, "-m", "mpi4py.futures", "script.py"]
    env = os.environ | PROBES
    done = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, timeout=300)
    assert done.returncode == 0, done.stderr
