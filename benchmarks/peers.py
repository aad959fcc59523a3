"""The lander, beside other programs: `python benchmarks/peers.py` (hours, and nothing beside it).

Stable-Baselines3's TD3 and SAC have the hyper-parameters that RL Baselines3 Zoo publishes
(`hyperparams/td3.yml` and `sac.yml`, commit 22e3ff2), AgileRL those of its tutorial, and tinyevo
those of `train_lunar.py` with two workers. One rule for all: after every 5,000 steps, or a
generation where there are generations, the greedy policy flies ten episodes; where it is better
than before, a hundred fresh episodes confirm it; a run ends at a confirmed mean of 200, after 40
minutes, or after all steps that its settings have: 300,000 of TD3's and 500,000 of SAC's by Zoo,
1,000,000 of each member otherwise. All looking counts. In the end the best confirmed policy flies.
One run after another, each with the cores to itself. `peers.csv` gets a row for each, and what is
there is not flown again. Needs `stable-baselines3` and `agilerl`.
"""

import argparse
import copy
import math
import os
import sys
import time
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent))

from others import Greedy  # noqa: E402
from tables import add_row, markdown, read_rows  # noqa: E402

from tinyevo.app.workers import worker_pool  # noqa: E402
from tinyevo.buffer import ReplayBuffer  # noqa: E402
from tinyevo.environment import find_spaces  # noqa: E402
from tinyevo.evaluate import evaluate  # noqa: E402
from tinyevo.population import create_population  # noqa: E402
from tinyevo.train import CONFIRM, EVALUATE, SCORE, Run, train  # noqa: E402
from train_lunar import SETTINGS  # noqa: E402

ENV = SETTINGS.config.env_id
TARGET = SETTINGS.config.target
EVERY = 5_000  # steps between two looks
MINUTES = 40
SEEDS = range(140, 143)  # of PROTOCOL.md
PATH = HERE / "peers.csv"
COLUMNS = (
    "who",
    "seed",
    "landed",
    "steps",
    "clock s",
    "processor s",
    "confirmed",
    "in 100 fresh episodes",
)


class Ended(Exception):
    """A run has come to its end: it landed, or its time is up."""


class Look:
    """Looks at a program's agent now and then, by the rule of all.

    `policy` is the best confirmed so far, and `best` the mean return that confirmed it.
    """

    def __init__(self, seed):
        self.config = replace(SETTINGS.config, seed=seed)
        self.best, self.policy, self.count, self.steps = -math.inf, None, 0, 0

    def start(self):
        """A program that has been imported begins its run: now its time counts."""
        self.began, self.processor = time.perf_counter(), processor()

    def __call__(self, policy, steps):
        """Look after so many steps at a policy that learns no more; raise `Ended` at the end."""
        seeds = [self.config.derived_seed(use, self.count) for use in (EVALUATE, CONFIRM)]
        self.count += 1
        if evaluate(policy, ENV, 10, seeds[0]).mean() > self.best:
            self.note(policy, evaluate(policy, ENV, 100, seeds[1]).mean())
        self.go_on(steps)

    def note(self, policy, mean):
        """Note a policy that a hundred episodes confirmed."""
        if mean > self.best:
            self.policy, self.best = policy, mean

    def go_on(self, steps):
        """Note how far the run is; raise `Ended` where it ends."""
        self.steps = steps
        if self.best >= TARGET or time.perf_counter() - self.began > 60 * MINUTES:
            raise Ended


def fly_tinyevo(look):
    """A run of ours, which looks by itself."""
    config, spaces = look.config, find_spaces(ENV)
    size = SETTINGS.tournament.population_size
    network = vars(SETTINGS.network)
    population = create_population(size, *spaces, SETTINGS.hp, config.seed, **network)
    run = Run(population, ReplayBuffer(config.memory_size, *spaces))

    def on_generation(run):
        look.note(run.best, run.best_return)
        look.go_on(run.steps * size)

    look.start()
    with worker_pool(2) as pool:
        parts = SETTINGS.tournament, SETTINGS.mutations, config
        train(run, *parts, map=pool.map, on_generation=on_generation)


def fly_stable_baselines(look, name):
    """A run of one algorithm of Stable-Baselines3, as RL Zoo sets it up."""
    import stable_baselines3
    from stable_baselines3.common.callbacks import BaseCallback
    from stable_baselines3.common.noise import NormalActionNoise

    class Looking(BaseCallback):
        def _on_step(self):
            if self.num_timesteps % EVERY == 0:
                look(Greedy(copy.deepcopy(self.model.policy)), self.num_timesteps)
            return True

    own = {
        "TD3": {
            "gamma": 0.98,
            "buffer_size": 200_000,
            "learning_rate": 1e-3,
            "action_noise": NormalActionNoise(np.zeros(2), np.full(2, 0.1)),
        },
        "SAC": {
            "batch_size": 256,
            "learning_rate": lambda left: 7.3e-4 * left,  # falls to 0 at the end of its steps
            "buffer_size": 1_000_000,
            "ent_coef": "auto",
            "gamma": 0.99,
            "tau": 0.01,
        },
    }
    agent = getattr(stable_baselines3, name)(
        "MlpPolicy",
        ENV,
        learning_starts=10_000,
        train_freq=1,
        gradient_steps=1,
        policy_kwargs={"net_arch": [400, 300]},
        seed=look.config.seed,
        device="cpu",
        **own[name],
    )
    look.start()
    agent.learn({"TD3": 300_000, "SAC": 500_000}[name], Looking())


