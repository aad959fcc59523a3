"""Evolve a population of TD3 agents until one of them lands: `python train_lunar.py`.

Everything that you may want to change stands on this first screen; `tutorial.md` explains it.
"""

import argparse
import csv
import json
import os
from contextlib import closing, nullcontext
from dataclasses import asdict, replace
from pathlib import Path

import gymnasium as gym
import torch
from tqdm import tqdm

from tinyevo.buffer import ReplayBuffer
from tinyevo.evaluate import evaluate
from tinyevo.mutation import Mutations, RLParameter
from tinyevo.population import create_population, population_table
from tinyevo.render import plot_evolution, record_gif
from tinyevo.td3 import HyperParams
from tinyevo.tournament import TournamentSelection
from tinyevo.train import RENDER, SCORE, TrainConfig, train
from tinyevo.workers import worker_pool

CONFIG = TrainConfig(
    env_id="LunarLanderContinuous-v3",
    seed=0,
    num_envs=8,
    max_steps=1_000_000,
    evo_steps=10_000,
    learning_delay=0,
    memory_size=100_000,
    noise="ou",
    noise_theta=0.15,
    noise_dt=1.0,
    train_episode_steps=None,
    eval_episodes=10,
    eval_steps=None,
    confirm_episodes=100,
    target=200.0,
)
NETWORK = {"hidden_size": (64, 64), "activation": "relu"}
HP = HyperParams(
    lr_actor=1e-4,
    lr_critic=1e-3,
    batch_size=128,
    learn_step=1,
    gamma=0.99,
    tau=0.005,
    policy_freq=2,
    policy_noise=0.2,
    noise_clip=0.5,
    expl_noise=0.3,
)
TOURNAMENT = TournamentSelection(tournament_size=2, elitism=True, population_size=4)
MUTATIONS = Mutations(
    no_mutation=0.4,
    architecture=0.2,
    new_layer_prob=0.2,
    parameters=0.2,
    activation=0.2,
    rl_hp=0.2,
    mutation_sd=0.1,
    layer_bounds=(1, 3),
    node_bounds=(16, 256),
    hp_space={
        "lr_actor": RLParameter(min=1e-4, max=1e-2),
        "lr_critic": RLParameter(min=1e-4, max=1e-2),
        "batch_size": RLParameter(min=8, max=512, dtype=int),
        "learn_step": RLParameter(min=1, max=16, dtype=int),
    },
)
# `--quick`: the whole pipeline in about a minute; it learns and mutates, but does not land.
QUICK = {"max_steps": 6_000, "evo_steps": 2_000, "train_episode_steps": 250, "eval_steps": 250, "confirm_episodes": 10}
EPISODES = 7  # in the GIF


class OneLineParser(argparse.ArgumentParser):
    """An argument parser that answers a mistake in one line and exits with status 2."""

    def error(self, message):
        """Say what was wrong; the usage is a `--help` away."""
        self.exit(2, f"{self.prog}: {message}\n")


def whole(text):
    """Read a whole number; 1e6 is one."""
    value = float(text)
    if not value.is_integer():
        raise ValueError
    return int(value)


whole.__name__ = "whole number"  # argparse names the type in its message


def make_parser():
    """The command line. A flag that is not given is not in the result, so that it cannot win over `--quick`."""
    parser = OneLineParser(
        description="Evolve a population of TD3 agents until one of them lands.",
        allow_abbrev=False,
        argument_default=argparse.SUPPRESS,
    )
    cores = os.cpu_count()
    parser.add_argument("--env", dest="env_id", help=f"Gymnasium environment (default: {CONFIG.env_id})")
    parser.add_argument("--seed", type=whole, help=f"all randomness follows from it (default: {CONFIG.seed})")
    parser.add_argument("--device", help="torch device of the networks, such as cpu or cuda (default: cpu)")
    parser.add_argument(
        "--workers", type=whole, help=f"processes (default: one per core ({cores}), at most --pop-size; on CUDA 1)"
    )
    parser.add_argument("--pop-size", type=whole, help=f"members (default: {TOURNAMENT.population_size})")
    parser.add_argument("--num-envs", type=whole, help=f"environments of a member (default: {CONFIG.num_envs})")
    parser.add_argument("--max-steps", type=whole, help=f"environment steps of a member (default: {CONFIG.max_steps})")
    parser.add_argument("--evo-steps", type=whole, help=f"of these, in one generation (default: {CONFIG.evo_steps})")
    parser.add_argument("--target", type=float, help=f"confirmed mean return that ends it (default: {CONFIG.target})")
    parser.add_argument("--out", type=Path, help="folder of this run, new or empty (default: the next runs/NNN)")
    parser.add_argument("--no-gif", action="store_true", help="render nothing (default: lander.gif)")
    quick = ", ".join(f"{name} {value}" for name, value in QUICK.items())
    parser.add_argument("--quick", action="store_true", help=f"the whole pipeline in about a minute: {quick}")
    return parser


