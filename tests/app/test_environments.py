"""Other environments than the lander: the whole program runs in each of them, by its id alone."""

import pytest
from script import files, run

FEW = ["--quick", "--pop-size", "2", "--num-envs", "2", "--evo-steps", "400", "--max-steps", "800"]
ENVIRONMENTS = [
    ["probes:Spot-v0", "--target", "100"],  # images
    ["Pendulum-v1", "--target", "-160"],
    ["MountainCarContinuous-v0"],
    ["BipedalWalker-v3"],
    ["probes:Mixed-v0", "--target", "200", "--no-gif"],
    ["Hopper-v5", "--no-gif"],  # pictures need a display, or MUJOCO_GL=egl
    ["HalfCheetah-v5", "--no-gif"],
]


@pytest.mark.slow
@pytest.mark.parametrize("arguments", ENVIRONMENTS, ids=lambda arguments: arguments[0])
def test_a_run_ends_with_the_same_files_with_one_worker_with_two_and_resumed(tmp_path, arguments):
    if arguments[0] in ("Hopper-v5", "HalfCheetah-v5"):
        pytest.importorskip("mujoco")
    flags = [*FEW, "--env", *arguments]
    for workers in ("1", "2"):
        done = run(tmp_path, *flags, "--workers", workers, "--out", workers)
        assert done.returncode == 0, done.stderr
    whole = files(tmp_path / "1")
    assert ("lander.gif" in whole) == ("--no-gif" not in arguments)
    assert whole == files(tmp_path / "2")

    done = run(tmp_path, *flags, "--workers", "1", "--out", "resumed", "--max-steps", "400")
    assert done.returncode == 0, done.stderr
    film = [flag for flag in arguments if flag == "--no-gif"]
    done = run(tmp_path, "--resume", "resumed", "--max-steps", "800", "--workers", "1", *film)
    assert done.returncode == 0, done.stderr
    assert whole == files(tmp_path / "resumed")
