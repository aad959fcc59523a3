"""The two loops: an agent learns in its environments, and a population evolves.

The inner loop is TD3's: explore, remember, learn. The outer loop is evolution's: every generation each member flies and
learns for `evo_steps` environment steps on a private copy of the shared memory, is evaluated, and returns what it
experienced; then the experience is shared, and selection and mutation make the next generation. A generation is a pure
function of the agents, the memory, the configuration and seeds that are derived from the run's seed, so its members may
run anywhere and in any order without changing a bit of the result.

Mirrors the tutorial's section "Training and saving an agent".
Leaves out: asynchronous evolution, and learning from what others fly in the same generation.
Needs: population.py, td3.py, networks.py, result.py, buffer.py, checkpoint.py, noise.py, environment.py, evaluate.py,
workers.py.
"""

import copy
import math
import warnings
from contextlib import closing, suppress
from dataclasses import dataclass, fields, replace

import gymnasium as gym
import numpy as np
import torch
from tqdm import tqdm

from tinyevo.environment import make_envs, successors
from tinyevo.evaluate import evaluate
from tinyevo.noise import make_noise
from tinyevo.population import member_row
from tinyevo.result import TrainResult
from tinyevo.workers import every_second, run_tasks

# What a derived seed is for; no two purposes ever share randomness.
TRAIN, EVALUATE, CONFIRM, SELECT, MUTATE, SCORE, RENDER = range(7)
# The settings whose limits are not 1 and up.
LIMITS = {"seed": (0, math.inf), "learning_delay": (0, math.inf), "target": (-1e9, 1e9)}
LIMITS |= dict.fromkeys(("num_envs", "eval_episodes", "confirm_episodes"), (1, 1000))
LIMITS |= {"noise_mean": (-1, 1)} | dict.fromkeys(("noise_theta", "noise_dt"), (0, 1))


