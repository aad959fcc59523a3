"""Evolve a population of TD3 agents until one of them lands: `python train_lunar.py`.

Everything that you may want to change stands at the top of this file.
"""

import argparse
import csv
import json
import os
import sys
import textwrap
import warnings
from contextlib import nullcontext
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
    evo_steps=10_000,  # 1,250 in each environment, so that a whole episode of 1,000 fits
    learning_delay=0,
    memory_size=100_000,  # more than one generation of everybody, so that members learn from each other
    noise="ou",
    noise_mean=0.0,
    noise_theta=0.15,
    noise_dt=1.0,  # with dt 0.01 the noise takes hundreds of steps to arise, and nothing is explored
    train_episode_steps=None,
    eval_episodes=10,
    eval_steps=None,
    confirm_episodes=100,
    target=200.0,
)
NETWORK = {"hidden_size": (128, 128), "activation": "relu"}  # 64x64 hovers for longer before it dares to land
HP = HyperParams(
    lr_actor=5e-4,  # with 1e-4 it does not land within minutes
    lr_critic=1e-3,
    batch_size=256,  # larger than the usual 128: it lands after fewer steps
    learn_step=2,  # an update costs ten times as much as a step: fly more, learn less
    gamma=0.99,
    tau=0.01,  # twice the usual 0.005, because the targets move half as often with learn_step 2
    policy_freq=2,
    policy_noise=0.2,
    noise_clip=0.5,
    expl_noise=0.3,  # with 0.1 every agent hovers until the time limit
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
    mutated_share=0.1,
    super_prob=0.05,
    super_sd=10.0,
    reset_prob=0.05,
    layer_bounds=(1, 3),
    node_bounds=(16, 256),
    node_steps=(16, 32, 64),
    activations=("relu", "elu", "gelu", "tanh"),
    mutate_elite=False,
    hp_space={
        "lr_actor": RLParameter(min=1e-4, max=1e-2),
        "lr_critic": RLParameter(min=1e-4, max=1e-2),
        "batch_size": RLParameter(min=8, max=512, dtype=int),
        "learn_step": RLParameter(min=1, max=16, dtype=int),
    },
)
# `--quick` is the whole pipeline in about a minute: it learns and mutates, but does not land.
QUICK = {"max_steps": 4_800, "evo_steps": 1_600, "train_episode_steps": 200, "eval_steps": 200, "confirm_episodes": 20}


class OneLineParser(argparse.ArgumentParser):
    """An argument parser that answers a mistake in one line, with exit status 2."""

    def error(self, message):
        """Say what was wrong."""
        self.exit(2, f"{self.prog}: {' '.join(message.split())}\n")


def number(text):
    """Read a number; 1e6 is a whole number too."""
    value = float(text)
    return int(text) if text.isdecimal() else int(value) if value.is_integer() else value


def parse_arguments():
    """The parser, and the flags that were given, by the name of what they set; one not given is not there."""
    parser = OneLineParser(allow_abbrev=False, argument_default=argparse.SUPPRESS, description=__doc__.split(":")[0])
    for flag, name, kind, default, text in (
        ("--env", "env_id", str, CONFIG.env_id, "Gymnasium environment"),
        ("--seed", "seed", number, CONFIG.seed, "all randomness of the run follows from it"),
        ("--device", "device", str, "cpu", "torch device of the networks, such as cuda"),
        ("--workers", "workers", number, "one per core, at most one per member; 1 on CUDA", "processes"),
        ("--pop-size", "population_size", number, TOURNAMENT.population_size, "members of the population"),
        ("--num-envs", "num_envs", number, CONFIG.num_envs, "environments that a member flies side by side"),
        ("--max-steps", "max_steps", number, CONFIG.max_steps, "environment steps of a member in all"),
        ("--evo-steps", "evo_steps", number, CONFIG.evo_steps, "environment steps of a member in a generation"),
        ("--target", "target", float, CONFIG.target, "confirmed mean return that ends the run"),
        ("--out", "out", Path, "the next runs/NNN", "folder of this run, new or empty"),
    ):
        parser.add_argument(flag, dest=name, type=kind, metavar="X", help=f"{text} (default: {default})")
    parser.add_argument("--no-gif", action="store_true", help="render no lander.gif (default: render it)")
    quick = ", ".join(f"{name} {value}" for name, value in QUICK.items())
    parser.add_argument("--quick", action="store_true", help=f"all of it in about a minute (default: off): {quick}")
    return parser, vars(parser.parse_args())


def find_spaces(env_id, gif):
    """The observation and the action space of an environment that exists and, for a GIF, can be rendered."""
    try:
        with warnings.catch_warnings(action="ignore"):  # gym warns before it raises; the error is enough
            env = gym.make(env_id)
    except (gym.error.Error, ImportError) as error:
        raise ValueError(f"--env {env_id}: {error}") from error
    env.close()
    if gif and "rgb_array" not in env.metadata["render_modes"]:
        raise ValueError(f"--env {env_id} cannot be rendered: add --no-gif")
    return env.observation_space, env.action_space


