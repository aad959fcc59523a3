"""The environments: where an episode ends, and what happens when one of them fails."""

import gymnasium as gym
import numpy as np
import probes  # noqa: F401  registers the environments
import pytest

from tinyevo.environment import Guarded, make_env, make_envs, successors


def test_the_successor_of_a_finished_step_is_its_own_last_observation():
    next_obs = np.array([[1.0], [2.0], [3.0]])
    final = np.array([None, np.array([20.0]), None], dtype=object)
    real = successors(next_obs, {"final_obs": final, "_final_obs": np.array([False, True, False])})
    assert real.tolist() == [[1.0], [20.0], [3.0]]
    assert next_obs.tolist() == [[1.0], [2.0], [3.0]], "the observations to go on from were changed"
    assert successors(next_obs, {}) is next_obs


def test_the_environments_start_the_next_episode_in_the_same_step():
    envs = make_envs("probes:Counting-v0", 2, max_episode_steps=1)
    first, _ = envs.reset(seed=[1, 2])
    obs, _, _, _, infos = envs.step(np.tile([0.0, 5.0], (2, 1)).astype(np.float32))
    assert (obs[:, 1] == 0).all() and (obs[:, 0] != first[:, 0]).all()
    assert (successors(obs, infos)[:, 1] == 1).all() and (
        successors(obs, infos)[:, 0] == first[:, 0]
    ).all()
    envs.close()


@pytest.fixture
def faulty(tmp_path, monkeypatch):
    """A function that makes an environment in which something goes wrong in the fourth step of an
    episode.
    """
    monkeypatch.chdir(tmp_path)

    def make(fault, vector=False):
        (tmp_path / "fault").write_text(fault)
        return make_envs("probes:Faulty-v0", 2) if vector else make_env("probes:Faulty-v0")

    return make


FAULTS = {
    "raise": "raised RuntimeError('the engine is on fire')",
    "reward nan": "returned the reward nan",
    "reward -inf": "returned the reward -inf",
    # Finite, but not as float32, in which it would be stored
    "reward 1e39": "returned the reward 1e+39",
    "observation nan": "returned the observation [",
    "observation inf": "returned the observation [",
}
ACTION = np.array([0, 5], dtype=np.float32)


@pytest.mark.filterwarnings("ignore:.*(NaN|not within|obs returned).*")
@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("vector", [False, True])
def test_an_environment_that_fails_is_stopped_and_named_with_the_step(faulty, fault, vector):
    env = faulty(fault, vector)
    env.reset(seed=[1, 2] if vector else 1)
    with pytest.raises(gym.error.Error) as caught:
        for _ in range(200):
            *_, terminated, _, _ = env.step(np.stack([ACTION, ACTION]) if vector else ACTION)
            if not vector and terminated:
                env.reset()
    assert str(caught.value).startswith(f"the environment Faulty-v0 {FAULTS[fault]}")
    assert str(caught.value).endswith("in step 4 of an episode")


def test_a_failure_of_reset_is_named_too():
    with pytest.raises(
        gym.error.Error, match=r"Counting-v0 raised TypeError.* in step 0 of an episode"
    ):
        make_env("probes:Counting-v0").reset(surprise=1)


def test_a_step_before_the_first_reset_is_named_too():
    with pytest.raises(
        gym.error.Error, match=r"Counting-v0 raised ResetNeeded.* in step 1 of an episode"
    ):
        make_env("probes:Counting-v0").step(ACTION)


def test_an_environment_without_an_id_is_named_by_what_it_is():
    bare = gym.make("probes:Counting-v0").unwrapped
    bare.spec = None
    with pytest.raises(gym.error.Error, match=r"the environment <.*Counting.*> raised TypeError"):
        Guarded(bare).reset(surprise=1)


def test_an_environment_that_does_not_fail_is_left_as_it_is():
    guarded, plain = make_env("probes:Counting-v0"), gym.make("probes:Counting-v0")
    assert np.array_equal(guarded.reset(seed=3)[0], plain.reset(seed=3)[0])
    for a, b in zip(guarded.step(ACTION), plain.step(ACTION)):
        assert np.array_equal(a, b)
    assert make_env("probes:Ticking-v0", max_episode_steps=2).spec.max_episode_steps == 2
