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
def test_a_run_ends_with_the_same_files_with_one_worker_and_with_two_and_resumed(
    tmp_path, arguments
):
    if arguments[0] in ("Hopper-v5", "HalfCheetah-v5"):
        pytest.importorskip("mujoco")
    begin = [*FEW, "--env", *arguments, "--out"]
    for command in (
        [*begin, "whole", "--workers", "1"],
        [*begin, "parts", "--workers", "2", "--max-steps", "400", "--no-gif"],
        ["--resume", "parts", "--workers", "2", "--max-steps", "800", "--no-gif"],
    ):
        done = run(tmp_path, *command)
        assert done.returncode == 0, done.stderr
    whole, parts = files(tmp_path / "whole"), files(tmp_path / "parts")
    assert ("lander.gif" in whole) == ("--no-gif" not in arguments)
    del parts["report.html"]  # which has a film in it, if there is one
    assert "population.pt" in parts and parts.items() <= whole.items()
