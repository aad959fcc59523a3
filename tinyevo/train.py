"""The two loops: an agent learns in its environments, and a population evolves.

The inner loop, `train_member`, is TD3's: explore, remember, learn. The outer loop, `train`, is
evolution's: breed, fly, share, confirm, record. A generation is a pure function of the run so far,
the settings and seeds that are derived from the run's seed, so its members may fly anywhere and in
any order without changing a bit of the result, and resuming is not a case of its own.

Mirrors the tutorial's section "Training and saving an agent".
Leaves out: asynchronous evolution, and learning from what others fly in the same generation.
Needs: population.py, td3.py, networks.py, images.py, buffer.py, checkpoint.py, noise.py,
environment.py, evaluate.py, beside it in a folder `tinyevo`.
"""

import copy
import math
import warnings
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, field, replace
from functools import cache, partial

import numpy as np
import torch

from tinyevo.buffer import ReplayBuffer
from tinyevo.environment import episode_limit, make_envs, reward_threshold, successors
from tinyevo.evaluate import evaluate
from tinyevo.noise import make_noise
from tinyevo.population import member_row
from tinyevo.td3 import TD3, check_hp_space, check_ranges

# What a derived seed is for; no two purposes ever share randomness.
TRAIN, EVALUATE, CONFIRM, SELECT, MUTATE, SCORE, RENDER = range(7)


@dataclass(frozen=True)
class TrainConfig:
    """The settings of a run. Steps are environment steps of one member, over all its environments.

    Raises ValueError outside the ranges in `RANGES`. `max_steps` and `evo_steps` are at least
    `num_envs`, and are rounded down to whole steps of the vector of environments. `draw_hp` and
    `memory_size` are for whoever makes the first generation: `train` takes a `Run` as it is.
    """

    env_id: str = "LunarLanderContinuous-v3"
    seed: int = 0  # all randomness of the run follows from it
    num_envs: int = 4  # environments that a member flies side by side
    max_steps: int = 1_000_000  # steps of a member in all
    evo_steps: int = 2_500  # steps of a member in one generation
    learning_delay: int = 0  # transitions ever added before learning; until then actions are random
    updates_for: str = "everybody"  # whose steps pay for a member's updates: "own" is TD3's rule
    draw_hp: bool = False  # whether each founder draws the hyper-parameters that evolve
    memory_size: int = 100_000  # transitions that the shared memory holds
    noise: str = "ou"  # exploration: "ou" or "gaussian", of strength `HyperParams.expl_noise`
    noise_mean: float = 0.0  # in half-ranges of the action
    noise_theta: float = 0.15  # pull to the mean (ou)
    noise_dt: float = 1.0  # time of one step (ou)
    train_episode_steps: int | None = None  # limit of a training episode; None: the environment's
    eval_episodes: int = 10  # episodes of which the fitness is the mean
    eval_steps: int | None = None  # limit of an evaluation episode; None: the environment's
    confirm_episodes: int = 100  # fresh episodes that confirm a new best agent
    target: float | None = None  # confirmed mean return that ends the run, see `with_target`

    def __post_init__(self):
        check_ranges(self, RANGES)
        if self.noise not in ("ou", "gaussian"):
            raise ValueError(f"noise must be 'ou' or 'gaussian', not {self.noise!r}")
        if self.updates_for not in ("own", "everybody"):
            raise ValueError(f"updates_for must be 'own' or 'everybody', not {self.updates_for!r}")
        if type(self.draw_hp) is not bool:
            raise ValueError(f"draw_hp must be True or False, not {self.draw_hp!r}")
        for name in ("train_episode_steps", "eval_steps"):
            limit = getattr(self, name)
            if limit is not None and (type(limit) is not int or limit < 1):
                raise ValueError(f"{name} must be None or a whole number from 1, not {limit!r}")
        if type(self.target) not in (int, float, type(None)) or not abs(self.target or 0) <= 1e9:
            what = "None or a number from -1e9 to 1e9"
            raise ValueError(f"target must be {what}, not {self.target!r}")
        for name in ("max_steps", "evo_steps"):
            check_ranges(self, {name: (self.num_envs, math.inf)})
            whole = getattr(self, name) // self.num_envs * self.num_envs
            object.__setattr__(self, name, whole)

    def derived_seed(self, purpose, generation=0, slot=0):
        """The seed of one use of randomness in this run, from 0 to 2**32 - 1.

        `purpose` is one of TRAIN, EVALUATE, ... above.
        """
        sequence = np.random.SeedSequence(self.seed, spawn_key=(generation, slot, purpose))
        return int(sequence.generate_state(1)[0])

    def derived_rng(self, purpose, generation):
        """A `numpy.random.Generator` that begins at the seed of one use of randomness."""
        return np.random.default_rng(self.derived_seed(purpose, generation))


