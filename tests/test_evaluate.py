"""evaluate: the greedy policy, fixed tasks, every episode once."""

import gymnasium as gym
import numpy as np
import probes
import pytest

from tinyevo.evaluate import evaluate


class Still:
    """An agent that remembers the batches that it was asked about."""

    def __init__(self, action=(0.0, 5.0)):
        self.action, self.batches = np.array(action, dtype=np.float32), []

    def get_action(self, obs):
        self.batches.append(obs.copy())
        return np.tile(self.action, (len(obs), 1))


def lengths(seed, episodes):
    """How long the episodes of `Counting` that belong to a seed are."""
    starts = []
    for start in np.random.SeedSequence(seed).generate_state(episodes).tolist():
        obs, _ = gym.make("Counting-v0").reset(seed=start)
        starts.append(obs[2])
    return starts


def test_each_episode_counts_once_however_short():
    returns = evaluate(Still(), "Counting-v0", episodes=50, seed=3)
    assert returns.shape == (50,)
    assert returns.tolist() == lengths(3, 50)
    assert len(set(returns.tolist())) == 9


def test_an_agent_is_asked_only_about_episodes_that_go_on():
    agent = Still()
    returns = evaluate(agent, "Counting-v0", episodes=50, seed=3)
    assert [len(batch) for batch in agent.batches] == [
        int((returns > t).sum()) for t in range(int(returns.max()))
    ]
    for t, batch in enumerate(agent.batches):
        assert (batch[:, 1] == t).all()


def test_the_tasks_follow_from_the_seed_alone():
    first, second = Still(), Still((0.5, 1.0))
    evaluate(first, "Counting-v0", episodes=5, seed=0)
    evaluate(second, "Counting-v0", episodes=5, seed=0)
    assert np.array_equal(first.batches[0], second.batches[0])
    other = Still()
    evaluate(other, "Counting-v0", episodes=5, seed=1)
    assert not set(first.batches[0][:, 0]) & set(other.batches[0][:, 0]), (
        "neighbouring seeds share an episode"
    )


def test_max_steps_caps_an_episode_and_without_it_the_environment_does():
    assert evaluate(Still(), "Counting-v0", 50, seed=3, max_steps=2).max() == 2
    assert evaluate(Still(), "Capped-v0", 50, seed=3).max() == 4
    assert evaluate(Still((0.0,)), "Ticking-v0", 2, seed=3).tolist() == [5, 5]


def test_every_environment_is_closed(monkeypatch):
    closed = []
    monkeypatch.setattr(probes.Counting, "close", lambda self: closed.append(self))
    evaluate(Still(), "Counting-v0", episodes=7, seed=0)
    assert len(set(closed)) == 7


@pytest.mark.parametrize("episodes", [1, 3])
def test_the_lander_flies_and_repeats_bit_for_bit(episodes):
    first, second = (
        evaluate(Still((0.5, 0.0)), "LunarLanderContinuous-v3", episodes, seed=7) for _ in range(2)
    )
    assert np.array_equal(first, second) and len(first) == episodes
    assert np.isfinite(first).all() and (first < 0).all()