def fly_agilerl(look):
    """A run of AgileRL, as its tutorial for TD3 sets it up; looked at when it selects."""
    from agilerl.algorithms import TD3
    from agilerl.algorithms.core.registry import HyperparameterConfig, RLParameter
    from agilerl.components.replay_buffer import ReplayBuffer as Memory
    from agilerl.hpo.mutation import Mutations
    from agilerl.hpo.tournament import TournamentSelection
    from agilerl.networks.actors import DeterministicActor
    from agilerl.training.train_off_policy import train_off_policy
    from agilerl.utils.utils import make_vect_envs

    class Policy:
        def __init__(self, agent):
            self.agent = agent

        def get_action(self, obs):
            action = torch.from_numpy(self.agent.get_action(obs, training=False))
            output = self.agent.actor.output_activation
            edges = self.agent.action_low, self.agent.action_high
            return DeterministicActor.rescale_action(action, *edges, output).numpy()

    class Looking(TournamentSelection):
        generation = 0

        def select(self, population):
            self.generation += 1
            fittest = max(population, key=lambda agent: agent.fitness[-1])
            look(Policy(fittest.clone()), self.generation * 10_000 * len(population))
            return super().select(population)

    np.random.seed(look.config.seed)
    torch.manual_seed(look.config.seed)
    envs = make_vect_envs(ENV, num_envs=8)
    hp = {
        "batch_size": 128,
        "lr_actor": 1e-4,
        "lr_critic": 1e-3,
        "O_U_noise": True,
        "expl_noise": 0.1,
        "mean_noise": 0.0,
        "theta": 0.15,
        "dt": 0.01,
        "gamma": 0.99,
        "policy_freq": 2,
        "learn_step": 1,
        "tau": 0.005,
        "vect_noise_dim": 8,  # "num_envs" in the tutorial, which version 2.58 does not take
    }
    space = HyperparameterConfig(
        lr_actor=RLParameter(min=1e-4, max=1e-2),
        lr_critic=RLParameter(min=1e-4, max=1e-2),
        learn_step=RLParameter(min=1, max=16),
        batch_size=RLParameter(min=8, max=512),
    )
    population = TD3.population(
        size=4,
        observation_space=envs.single_observation_space,
        action_space=envs.single_action_space,
        net_config={
            "encoder_config": {"hidden_size": [64, 64]},
            "head_config": {"hidden_size": [64, 64]},
        },
        hp_config=space,
        device="cpu",
        **hp,
    )
    mutations = Mutations(
        no_mutation=0.4,
        architecture=0.2,
        new_layer_prob=0.2,
        parameters=0.2,
        activation=0.2,
        rl_hp=0.2,
        mutation_sd=0.1,
        rand_seed=look.config.seed,
        device="cpu",
    )
    look.start()
    train_off_policy(
        env=envs,
        env_name=ENV,
        algo="TD3",
        pop=population,
        memory=Memory(max_size=10_000, device="cpu"),
        init_hp=hp,
        max_steps=1_000_000,
        evo_steps=10_000,
        eval_steps=None,
        eval_loop=1,
        learning_delay=1_000,
        selection_strategy=Looking(2, True, 4),
        mutation=mutations,
        wb=False,
        verbose=False,
    )


PROGRAMS = {
    "tinyevo": fly_tinyevo,
    "Stable-Baselines3 TD3": lambda look: fly_stable_baselines(look, "TD3"),
    "Stable-Baselines3 SAC": lambda look: fly_stable_baselines(look, "SAC"),
    "AgileRL": fly_agilerl,
}


def processor():
    """Seconds of processor time of this process and of its workers that have ended."""
    return sum(os.times()[:4])  # of both, in the user's code and in the system's


def fly(who, seed):
    """A row of the table."""
    look = Look(seed)
    with suppress(Ended):
        PROGRAMS[who](look)
    clock, seconds = time.perf_counter() - look.began, processor() - look.processor
    final = evaluate(look.policy, ENV, 100, look.config.derived_seed(SCORE)).mean()
    landed = "yes" if look.best >= TARGET else "no"
    numbers = f"{clock:.0f}", f"{seconds:.0f}", f"{look.best:.1f}", f"{final:.1f}"
    return dict(zip(COLUMNS, (who, seed, landed, f"{look.steps:,}", *numbers)))


def main():
    """Fly what is missing, one run after another, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--who", nargs="+", choices=PROGRAMS, default=list(PROGRAMS))
    options = parser.parse_args()
    torch.set_num_threads(1)  # for small networks a second one is no help to any of them
    rows = read_rows(PATH)
    done = {(row["who"], int(row["seed"])) for row in rows}
    for seed in SEEDS:
        for who in options.who:
            if (who, seed) not in done:
                rows = add_row(PATH, COLUMNS, fly(who, seed), ("who", "seed"))
    print(markdown(COLUMNS, [row.values() for row in rows]))


if __name__ == "__main__":
    main()