@dataclass(frozen=True)
class TrainConfig:
    """The settings of a run. Steps are environment steps of one member, summed over its environments."""

    env_id: str = "LunarLanderContinuous-v3"
    seed: int = 0
    num_envs: int = 8  # environments that a member flies side by side
    max_steps: int = (
        1_000_000  # steps of a member in all, rounded down to whole steps of its environments
    )
    evo_steps: int = 10_000  # steps of a member in one generation, rounded down likewise
    learning_delay: int = (
        0  # transitions in the memory before anybody learns; until then actions are random
    )
    memory_size: int = 100_000  # transitions that the shared memory holds
    noise: str = "ou"  # exploration: "ou" or "gaussian", of strength `HyperParams.expl_noise`
    noise_mean: float = 0.0
    noise_theta: float = 0.15  # pull to the mean (ou)
    noise_dt: float = 1.0  # time of one step (ou)
    train_episode_steps: int | None = (
        None  # limit of a training episode; None is the environment's own
    )
    eval_episodes: int = 10  # episodes of which the fitness is the mean
    eval_steps: int | None = None  # limit of an evaluation episode; None is the environment's own
    confirm_episodes: int = (
        100  # further episodes that a new best elite must fly; as many give the final score
    )
    target: float = 200.0  # confirmed mean return that ends the run

    def __post_init__(self):
        limits = LIMITS | dict.fromkeys(("max_steps", "evo_steps"), (self.num_envs, math.inf))
        for setting in fields(self):
            name, kind, value = setting.name, setting.type, getattr(self, setting.name)
            if kind is str or (kind == int | None and value is None):
                continue
            low, high = limits.get(name, (1, math.inf))
            number, types = ("number", (int, float)) if kind is float else ("whole number", (int,))
            if type(value) not in types or not low <= value <= high:
                raise ValueError(f"{name} must be a {number} from {low} to {high}, not {value!r}")
        if self.noise not in ("ou", "gaussian"):
            raise ValueError(f"noise must be 'ou' or 'gaussian', not {self.noise!r}")
        for name in ("max_steps", "evo_steps"):
            object.__setattr__(self, name, getattr(self, name) // self.num_envs * self.num_envs)

    def derived_seed(self, purpose, generation=0, slot=0):
        """The seed of one use of randomness in this run, from 0 to 2**32 - 1."""
        sequence = np.random.SeedSequence(self.seed, spawn_key=(generation, slot, purpose))
        return int(sequence.generate_state(1)[0])

    def derived_rng(self, purpose, generation):
        """A `numpy.random.Generator` that begins at the seed of one use of randomness."""
        return np.random.default_rng(self.derived_seed(purpose, generation))


def train_member(agent, memory, config, seed, on_steps=lambda steps: None):
    """Let an agent fly and learn for `config.evo_steps` steps; returns it and the records of its transitions, in order.

    `memory` is the agent's own copy of the shared memory: its transitions are added to it as they come, and those that
    it cannot hold are not returned. `on_steps` is called with the number of steps after each step of the environments.
    Actions have the type of the action space. A step that begins with fewer than `config.learning_delay` transitions in
    the memory is random and pays for no update. The agent's `steps` grow, and its `train_return` (a float) is set.
    """
    rng = np.random.default_rng(seed)
    generator = torch.Generator(agent.device).manual_seed(int(rng.integers(2**63)))
    sigma, theta, dt = agent.hp.expl_noise, config.noise_theta, config.noise_dt
    low, high = agent.action_space.low, agent.action_space.high
    noise = make_noise(config.noise, config.num_envs, len(low), config.noise_mean, sigma, theta, dt)
    credit = 0  # steps not yet paid for with updates
    running, finished = np.zeros(config.num_envs), []  # returns of episodes

    with closing(make_envs(config.env_id, config.num_envs, config.train_episode_steps)) as envs:
        obs, _ = envs.reset(seed=rng.integers(2**31, size=config.num_envs).tolist())
        for _ in range(config.evo_steps // config.num_envs):
            # Explore.
            delayed = memory.counter < config.learning_delay
            if delayed:
                action = rng.uniform(low, high, size=(config.num_envs, len(low))).astype(low.dtype)
            else:
                action = agent.get_action(obs) + noise.sample(rng) * (high - low) / 2
                action = np.clip(action, low, high).astype(low.dtype)
            next_obs, reward, terminated, truncated, infos = envs.step(action)

            # Remember. A time limit is not a termination, so only `terminated` is stored.
            memory.add(obs, action, reward, successors(next_obs, infos), terminated)
            obs = next_obs
            ended = terminated | truncated
            running += reward
            finished += running[ended].tolist()
            running[ended] = 0
            noise.reset(ended)

            # Learn: one update for every `learn_step` steps, whatever the number of environments.
            credit += 0 if delayed else config.num_envs
            while credit >= agent.hp.learn_step:
                agent.learn(memory.sample(agent.hp.batch_size, rng), generator)
                credit -= agent.hp.learn_step
            on_steps(config.num_envs)

    agent.steps += config.evo_steps
    agent.train_return = float(np.mean(finished)) if finished else math.nan
    return agent, memory.latest(config.evo_steps)


def train(
    population,
    memory,
    tournament,
    mutations,
    config,
    executor=None,
    on_generation=lambda result: None,
    resume=None,
):
    """Evolve a population until its best confirmed agent reaches `config.target`, or for `config.max_steps`.

    Args:
        population: list of `TD3`; these agents are left as they are.
        memory: the `ReplayBuffer` that they share; it is filled.
        tournament, mutations: the `TournamentSelection` and the `Mutations` that make the next generation.
        config: `TrainConfig`.
        executor: a `concurrent.futures.Executor` that trains the members; None trains them here, one after another.
        on_generation: called with the `TrainResult` so far after every generation.
        resume: a `TrainResult` to go on with; then pass the `population` and the `memory` that it holds.

    Returns the `TrainResult`. On the CPU it depends on the arguments alone, not on whether the run was interrupted and
    resumed, and not on the executor, if torch has one thread here as in the workers (`torch.set_num_threads`).
    """
    if len(population) != tournament.population_size:
        raise ValueError(
            f"{len(population)} agents are given, but the tournament makes {tournament.population_size}"
        )
    _warn_of_short_slices(config)
    result = resume or TrainResult(population, memory)
    offspring = population
    if result.fitnesses:  # whom its last generation selected follows from the seed
        _, offspring = tournament.select(
            population, config.derived_rng(SELECT, len(result.fitnesses) - 1)
        )
    total, done = config.max_steps * len(population), result.steps * len(population)
    bar = tqdm(total=total, initial=done, unit=" steps", unit_scale=True, disable=None)
    with bar, every_second(bar.refresh):
        while result.steps < config.max_steps and result.confirmed < config.target:
            # Let the children differ from their parents.
            generation = len(result.fitnesses)
            if generation > 0:
                offspring = mutations.mutation(
                    offspring, config.derived_rng(MUTATE, generation - 1)
                )

            # Let everybody fly and learn, on a seed each, and be evaluated, all on the same episodes.
            steps = min(config.evo_steps, config.max_steps - result.steps)
            settings = replace(config, evo_steps=steps), config.derived_seed(EVALUATE, generation)
            seeds = [config.derived_seed(TRAIN, generation, slot) for slot in range(len(offspring))]
            tasks = [(agent, memory, seed, *settings) for agent, seed in zip(offspring, seeds)]
            members, transitions = zip(*run_tasks(_fly_member, tasks, executor, steps, bar.update))

            # Find the best, and select the parents of the next generation.
            elite, offspring = tournament.select(members, config.derived_rng(SELECT, generation))

            # Share what they experienced, interleaved step by step; nothing of one that diverged.
            sound = [
                records
                for agent, records in zip(members, transitions)
                if math.isfinite(agent.fitness[-1])
            ]
            memory.extend(np.stack(sound, axis=1).ravel())

            # Confirm the best on episodes that did not select it.
            if elite.fitness[-1] > result.confirmed:
                parts = np.array_split(
                    range(config.confirm_episodes), len(members)
                )  # the same for any executor
                seeds = [
                    config.derived_seed(CONFIRM, generation, slot) for slot in range(len(members))
                ]
                tasks = [(elite, config, len(part), seed) for part, seed in zip(parts, seeds)]
                mean = np.concatenate(run_tasks(_fly_part, tasks, executor, 0, bar.update)).mean()
                if mean > result.confirmed or result.elite is None:
                    result.elite, result.confirmed = elite, float(mean)

            # Tell what happened.
            bar.set_postfix(fitness=f"{elite.fitness[-1]:.0f}", confirmed=f"{result.confirmed:.0f}")
            result.population, result.steps = list(members), result.steps + steps
            result.fitnesses.append([agent.fitness[-1] for agent in members])
            for agent in members:
                result.history.append(
                    {"generation": generation, **member_row(agent), "elite": agent.id == elite.id}
                )
            on_generation(result)
    return result


def _fly_member(agent, memory, seed, config, evaluation_seed, on_steps):
    """One member's generation, on copies of its own: train it, evaluate it."""
    agent, memory = copy.deepcopy((agent, memory))
    fitness, records, agent.train_return = (
        -math.inf,
        None,
        math.nan,
    )  # of one that diverges on the way
    with suppress(FloatingPointError):
        _, records = train_member(agent, memory, config, seed, on_steps)
        fitness = evaluate(
            agent, config.env_id, config.eval_episodes, evaluation_seed, config.eval_steps
        ).mean()
    agent.fitness.append(float(fitness) if agent.is_finite() else -math.inf)
    return agent, records


def _fly_part(elite, config, episodes, seed, on_steps):
    """Some of the episodes that confirm an elite; one that diverges in them is not confirmed."""
    with suppress(FloatingPointError):
        return evaluate(elite, config.env_id, episodes, seed, config.eval_steps)
    return np.full(episodes, -math.inf)


def _warn_of_short_slices(config):
    with closing(gym.make(config.env_id)) as env:
        limit = config.train_episode_steps or env.spec.max_episode_steps or 0
    steps = min(config.evo_steps, config.max_steps) // config.num_envs
    if steps < limit:
        message = (
            f"an environment flies {steps} steps in a generation, but an episode may take {limit}:"
        )
        warnings.warn(
            f"{message} long ones are cut off; raise evo_steps or lower num_envs", stacklevel=3
        )
