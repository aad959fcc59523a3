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
def test_a_run_with_one_worker_and_one_resumed_with_two_end_with_the_same_files(
    tmp_path, arguments
):
    if arguments[0] in ("Hopper-v5", "HalfCheetah-v5"):
        pytest.importorskip("mujoco")
    film = [flag for flag in arguments if flag == "--no-gif"]
    begin = [*FEW, "--env", *arguments]
    for command in (
        [*begin, "--out", "whole", "--workers", "1"],
        [*begin, "--out", "parts", "--workers", "2", "--max-steps", "400", "--no-gif"],
        ["--resume", "parts", "--workers", "2", "--max-steps", "800", *film],
    ):
        done = run(tmp_path, *command)
        assert done.returncode == 0, done.stderr
    whole = files(tmp_path / "whole")
    assert ("lander.gif" in whole) == ("--no-gif" not in arguments)
    assert whole == files(tmp_path / "parts")
