"""Fitness: how well an agent flies when it explores nothing.

Mirrors the tutorial's section "Loading an agent for inference, testing and rendering".
Leaves out: early stopping of bad episodes; each of them counts once, however long or short, because the first episodes
to finish are mostly crashes.
Needs: environment.py. An agent here is anything with `get_action(batch of observations)`.
"""

import numpy as np

from tinyevo.environment import make_env


def evaluate(agent, env_id, episodes, seed, max_steps=None):
    """The returns of the greedy policy in `episodes` episodes: (episodes,).

    The episodes' starts follow from `seed` alone (`np.random.SeedSequence(seed).generate_state(episodes)`), so agents
    evaluated with one seed face the same tasks. All episodes are flown side by side, each in an environment of its own,
    which is closed at its end; the agent is asked once a step, about those that still go on. `max_steps` takes the
    place of the environment's own limit of an episode's length.
    """
    seeds = np.random.SeedSequence(seed).generate_state(episodes).tolist()
    envs = [make_env(env_id, max_steps) for _ in range(episodes)]
    obs = [env.reset(seed=seed)[0] for env, seed in zip(envs, seeds)]
    returns = np.zeros(episodes)
    flying = list(range(episodes))
    while flying:
        actions = agent.get_action(np.stack([obs[index] for index in flying]))
        for index, action in zip(list(flying), actions):
            obs[index], reward, terminated, truncated, _ = envs[index].step(action)
            returns[index] += reward
            if terminated or truncated:
                flying.remove(index)
                envs[index].close()
    return returns