def find_spaces(env_id):
    """The observation and the action space of an environment, or a ValueError that says why there is none."""
    try:
        with closing(gym.make(env_id)) as env:
            return env.observation_space, env.action_space
    except (gym.error.Error, ImportError) as error:
        raise ValueError(f"--env {env_id}: {error}") from error


def find_device(name, workers, population_size):
    """A usable torch device and the number of processes to use, or a ValueError."""
    try:
        device = torch.empty(1, device=name).device
    except (RuntimeError, AssertionError) as error:
        raise ValueError(f"--device {name} is not available here: {str(error).splitlines()[0]}") from error
    if workers is None:
        workers = 1 if device.type == "cuda" else min(os.cpu_count(), population_size)
    if workers < 1:
        raise ValueError(f"--workers must be a whole number of at least 1, not {workers}")
    return device, workers


def make_folder(path):
    """The folder of this run: the given one, unless it holds something, or the next free number under runs/."""
    if path is None:
        taken = [int(old.name) for old in Path("runs").glob("*") if old.name.isdecimal()]
        path = Path("runs") / f"{max(taken, default=0) + 1:03d}"
    path.mkdir(parents=True, exist_ok=True)
    if any(path.iterdir()):
        raise ValueError(f"--out {path} is not empty; name a new folder, a run is never overwritten")
    return path


def show_settings(settings):
    """Print all settings, a group to a paragraph."""
    for title, group in settings.items():
        print(f"{title}: " + ", ".join(f"{name} {value}" for name, value in group.items()))


def write_settings(path, settings):
    """Write all settings of the run as JSON."""
    path.write_text(json.dumps(settings, indent=2, default=lambda value: value.__name__) + "\n")


def write_history(path, history):
    """Write the history as a table with one row per member and generation."""
    with path.open("w", newline="") as file:
        table = csv.DictWriter(file, history[0])
        table.writeheader()
        table.writerows(history)


def finish(result, config, out, gif):
    """Fly the best agent where it never flew, and draw the pictures."""
    seed = config.derived_seed(SCORE)
    returns = evaluate(result.elite, config.env_id, config.confirm_episodes, seed, config.eval_steps)
    print(f"\nagent {result.elite.id}, the best confirmed one, in {len(returns)} fresh episodes (seed {seed}):")
    print(f"mean return {returns.mean():.2f} +- {returns.std():.2f}, worst {returns.min():.1f}, best {returns.max():.1f}")
    if gif:
        returns = record_gif(result.elite, config.env_id, out / "lander.gif", EPISODES, config.derived_seed(RENDER))
        print(f"returns of the rendered episodes: {', '.join(f'{value:.1f}' for value in returns)}")
    try:
        plot_evolution(result.history, out / "evolution.png")
    except ImportError as error:
        print(f"no evolution.png: {error}")
    print("wrote " + ", ".join(str(path) for path in sorted(out.iterdir())))


def main():
    """Check what was asked for, train, and show what came of it."""
    parser = make_parser()
    args = vars(parser.parse_args())
    torch.set_num_threads(1)  # small networks: a second thread costs more than it brings
    try:
        changes = (QUICK if "quick" in args else {}) | args
        config = replace(CONFIG, **{name: value for name, value in changes.items() if hasattr(CONFIG, name)})
        tournament = replace(TOURNAMENT, population_size=args.get("pop_size", TOURNAMENT.population_size))
        size = tournament.population_size
        device, workers = find_device(args.get("device", "cpu"), args.get("workers"), size)
        spaces = find_spaces(config.env_id)
        population = create_population(size, *spaces, HP, **NETWORK, device=device, seed=config.seed)
        out = make_folder(args.get("out"))
    except (ValueError, OSError) as error:
        parser.error(str(error))

    settings = {"config": asdict(config), "hyper-parameters": asdict(HP), "network": NETWORK}
    settings |= {"tournament": asdict(tournament), "mutations": asdict(MUTATIONS)}
    show_settings(settings)
    print(f"device: {device}, workers: {workers}, output: {out}", flush=True)
    write_settings(out / "config.json", settings)

    def report(result):
        rows = result.history[-size:]
        tqdm.write(f"\ngeneration {rows[0]['generation']}")
        tqdm.write(population_table(result.population, next(row["id"] for row in rows if row["elite"])))
        tqdm.write(f"best confirmed: agent {result.elite.id}, mean return {result.confirmed:.1f}")
        result.elite.save_checkpoint(out / "elite.pt")
        write_history(out / "history.csv", result.history)

    memory = ReplayBuffer(config.memory_size, *spaces, device)
    try:
        with worker_pool(workers) if workers > 1 else nullcontext() as pool:
            result = train(population, memory, tournament, MUTATIONS, config, pool, report)
        finish(result, config, out, gif="no_gif" not in args)
    except KeyboardInterrupt:
        parser.exit(130, f"\nstopped; what was written by then is in {out}\n")


if __name__ == "__main__":
    main()