RANGES = {  # of the settings, both ends included
    "seed": (0, math.inf),
    "num_envs": (1, 1000),
    "learning_delay": (0, math.inf),
    "memory_size": (1, 10**12),
    "noise_mean": (-1, 1),
    "noise_theta": (0, 1),
    "noise_dt": (0, 1),
    "eval_episodes": (1, 1000),
    "confirm_episodes": (1, 1000),
}


def with_target(config):
    """The same settings with a target: where it is None, the environment's `reward_threshold`.

    Raises ValueError if the environment has none either.
    """
    if config.target is not None:
        return config
    target = reward_threshold(config.env_id)
    if target is None:
        raise ValueError(f"{config.env_id} has no reward_threshold: choose a target (--target)")
    return replace(config, target=target)


@dataclass(frozen=True)
class Run:
    """The state of a run at the end of a generation; `Run(population, memory)` is a new one."""

    population: list  # of TD3, as evaluated in that generation
    memory: ReplayBuffer  # shared by the population
    steps: int = 0  # environment steps of each member
    best: TD3 | None = None  # the best confirmed agent
    best_return: float = -math.inf  # its mean return in the episodes that confirmed it
    history: list = field(default_factory=list)  # a row for each member and generation, see `train`

    @property
    def generation(self):
        """The number of generations that have flown, which is the number of the next one."""
        return self.history[-1]["generation"] + 1 if self.history else 0


def ignore(value):
    """The default callback. Unlike a lambda, it can be sent to a process."""


