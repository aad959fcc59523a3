"""Evolve a population of TD3 agents until one of them lands: `python train_lunar.py`.

Everything that you may want to change stands at the top of this file.
"""

import signal

if __name__ in (
    "__main__",
    "__mp_main__",
):  # here and in the workers Ctrl-C ends at once, until a run begins
    signal.signal(signal.SIGINT, signal.SIG_DFL)

import argparse
import csv
import io
import json
import math
import os
import shlex
import sqlite3
import subprocess
import sys
import textwrap
import warnings
from concurrent.futures.process import BrokenProcessPool
from contextlib import closing, nullcontext, suppress
from dataclasses import asdict, replace
from pathlib import Path

import gymnasium as gym
import torch
from tqdm import tqdm

from tinyevo import checkpoint
from tinyevo.buffer import ReplayBuffer
from tinyevo.evaluate import evaluate
from tinyevo.mutation import Mutations, RLParameter
from tinyevo.population import create_population, population_table
from tinyevo.render import plot_evolution, record_gif
from tinyevo.result import TrainResult
from tinyevo.td3 import HyperParams
from tinyevo.tournament import TournamentSelection
from tinyevo.train import RENDER, SCORE, TrainConfig, train
from tinyevo.workers import worker_pool

CONFIG = TrainConfig(
    env_id="LunarLanderContinuous-v3",
    seed=0,
    num_envs=8,
    max_steps=1_000_000,
    evo_steps=5_000,  # 625 in each environment: short generations select more often, and a landing takes 200 to 400
    learning_delay=0,
    memory_size=100_000,  # more than one generation of everybody, so that members learn from each other
    noise="ou",
    noise_mean=0.0,
    noise_theta=0.15,
    noise_dt=1.0,  # with dt 0.01 the noise takes hundreds of steps to arise, and nothing is explored
    train_episode_steps=600,  # of the environment's 1,000: a pilot that hovers begins anew sooner
    eval_episodes=10,
    eval_steps=None,
    confirm_episodes=100,
    target=200.0,
)
NETWORK = {
    "hidden_size": (128, 128),
    "activation": "relu",
}  # with 64x64 it hovered for longer in first trials
HP = HyperParams(
    lr_actor=5e-4,  # between AgileRL's 1e-4 and the TD3 paper's 1e-3; the latter landed no sooner in a trial
    lr_critic=1e-3,
    batch_size=256,  # larger than AgileRL's 128: it landed after fewer steps in first trials
    learn_step=2,  # an update costs ten times as much as a step: fly more, learn less
    gamma=0.99,
    reward_scale=0.1,  # a fresh critic says about 0, and returns of +-200 are far from there
    tau=0.01,  # twice the usual 0.005, because the targets move half as often with learn_step 2
    policy_freq=2,
    policy_noise=0.2,
    noise_clip=0.5,
    expl_noise=0.3,  # with the often-copied 0.1 and dt 0.01 no seed came near a landing: benchmarks/RESULTS.md
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
QUICK = {
    "max_steps": 4_800,
    "evo_steps": 1_600,
    "train_episode_steps": 200,
    "eval_steps": 200,
    "confirm_episodes": 20,
}


class OneLineParser(argparse.ArgumentParser):
    """An argument parser that answers a mistake in one line, with exit status 2."""

    def error(self, message):
        """Say what was wrong."""
        self.exit(2, f"{self.prog}: {' '.join(message.split())}\n")


def number(text):
    """Read a number; 1e6 is a whole number too."""
    value = float(text)
    return int(text) if text.isdecimal() else int(value) if value.is_integer() else value


def folder(text):
    """Read a path; an empty one is a mistake, often an empty variable of a shell."""
    if not text:
        raise ValueError
    return Path(text)


def parse_arguments():
    """The parser, and the flags that were given, by the name of what they set; one not given is not there."""
    parser = OneLineParser(
        allow_abbrev=False, argument_default=argparse.SUPPRESS, description=__doc__.split(":")[0]
    )
    for flag, name, kind, default, text in (
        ("--env", "env_id", str, CONFIG.env_id, "Gymnasium environment"),
        ("--seed", "seed", number, CONFIG.seed, "all randomness of the run follows from it"),
        ("--device", "device", str, "cpu", "torch device of the networks, such as cuda"),
        (
            "--workers",
            "workers",
            number,
            "one per core, at most one per member; 1 on CUDA",
            "processes",
        ),
        (
            "--pop-size",
            "population_size",
            number,
            TOURNAMENT.population_size,
            "members of the population",
        ),
        (
            "--num-envs",
            "num_envs",
            number,
            CONFIG.num_envs,
            "environments that a member flies side by side",
        ),
        (
            "--max-steps",
            "max_steps",
            number,
            CONFIG.max_steps,
            "environment steps of a member in all",
        ),
        (
            "--evo-steps",
            "evo_steps",
            number,
            CONFIG.evo_steps,
            "environment steps of a member in a generation",
        ),
        ("--target", "target", float, CONFIG.target, "confirmed mean return that ends the run"),
        ("--out", "out", folder, "the next runs/NNN", "folder of this run, new or empty"),
        (
            "--resume",
            "resume",
            folder,
            "begin a new run",
            "folder of a run to go on with, which keeps its settings",
        ),
    ):
        parser.add_argument(
            flag, dest=name, type=kind, metavar="X", help=f"{text} (default: {default})"
        )
    parser.add_argument(
        "--no-gif", action="store_true", help="render no lander.gif (default: render it)"
    )
    quick = ", ".join(f"{name} {value}" for name, value in QUICK.items())
    parser.add_argument(
        "--quick", action="store_true", help=f"all of it in about a minute (default: off): {quick}"
    )
    args = vars(parser.parse_args())
    if "out" in args and "resume" in args:
        parser.error("--out and --resume exclude each other: a run goes on in its own folder")
    return parser, args


def find_spaces(env_id, gif):
    """The observation and the action space of an environment that exists and, for a GIF, can be rendered."""
    try:
        with warnings.catch_warnings(
            action="ignore"
        ):  # gym warns before it raises; the error is enough
            env = gym.make(env_id)
    except Exception as error:  # an environment is anybody's code
        raise ValueError(f"--env {env_id}: {error}") from error
    env.close()
    if gif and "rgb_array" not in env.metadata.get("render_modes", ()):
        raise ValueError(f"--env {env_id} cannot be rendered: add --no-gif")
    return env.observation_space, env.action_space


def find_device(name):
    """The torch device of a name, if it is there."""
    try:
        torch.empty(1, device=name).cpu()  # there and back
        return torch.device(name)
    except (RuntimeError, AssertionError) as error:
        raise ValueError(
            f"--device {name} is not available here: {str(error).splitlines()[0]}"
        ) from error


def changed(config, args):
    """A `TrainConfig` with what `--quick` and the other flags change, the latter last."""
    changes = (QUICK if "quick" in args else {}) | args
    return replace(
        config, **{name: value for name, value in changes.items() if hasattr(config, name)}
    )


def plan(args):
    """All settings of a new run as plain data: those at the top of this file, and what the flags change."""
    config = changed(CONFIG, args)
    tournament = replace(
        TOURNAMENT, population_size=args.get("population_size", TOURNAMENT.population_size)
    )
    for (
        name,
        space,
    ) in MUTATIONS.hp_space.items():  # no mutation may lead out of what HyperParams allows
        replace(HP, **{name: space.dtype(space.min)}), replace(HP, **{name: space.dtype(space.max)})
    settings = {"config": asdict(config), "hyper-parameters": asdict(HP), "network": NETWORK}
    settings |= {"tournament": asdict(tournament), "mutations": asdict(MUTATIONS)}
    return json.loads(json.dumps(settings, default=lambda dtype: dtype.__name__))


def read_plan(settings):
    """What such settings describe: the `TrainConfig`, the `TournamentSelection` and the `Mutations`."""
    space = settings["mutations"]["hp_space"].items()
    space = {
        name: RLParameter(**ends | {"dtype": {"int": int, "float": float}[ends["dtype"]]})
        for name, ends in space
    }
    mutations = Mutations(**settings["mutations"] | {"hp_space": space})
    return (
        TrainConfig(**settings["config"]),
        TournamentSelection(**settings["tournament"]),
        mutations,
    )


def begin(args, device):
    """A new run: its first population, and an empty memory."""
    config, tournament, _ = read_plan(settings := plan(args))
    spaces = find_spaces(config.env_id, "no_gif" not in args)
    population = create_population(
        tournament.population_size, *spaces, HP, config.seed, device=device, **NETWORK
    )
    return TrainResult(population, ReplayBuffer(config.memory_size, *spaces, device), settings)


def go_on(args, device):
    """The run in the folder `--resume`, with its own settings; but its end, `max_steps` or `target`, may be another."""
    path = args["resume"] / "population.pt"
    run = TrainResult.load_checkpoint(path, device)
    try:
        config, tournament, _ = read_plan(run.settings)
    except (KeyError, TypeError) as error:
        raise ValueError(
            f"{path} was not written by this version of the script: {error!r} in its settings"
        ) from error
    longer = changed(config, args)
    old, new = asdict(config) | asdict(tournament), asdict(tournament) | args | asdict(longer)
    for name, value in old.items():
        if value != new[name] and name not in ("max_steps", "target"):
            raise ValueError(
                f"the run in {args['resume']} has {name} {value}, it cannot go on with {new[name]}"
            )
    if longer.max_steps < run.steps:
        raise ValueError(
            f"max_steps must be at least the {run.steps} that the run has flown, not {longer.max_steps}"
        )
    spaces = find_spaces(config.env_id, "no_gif" not in args)
    learned = run.population[0].observation_space, run.population[0].action_space
    if learned != spaces:
        raise ValueError(
            f"the run in {args['resume']} learned {learned}, but {config.env_id} now has {spaces}"
        )
    run.settings["config"] = asdict(longer)
    return run


def make_folder(path):
    """The folder of a new run: the given one, unless it holds something, or the next number under runs/."""
    while path is None:
        Path("runs").mkdir(exist_ok=True)
        taken = [int(old.name) for old in Path("runs").glob("*") if old.name.isdecimal()]
        new = Path("runs", f"{max(taken, default=0) + 1:03d}")
        with suppress(FileExistsError):  # another run was faster
            new.mkdir()
            path = new
    path.mkdir(parents=True, exist_ok=True)
    if any(
        old.suffix not in (".lock", ".tmp") for old in path.iterdir()
    ):  # these a run leaves that never began
        raise ValueError(
            f"--out {path} is not empty, and a run is never overwritten: name a new folder"
        )
    return path


def lock_folder(path):
    """Keep every other run out of a folder until the answer is closed or this process ends, however it ends."""
    try:
        lock = sqlite3.connect(
            path / "run.lock", timeout=0
        )  # the standard library's one lock that works everywhere
        lock.executescript("PRAGMA journal_mode = OFF; BEGIN EXCLUSIVE")
    except sqlite3.Error as error:
        raise ValueError(
            f"{path} cannot be locked ({error}): is another run writing into it?"
        ) from error
    return lock


def keep(run, out):
    """Write all that there is of a run; every file but the first follows from it."""
    run.save_checkpoint(out / "population.pt")
    checkpoint.write(out / "config.json", json.dumps(run.settings, indent=2).encode() + b"\n")
    if run.history:
        run.elite.save_checkpoint(out / "elite.pt")
        table = csv.DictWriter(text := io.StringIO(), run.history[0])
        table.writeheader()
        table.writerows(run.history)
        checkpoint.write(out / "history.csv", text.getvalue().encode())


def report(run):
    """Show the last generation."""
    if diverged := [str(agent.id) for agent in run.population if agent.fitness[-1] == -math.inf]:
        tqdm.write(f"diverged, and gets no children: agent {', '.join(diverged)}")
    best = f"agent {run.elite.id} after {run.elite.steps} steps, mean return {run.confirmed:.1f}"
    tqdm.write(
        f"\ngeneration {len(run.fitnesses) - 1}\n{population_table(run.population)}\nbest confirmed: {best}"
    )


def finish(run, config, out, gif):
    """Fly the best agent where it never flew, and draw the pictures."""
    flight = {
        "episodes": config.confirm_episodes,
        "seed": config.derived_seed(SCORE),
        "max_steps": config.eval_steps,
    }
    returns = evaluate(run.elite, config.env_id, **flight)
    print(
        f"\nthe best confirmed agent ({run.elite.id}, after {run.elite.steps} steps) in fresh episodes:"
    )
    print(
        f"evaluate(agent, {config.env_id!r}, {', '.join(f'{name}={value}' for name, value in flight.items())})"
    )
    print(
        f"mean return {returns.mean():.2f} +- {returns.std():.2f}, from {returns.min():.1f} to {returns.max():.1f}"
    )
    picture = io.BytesIO()
    try:
        plot_evolution(run.history, picture)
        checkpoint.write(out / "evolution.png", picture.getvalue())
    except ImportError as error:
        print(f"no evolution.png: {error}")
    if gif:
        film = io.BytesIO()
        returns = record_gif(run.elite, config.env_id, film, seed=config.derived_seed(RENDER))
        checkpoint.write(out / "lander.gif", film.getvalue())
        print(
            f"returns of {len(returns)} whole episodes rendered: {', '.join(f'{value:.1f}' for value in returns)}"
        )
    print("wrote", *sorted(path for path in out.iterdir() if path.suffix != ".lock"))


def evolve(run, out, workers, pool, gif):
    """The run itself, from its settings to its pictures."""
    config, tournament, mutations = read_plan(run.settings)
    for title, group in run.settings.items():
        text = ", ".join(f"{name} {value}" for name, value in group.items())
        print(textwrap.fill(f"{title}: {text}", 120, subsequent_indent="    "))
    print(f"device: {run.memory.device}, workers: {workers}, output: {out}")
    if run.history:
        print(
            f"resumed after generation {len(run.fitnesses) - 1}, best confirmed mean return {run.confirmed:.1f}"
        )
    if run.steps >= config.max_steps or run.confirmed >= config.target:
        print("this run is finished; a larger --max-steps or --target goes on with it")

    def on_generation(run):
        keep(run, out)
        report(run)

    train(run.population, run.memory, tournament, mutations, config, pool, on_generation, run)
    finish(run, config, out, gif)


def answer_stops(how):
    """Let a handler answer Ctrl-C and SIGTERM."""
    signal.signal(signal.SIGINT, how)
    signal.signal(signal.SIGTERM, how)


def interrupt(number, frame):
    """End in order, and do not let another signal disturb that."""
    answer_stops(signal.SIG_IGN)
    raise KeyboardInterrupt(number)


def main():
    """Check what was asked for, train, and show what came of it."""
    parser, args = parse_arguments()
    torch.set_num_threads(1)  # small networks: a second thread costs more than it brings
    sys.stdout, sys.stderr = (
        stream or open(os.devnull, "w") for stream in (sys.stdout, sys.stderr)
    )  # noqa: SIM115
    with suppress(AttributeError):  # IDLE's and notebooks' streams need none of it
        # Show each table at once, through a pipe too, and whatever the name of the folder.
        sys.stdout.reconfigure(line_buffering=True, errors="backslashreplace")
    warnings.formatwarning = lambda message, *where: f"warning: {message}\n"
    try:
        device = find_device(args.get("device", "cpu"))
        out = args.get("resume")
        if out and not (out / "population.pt").is_file():
            raise ValueError(
                f"--resume {out}: there is no run to go on with, for {out / 'population.pt'} is missing"
            )
        lock = lock_folder(out) if out else None  # before its run is read
        run = go_on(args, device) if out else begin(args, device)
        workers = args.get("workers", 1 if device.type == "cuda" else os.cpu_count() or 1)
        if type(workers) is not int or workers < 1:
            raise ValueError(f"--workers must be a whole number of at least 1, not {workers}")
        out = out or make_folder(args.get("out"))
        lock = lock or lock_folder(out)
        keep(run, out)  # so that there is something to go on with
    except (ValueError, TypeError, OSError, MemoryError) as error:
        parser.error(str(error))

    flags = [f"--device={device}"] * (device.type != "cpu") + ["--no-gif"] * ("no_gif" in args)
    quote = subprocess.list2cmdline if os.name == "nt" else shlex.join
    hint = f"go on with: python {quote([sys.argv[0], '--resume', str(out), *flags])}\n"
    workers = min(workers, len(run.population), 61)  # Windows cannot wait for more than 61
    early = []  # signals that come while processes are being started, which must not be torn apart
    answer_stops(lambda number, frame: early.append(number))
    try:
        with closing(lock), worker_pool(workers) if workers > 1 else nullcontext() as pool:
            answer_stops(interrupt)
            if early:
                interrupt(early[0], None)
            evolve(run, out, workers, pool, "no_gif" not in args)
    except KeyboardInterrupt as stop:
        parser.exit(128 + stop.args[0], f"stopped; {hint}")
    except BrokenProcessPool:
        parser.exit(
            1,
            f"stopped: a worker process died, perhaps for lack of memory (--workers 1 needs less); {hint}",
        )
    except ArithmeticError as error:
        parser.exit(1, f"stopped: {error}; what there is stays in {out}\n")
    except (OSError, MemoryError, RuntimeError, gym.error.Error) as error:
        if type(error) is RuntimeError and "tried to allocate" not in str(
            error
        ):  # what torch says for a MemoryError
            raise
        parser.exit(1, f"stopped: {error}; {hint}")


if __name__ == "__main__":
    main()
