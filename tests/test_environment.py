"""The environments: where an episode ends, and what happens when one of them fails."""

import numpy as np
import probes  # noqa: F401  registers the environments

from tinyevo.environment import make_envs, successors


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
    assert (successors(obs, infos)[:, 1] == 1).all() and (successors(obs, infos)[:, 0] == first[:, 0]).all()
    envs.close()
