"""evaluate: the greedy policy, fixed tasks, every episode once."""

from contextlib import nullcontext

import gymnasium as gym
import numpy as np
import probes
import pytest
from common import make_agent
from gymnasium.spaces import Box

from tinyevo.environment import make_env
from tinyevo.evaluate import episode_seeds, evaluate, rollout


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
    for start in episode_seeds(seed, episodes):
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


class Tasks(gym.Env):
    """Three steps of a task that the seed draws: the reward is the action minus the task, and
    the action may be anything.
    """

    observation_space = Box(0, 1, (1,), np.float64)
    action_space = Box(0, 1, (1,), np.float64)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.task, self.t = self.np_random.random(1), 0
        return self.task.copy(), {}

    def step(self, action):
        self.t += 1
        return self.task.copy(), float(action[0] - self.task[0]), self.t == 3, False, {}


gym.register("Tasks-v0", Tasks)


class Answering:
    """An agent whose action is the observation and a bit more."""

    def __init__(self, more):
        self.more = more

    def get_action(self, obs):
        return obs + self.more


def test_each_action_goes_to_the_episode_of_its_observation():
    assert evaluate(Answering(0.0), "Tasks-v0", episodes=6, seed=0).tolist() == [0.0] * 6


def test_returns_are_summed_in_double_precision():
    # 1 and a bit that float32 cannot tell from 1, three times; the task costs the last digits.
    bit = 2.0**-30
    returns = evaluate(Answering(1 + bit), "Tasks-v0", episodes=2, seed=0)
    assert returns.dtype == np.float64
    assert returns == pytest.approx(3 + 3 * bit, rel=1e-14)


def test_the_seeds_of_episodes_are_distinct_and_more_of_them_begin_alike():
    seeds = episode_seeds(5, 100)
    assert seeds == np.random.SeedSequence(5).generate_state(100).tolist()
    assert seeds[:7] == episode_seeds(5, 7) and episode_seeds(5, 0) == []
    assert all(type(seed) is int for seed in seeds)
    assert len({*seeds, *episode_seeds(6, 100)}) == 200


def test_a_rollout_tells_the_start_and_each_step_of_each_episode_up_to_its_end():
    envs = [make_env("Counting-v0") for _ in range(4)]
    told = list(rollout(Still(), envs, episode_seeds(3, 4)))
    assert told[:4] == [(index, 0.0, False, False) for index in range(4)]
    for index, length in enumerate(lengths(3, 4)):
        steps = [step[1:] for step in told[4:] if step[0] == index]
        going_on = [(1.0, False, False)] * (int(length) - 1)
        assert steps == [*going_on, (1.0, True, False)]


def test_a_rollout_ends_where_a_time_limit_cuts_an_episode_off():
    told = list(rollout(Still((0.0,)), [make_env("Ticking-v0", 2)], [0]))
    assert told == [(0, 0.0, False, False), (0, 1.0, False, False), (0, 1.0, False, True)]


def test_max_steps_caps_an_episode_and_without_it_the_environment_does():
    assert evaluate(Still(), "Counting-v0", 50, seed=3, max_steps=2).max() == 2
    assert evaluate(Still(), "Capped-v0", 50, seed=3).max() == 4
    assert evaluate(Still((0.0,)), "Ticking-v0", 2, seed=3).tolist() == [5, 5]


@pytest.mark.parametrize("action", [0.0, np.nan])
def test_every_environment_is_closed_in_the_end_even_if_the_policy_diverges(monkeypatch, action):
    closed = []
    monkeypatch.setattr(probes.Counting, "close", lambda self: closed.append(self))
    agent = make_agent()
    agent.networks["actor"].biases[-1].data.fill_(action)
    with nullcontext() if action == 0 else pytest.raises(FloatingPointError):
        evaluate(agent, "Counting-v0", episodes=7, seed=0)
    assert len(set(closed)) == 7


def test_no_episodes_have_no_returns():
    assert evaluate(Still(), "Counting-v0", episodes=0, seed=0).shape == (0,)


def test_a_policy_that_diverges_ends_the_evaluation():
    agent = make_agent()
    agent.networks["actor"].weights[0].data.fill_(np.nan)
    with pytest.raises(FloatingPointError, match="diverged"):
        evaluate(agent, "Counting-v0", episodes=2, seed=0)


@pytest.mark.parametrize("episodes", [1, 3])
def test_the_lander_flies_and_repeats_bit_for_bit(episodes):
    first, second = (
        evaluate(Still((0.5, 0.0)), "LunarLanderContinuous-v3", episodes, seed=7) for _ in range(2)
    )
    assert np.array_equal(first, second) and len(first) == episodes
    assert np.isfinite(first).all() and (first < 0).all()