def find_device(name):
    """The torch device of a name, if it is there."""
    try:
        torch.empty(1, device=name).cpu()  # there and back
        return torch.device(name)
    except (RuntimeError, AssertionError) as error:
        raise ValueError(f"--device {name} is not available here: {str(error).splitlines()[0]}") from error


def make_folder(path):
    """The folder of this run: the given one, unless it holds something, or the next number under runs/."""
    if path is None:
        taken = [int(old.name) for old in Path("runs").glob("*") if old.name.isdecimal()]
        path = Path("runs", f"{max(taken, default=0) + 1:03d}")
        path.mkdir(parents=True)  # an error if another run was faster
    path.mkdir(parents=True, exist_ok=True)
    if any(path.iterdir()):
        raise ValueError(f"--out {path} is not empty, and a run is never overwritten: name a new folder")
    return path


def write_history(path, history):
    """Write the history as a table with a row for each member and generation."""
    with path.open("w", newline="") as file:
        table = csv.DictWriter(file, history[0])
        table.writeheader()
        table.writerows(history)


def finish(result, config, out, gif):
    """Fly the best agent where it never flew, and draw the pictures."""
    flight = {"episodes": config.confirm_episodes, "seed": config.derived_seed(SCORE), "max_steps": config.eval_steps}
    returns = evaluate(result.elite, config.env_id, **flight)
    print(f"\nthe best confirmed agent ({result.elite.id}, after {result.elite.steps} steps) in fresh episodes:")
    print(f"evaluate(agent, {config.env_id!r}, {', '.join(f'{name}={value}' for name, value in flight.items())})")
    print(f"mean return {returns.mean():.2f} +- {returns.std():.2f}, from {returns.min():.1f} to {returns.max():.1f}")
    try:
        plot_evolution(result.history, out / "evolution.png")
    except ImportError as error:
        print(f"no evolution.png: {error}")
    if gif:
        returns = record_gif(result.elite, config.env_id, out / "lander.gif", seed=config.derived_seed(RENDER))
        print(f"returns of the {len(returns)} rendered episodes: {', '.join(f'{value:.1f}' for value in returns)}")
    print("wrote", *sorted(out.iterdir()))


def main():
    """Check what was asked for, train, and show what came of it."""
    parser, args = parse_arguments()
    torch.set_num_threads(1)  # small networks: a second thread costs more than it brings
    sys.stdout.reconfigure(line_buffering=True)  # show each table at once, through a pipe too
    gif = "no_gif" not in args
    size = args.get("population_size", TOURNAMENT.population_size)
    changes = (QUICK if "quick" in args else {}) | args
    try:
        config = replace(CONFIG, **{name: value for name, value in changes.items() if hasattr(CONFIG, name)})
        tournament = replace(TOURNAMENT, population_size=size)
        device = find_device(args.get("device", "cpu"))
        workers = args.get("workers", 1 if device.type == "cuda" else min(size, os.cpu_count() or 1))
        if type(workers) is not int or workers < 1:
            raise ValueError(f"--workers must be a whole number of at least 1, not {workers}")
        spaces = find_spaces(config.env_id, gif)
        for name, space in MUTATIONS.hp_space.items():  # no mutation may lead out of what HyperParams allows
            replace(HP, **{name: space.dtype(space.min)}), replace(HP, **{name: space.dtype(space.max)})
        population = create_population(size, *spaces, HP, config.seed, device=device, **NETWORK)
        out = make_folder(args.get("out"))
    except (ValueError, TypeError, OSError) as error:
        parser.error(str(error))

    settings = {"config": asdict(config), "hyper-parameters": asdict(HP), "network": NETWORK}
    settings |= {"tournament": asdict(tournament), "mutations": asdict(MUTATIONS)}
    settings = json.dumps(settings, indent=2, default=lambda dtype: dtype.__name__)
    (out / "config.json").write_text(settings + "\n")
    for title, group in json.loads(settings).items():
        text = ", ".join(f"{name} {value}" for name, value in group.items())
        print(textwrap.fill(f"{title}: {text}", 120, subsequent_indent="    "))
    print(f"device: {device}, workers: {workers}, output: {out}")

    def report(result):
        result.elite.save_checkpoint(out / "elite.pt")
        write_history(out / "history.csv", result.history)
        best = f"agent {result.elite.id} after {result.elite.steps} steps, mean return {result.confirmed:.1f}"
        table = population_table(result.population)
        tqdm.write(f"\ngeneration {len(result.fitnesses) - 1}\n{table}\nbest confirmed: {best}")

    memory = ReplayBuffer(config.memory_size, *spaces, device)
    try:
        with worker_pool(workers) if workers > 1 else nullcontext() as pool:
            result = train(population, memory, tournament, MUTATIONS, config, pool, report)
        finish(result, config, out, gif)
    except KeyboardInterrupt:
        parser.exit(130, f"\nstopped; what was written by then is in {out}\n")


if __name__ == "__main__":
    main()