def train_member(agent, memory, config, seed, members_counted=1, on_steps=ignore):
    """Let an agent fly and learn for `config.evo_steps` steps.

    Returns the agent, and the records of its transitions in order, as `ReplayBuffer.latest` gives
    them. `memory` is the agent's own copy of the shared memory: its transitions are added to it as
    they come, and those that it cannot hold are not returned. `members_counted` is how many
    members' steps count towards its updates: 1 for its own alone, the size of the population for
    everybody's. `on_steps` is called with the number of steps after each step of the environments.
    The agent is changed: it learns, its `steps` grow, and its `train_return` (a float) is set.

    Raises FloatingPointError if the policy diverges (the agent is unusable then), and
    `gymnasium.error.Error` if an environment fails.
    """
    rng = np.random.default_rng(seed)
    generator = torch.Generator(agent.device).manual_seed(int(rng.integers(2**63)))
    low, high = agent.action_space.low, agent.action_space.high
    noise = make_noise(
        config.noise,
        config.num_envs,
        len(low),
        config.noise_mean,
        agent.hp.expl_noise,
        config.noise_theta,
        config.noise_dt,
    )
    credit = 0  # steps not yet used for an update
    running, finished = np.zeros(config.num_envs), []  # returns of episodes

    with closing(make_envs(config.env_id, config.num_envs, config.train_episode_steps)) as envs:
        obs, _ = envs.reset(seed=rng.integers(2**31, size=config.num_envs).tolist())
        for _ in range(config.evo_steps // config.num_envs):
            # Explore: at random until enough was ever remembered, then around the greedy policy.
            delayed = memory.counter < config.learning_delay
            if delayed:
                action = rng.uniform(low, high, size=(config.num_envs, len(low)))
            else:
                action = agent.get_action(obs) + noise.sample(rng) * (high - low) / 2
                action = np.clip(action, low, high)
            action = action.astype(low.dtype)
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
            if not delayed:
                credit += config.num_envs * members_counted
            while credit >= agent.hp.learn_step:
                agent.learn(memory.sample(agent.hp.batch_size, rng), generator)
                credit -= agent.hp.learn_step
            on_steps(config.num_envs)

    agent.steps += config.evo_steps
    agent.train_return = float(np.mean(finished)) if finished else math.nan
    return agent, memory.latest(config.evo_steps)


@contextmanager
def one_torch_thread():
    """Let torch use one thread: with small networks a second one makes it slower."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


@one_torch_thread()
def train(run, tournament, mutations, config, map=map, on_steps=ignore, on_generation=ignore):
    """Evolve a population until its best agent holds `config.target`, or for `config.max_steps`.

    Each generation:
        1. Breed: tournaments select parents; their children mutate.
        2. Fly: each member trains on a copy of the shared memory, then is evaluated.
        3. Share: what all of them experienced goes into the shared memory.
        4. Confirm: an elite that is fitter than the best so far must be better in fresh episodes
           too; the first one is the best so far whatever it does there.
        5. Record the generation.

    Args:
        run: the `Run` to begin or to resume with. It is not changed.
        tournament, mutations: the `TournamentSelection` and the `Mutations` that breed.
        config: `TrainConfig`.
        map: how to call a function for all members: the built-in one, or the `map` of any
            `concurrent.futures.Executor`.
        on_steps: called with a number of environment steps where they are flown, for a progress
            bar: `on_steps=tqdm().update`. For another process it must be picklable.
        on_generation: called with the `Run` after every generation.

    Returns the `Run` after the last generation. On the CPU it depends on the other arguments alone,
    bit for bit: not on `map`, and not on whether the run was interrupted and resumed. A row of its
    history has the keys `generation`, those of `member_row`, and `elite` (whether it was the
    generation's fittest). Its population is the one that was evaluated last.

    Raises ValueError if the tournament makes populations of another size, if the run's steps are
    not whole steps of so many environments, if mutation may move what is no hyper-parameter or
    leave the ranges of `HyperParams`, or if there is no target or no such environment;
    FloatingPointError if all members diverge; and `gymnasium.error.Error` if an environment fails.
    """
    size = tournament.population_size
    if len(run.population) != size:
        raise ValueError(
            f"the run has {len(run.population)} agents, but the tournament makes {size}"
        )
    if run.steps % config.num_envs:
        raise ValueError(f"{config.num_envs} environments cannot have flown {run.steps} steps")
    check_hp_space(run.population[0].hp, mutations.hp_space)
    config = with_target(config)
    _warn_of_limits(config)
    while run.steps < config.max_steps and run.best_return < config.target:
        # 1. Breed.
        members = breed(run, tournament, mutations, config)

        # 2. Fly.
        steps = min(config.evo_steps, config.max_steps - run.steps)
        flight = partial(
            fly,
            memory=run.memory,
            config=replace(config, evo_steps=steps),
            generation=run.generation,
            members_counted=len(members) if config.updates_for == "everybody" else 1,
            on_steps=on_steps,
        )
        members, experience = zip(*map(flight, members, range(len(members))))
        elite = tournament.elite(members)

        # 3. Share.
        memory = copy.deepcopy(run.memory)
        share(memory, members, experience)

        # 4. Confirm.
        best, best_return = run.best, run.best_return
        if elite.fitness[-1] > best_return:
            mean = confirm(elite, config, run.generation, len(members), map)
            if mean > best_return or best_return == -math.inf:
                best, best_return = elite.clone(), mean

        # 5. Record.
        rows = [
            {"generation": run.generation, **member_row(agent), "elite": agent is elite}
            for agent in members
        ]
        history = [*run.history, *rows]
        run = Run(list(members), memory, run.steps + steps, best, best_return, history)
        on_generation(run)
    return run


def breed(run, tournament, mutations, config):
    """The members of the next generation; of the first one, the population as it is given."""
    if run.generation == 0:
        return run.population
    last = run.generation - 1
    _, offspring = tournament.select(run.population, config.derived_rng(SELECT, last))
    return mutations.mutate(offspring, config.derived_rng(MUTATE, last))


@one_torch_thread()
def fly(agent, slot, memory, config, generation, members_counted=1, on_steps=ignore):
    """Train and evaluate one member, on copies of its own.

    Its training seed depends on `slot`; its evaluation seed does not, so all members are evaluated
    on the same episodes. Returns the agent and its records. If it diverged, its fitness is -inf
    and the records may be None.
    """
    agent, memory = agent.clone(), copy.deepcopy(memory)
    fitness, records, agent.train_return = -math.inf, None, math.nan  # of one that diverges
    with suppress(FloatingPointError):
        seed = config.derived_seed(TRAIN, generation, slot)
        _, records = train_member(agent, memory, config, seed, members_counted, on_steps)
        seed = config.derived_seed(EVALUATE, generation)
        returns = evaluate(agent, config.env_id, config.eval_episodes, seed, config.eval_steps)
        fitness = float(returns.mean())
    agent.fitness.append(fitness if agent.is_finite() else -math.inf)
    return agent, records


def share(memory, members, experience):
    """Put the records of all members into the memory, interleaved step by step.

    So a full memory forgets all members evenly. Those of a member that diverged are left out.
    """
    pairs = zip(members, experience)
    sound = [records for agent, records in pairs if math.isfinite(agent.fitness[-1])]
    memory.extend(np.stack(sound, axis=1).ravel())


def confirm(elite, config, generation, parts, map=map):
    """The mean return of an elite in `config.confirm_episodes` episodes that did not select it.

    They are flown in `parts` calls of `map`. The seeds depend on `parts`, so it must not depend on
    the number of workers.
    """
    episodes = [len(part) for part in np.array_split(range(config.confirm_episodes), parts)]
    seeds = [config.derived_seed(CONFIRM, generation, slot) for slot in range(parts)]
    returns = map(partial(confirm_part, elite, config), episodes, seeds)
    return float(np.concatenate(list(returns)).mean())


@one_torch_thread()
def confirm_part(elite, config, episodes, seed):
    """The returns of some confirming episodes; -inf each if the elite diverges in them."""
    with suppress(FloatingPointError):
        return evaluate(elite, config.env_id, episodes, seed, config.eval_steps)
    return np.full(episodes, -math.inf)


def _warn_of_limits(config):
    own = episode_limit(config.env_id)
    if config.eval_steps is None and own is None:
        what = f"{config.env_id} has no limit of an episode's length"
        _warn_once(f"{what}: if one never ends, its evaluation does not; set eval_steps")
    limit = config.train_episode_steps or own or 0
    shorter = "evo_steps" if config.evo_steps <= config.max_steps else "max_steps"
    steps = getattr(config, shorter) // config.num_envs
    if steps < limit:
        _warn_once(
            f"an environment flies {steps} steps in a generation, but an episode may take {limit}: "
            f"long ones are cut off; set {shorter} to {limit * config.num_envs} or more, "
            f"or train_episode_steps to {steps} or less"
        )


@cache
def _warn_once(message):
    """Warn of it, once in this process: a program may train hundreds of times, from many places.

    The warning points to who called `train`.
    """
    warnings.warn(message, stacklevel=5)
