"""Fitness: how well the greedy policy of an agent flies.

Mirrors the tutorial's section "Evaluating an agent".
Leaves out: early stopping of bad episodes; each of them counts once, however long or short, because
the first episodes to finish are mostly crashes.
Needs: environment.py, beside it in a folder `tinyevo`. An agent here is anything with
`get_action(batch of observations)`.
"""

from contextlib import ExitStack

import numpy as np

from tinyevo.environment import make_env


def rollout(agent, envs, seeds):
    """Fly one greedy episode in each of `envs`, side by side, from the starts of `seeds`.

    Yields (index of the environment, reward, terminated, truncated) at the start of each episode,
    with a reward of 0, and after each of its steps. The agent is asked once a step, about all
    episodes that have not ended.
    """
    obs = {}  # the last observation of each running episode, by index
    for index, (env, seed) in enumerate(zip(envs, seeds)):
        obs[index], _ = env.reset(seed=seed)
        yield index, 0.0, False, False
    while obs:
        actions = agent.get_action(np.stack(list(obs.values())))
        for index, action in zip(list(obs), actions):
            obs[index], reward, terminated, truncated, _ = envs[index].step(action)
            if terminated or truncated:
                del obs[index]
            yield index, reward, terminated, truncated


def evaluate(agent, env_id, episodes, seed, max_steps=None):
    """The returns of the greedy policy in `episodes` episodes: (episodes,).

    The episodes' starts follow from `seed` alone, as `episode_seeds` says, so agents evaluated with
    one seed face the same tasks. `max_steps` replaces the environment's own limit of an episode's
    length. Raises FloatingPointError if an action is not finite, because the policy diverged, and
    `gymnasium.error.Error` if the environment fails.
    """
    returns = np.zeros(episodes)
    with ExitStack() as stack:
        envs = [stack.enter_context(make_env(env_id, max_steps)) for _ in range(episodes)]
        for index, reward, *_ in rollout(agent, envs, episode_seeds(seed, episodes)):
            returns[index] += reward
    return returns


def episode_seeds(seed, episodes):
    """The seeds with which `episodes` episodes start, made of `seed`: a list of whole numbers.

    Neighbouring values of `seed` give unrelated episodes.
    """
    return np.random.SeedSequence(seed).generate_state(episodes).tolist()
