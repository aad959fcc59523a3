"""How fast it is, as ratios measured in one run: `python benchmarks/speed.py` (about ten minutes).

A time on one machine says little, and on a busy one nothing. So everything here is measured in
turns with what it is compared with, several times over, and the median of the ratios is printed
with its range. `stable-baselines3` and `agilerl` (which needs `peft`) are measured beside it where
they are installed; where there is CUDA, the update is too.
"""

import copy
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
import warnings
from collections import Counter
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from multiprocessing import get_context
from pathlib import Path

import gymnasium as gym
import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from tinyevo import train as train_module
from tinyevo.app.workers import map_in_pool, worker_pool
from tinyevo.buffer import Batch, ReplayBuffer
from tinyevo.environment import Guarded, make_envs, successors
from tinyevo.mutation import Mutations
from tinyevo.noise import make_noise
from tinyevo.population import create_population
from tinyevo.td3 import TD3, HyperParams
from tinyevo.tournament import TournamentSelection
from tinyevo.train import Run, TrainConfig, train, train_member

ROOT = Path(__file__).parent.parent
ENV = "LunarLanderContinuous-v3"
# One update per step, as the peers are set up.
HP = HyperParams(lr_actor=1e-3, lr_critic=1e-3, batch_size=128, learn_step=1, tau=0.005)
CONFIG = TrainConfig(
    env_id=ENV,
    num_envs=8,
    evo_steps=1600,
    max_steps=1600,
    updates_for="own",
    train_episode_steps=200,
    confirm_episodes=1,
)
NO_MUTATION = Mutations(no_mutation=1, architecture=0, parameters=0, activation=0, rl_hp=0)
ROUNDS = 5


def spaces():
    """The observation and the action space."""
    with gym.make(ENV) as env:
        return env.observation_space, env.action_space


def show(name, ratios, unit="x"):
    """Print the median of some ratios and how far they spread."""
    spread = f"{min(ratios):.2f} to {max(ratios):.2f}"
    print(f"| {name} | {statistics.median(ratios):.2f}{unit} | {spread} |", flush=True)


def heading(text, *columns):
    """Print the head of a table."""
    print(f"\n## {text}\n\n| {' | '.join(columns)} |\n|{'---|' * len(columns)}", flush=True)


# Flying and learning, one update for every step


class Textbook:
    """TD3 as most people write it: two critics one after the other, default Adam, a Python loop for
    the targets.
    """

    def __init__(self, hidden=64, device="cpu"):
        def mlp(inputs, outputs):
            layers = [nn.Linear(inputs, hidden), nn.ReLU(), nn.Linear(hidden, hidden), nn.ReLU()]
            return nn.Sequential(*layers, nn.Linear(hidden, outputs)).to(device)

        self.actor, self.critic1, self.critic2 = mlp(8, 2), mlp(10, 1), mlp(10, 1)
        self.networks = [self.actor, self.critic1, self.critic2]
        self.targets = copy.deepcopy(self.networks)
        self.actor_optimizer = torch.optim.Adam(self.actor.parameters(), lr=1e-3)
        critics = [*self.critic1.parameters(), *self.critic2.parameters()]
        self.critic_optimizer = torch.optim.Adam(critics, lr=1e-3)
        self.updates = 0

    def get_action(self, obs):
        """The greedy action for a batch of observations."""
        with torch.no_grad():
            return torch.tanh(self.actor(torch.as_tensor(obs, dtype=torch.float32))).numpy()

    def learn(self, batch):
        """One update."""
        obs, action, reward, next_obs, terminated = (tensor.float() for tensor in batch)
        actor_target, critic1_target, critic2_target = self.targets
        with torch.no_grad():
            noise = (torch.randn_like(action) * 0.2).clamp(-0.5, 0.5)
            next_action = (torch.tanh(actor_target(next_obs)) + noise).clamp(-1, 1)
            pair = torch.cat([next_obs, next_action], 1)
            target = reward + 0.99 * (1 - terminated) * torch.min(
                critic1_target(pair), critic2_target(pair)
            )
        pair = torch.cat([obs, action], 1)
        loss = F.mse_loss(self.critic1(pair), target) + F.mse_loss(self.critic2(pair), target)
        self.critic_optimizer.zero_grad()
        loss.backward()
        self.critic_optimizer.step()
        self.updates += 1
        if self.updates % 2 == 0:
            loss = -self.critic1(torch.cat([obs, torch.tanh(self.actor(obs))], 1)).mean()
            self.actor_optimizer.zero_grad()
            loss.backward()
            self.actor_optimizer.step()
            for network, target in zip(self.networks, self.targets):
                for parameter, follower in zip(network.parameters(), target.parameters()):
                    follower.data.copy_(0.005 * parameter.data + 0.995 * follower.data)


def fly_tinyevo(steps):
    """One member's slice: environment steps per second."""
    (agent,) = create_population(1, *spaces(), HP)
    memory = ReplayBuffer(100_000, *spaces())
    began = time.perf_counter()
    train_member(agent, memory, replace(CONFIG, evo_steps=steps), seed=0)
    seconds = time.perf_counter() - began
    assert agent.updates == steps
    return steps / seconds


def fly_textbook(steps):
    """The same loop around the textbook's update."""
    agent, memory, rng = Textbook(), ReplayBuffer(100_000, *spaces()), np.random.default_rng(0)
    noise = make_noise("ou", 8, 2, 0.0, 0.1, 0.15, 1.0)
    envs = make_envs(ENV, 8, CONFIG.train_episode_steps)
    began = time.perf_counter()
    obs, _ = envs.reset(seed=list(range(8)))
    for _ in range(steps // 8):
        action = np.clip(agent.get_action(obs) + noise.sample(rng), -1, 1).astype(np.float32)
        next_obs, reward, terminated, _, infos = envs.step(action)
        memory.add(obs, action, reward, successors(next_obs, infos), terminated)
        obs = next_obs
        for _ in range(8):
            agent.learn(memory.sample(128, rng))
    seconds = time.perf_counter() - began
    envs.close()
    assert agent.updates == steps
    return steps / seconds


def fly_stable_baselines3(steps):
    """Stable-Baselines3's TD3."""
    from stable_baselines3 import TD3 as Baseline
    from stable_baselines3.common.env_util import make_vec_env
    from stable_baselines3.common.noise import NormalActionNoise, VectorizedActionNoise

    envs = make_vec_env(ENV, n_envs=8, env_kwargs={"max_episode_steps": CONFIG.train_episode_steps})
    noise = VectorizedActionNoise(NormalActionNoise(np.zeros(2), np.full(2, 0.1)), 8)
    settings = {
        "learning_rate": 1e-3,
        "batch_size": 128,
        "buffer_size": 100_000,
        "learning_starts": 0,
    }
    settings |= {
        "train_freq": 1,
        "gradient_steps": -1,
        "policy_kwargs": {"net_arch": [64, 64]},
        "action_noise": noise,
    }
    agent = Baseline("MlpPolicy", envs, device="cpu", **settings)
    began = time.perf_counter()
    agent.learn(steps)
    seconds = time.perf_counter() - began
    envs.close()
    assert abs(agent._n_updates - steps) <= 16, f"{agent._n_updates} updates in {steps} steps"
    return steps / seconds


def fly_agilerl(steps):
    """AgileRL's TD3, without selection and mutation."""
    from agilerl.algorithms.td3 import TD3 as Agile
    from agilerl.components.replay_buffer import ReplayBuffer as AgileBuffer
    from agilerl.training.train_off_policy import train_off_policy

    makers = [lambda: gym.make(ENV, max_episode_steps=CONFIG.train_episode_steps)] * 8
    envs = gym.vector.SyncVectorEnv(makers)
    network = {
        "latent_dim": 64,
        "encoder_config": {"hidden_size": [64]},
        "head_config": {"hidden_size": [64]},
    }
    settings = {
        "vect_noise_dim": 8,
        "batch_size": 128,
        "lr_actor": 1e-3,
        "lr_critic": 1e-3,
        "learn_step": 1,
    }
    population = Agile.population(1, *spaces(), net_config=network, **settings)
    memory = AgileBuffer(max_size=100_000)
    limits = {"max_steps": steps, "evo_steps": steps, "eval_steps": 1, "eval_loop": 1}
    began = time.perf_counter()
    train_off_policy(
        envs, ENV, "TD3", population, memory, verbose=False, selection_strategy=None, **limits
    )
    seconds = time.perf_counter() - began
    envs.close()
    learned = population[0].learn_counter
    assert abs(learned - steps) <= 160, f"{learned} updates in {steps} steps"
    return steps / seconds


def compare_loops():
    """Steps per second of each contender, in turns."""
    heading(
        "Environment steps per second, one update per step, one process, 64x64, batch 128",
        "",
        "",
        "range",
    )
    rivals = {"a textbook TD3": fly_textbook}
    for name, module, fly in (
        ("Stable-Baselines3", "stable_baselines3", fly_stable_baselines3),
        ("AgileRL", "agilerl", fly_agilerl),
    ):
        try:
            __import__(module)
            rivals[name] = fly
        except ImportError as error:
            print(f"({name} is not measured: {error})")
    rates = {name: [] for name in ("tinyevo", *rivals)}
    for number in range(ROUNDS + 1):
        for name, fly in {"tinyevo": fly_tinyevo, **rivals}.items():
            rate = fly(800)
            if number > 0:  # the first round warms up
                rates[name].append(rate)
    for name, values in rates.items():
        show(f"{name}, steps per second", values, "")
    for name in rivals:
        show(
            f"tinyevo against {name}",
            [ours / theirs for ours, theirs in zip(rates["tinyevo"], rates[name])],
        )


# The update against what it cannot do without


def matrix_products(hidden, batch, device):
    """A function that does the matrix products of one update and nothing else."""

    def rand(*shape):
        return torch.rand(*shape, device=device)

    def layers(inputs, outputs, twins):
        sizes = [inputs, hidden, hidden, outputs]
        return [(twins, batch, one, other) for one, other in zip(sizes, sizes[1:])]

    def forward(shapes):
        return [(rand(t, b, i), rand(t, i, o), rand(t, b, o)) for t, b, i, o in shapes]

    def gradients(shapes, weights=True, inputs=True):
        products = [
            (rand(t, i, b), rand(t, b, o), rand(t, i, o)) for t, b, i, o in shapes if weights
        ]
        return products + [
            (rand(t, b, o), rand(t, o, i), rand(t, b, i)) for t, b, i, o in shapes if inputs
        ]

    actor, critics, critic = layers(8, 2, 1), layers(10, 1, 2), layers(10, 1, 1)
    always = forward(actor) + forward(critics) + forward(critics) + gradients(critics, inputs=False)
    always += gradients(critics[1:], weights=False)
    second = forward(actor) + forward(critic) + gradients(critic, weights=False)
    second += gradients(actor, inputs=False) + gradients(actor[1:], weights=False)

    def multiply(number):
        for one, other, out in always + (second if number % 2 else []):
            torch.bmm(one, other, out=out)

    return multiply


def timed(function, calls, device):
    """Seconds for each call of `function(number)`."""
    began = time.perf_counter()
    for number in range(calls):
        function(number)
    if device == "cuda":
        torch.cuda.synchronize()
    return (time.perf_counter() - began) / calls


def compare_update(device):
    """The update beside the textbook's and beside its bare matrix products."""
    heading(f"One update on {device}", "", "", "range")
    for hidden, batch in ((64, 128), (128, 256), (256, 256)):
        agent = TD3(*spaces(), HP, (hidden, hidden), device=device)
        textbook = Textbook(hidden, device)
        sizes = {"obs": 8, "action": 2, "reward": 1, "next_obs": 8}
        tensors = [torch.rand(batch, size, device=device) for size in sizes.values()]
        sample = Batch(*tensors, torch.zeros(batch, 1, dtype=torch.bool, device=device))
        generator = torch.Generator(device)
        contenders = {
            "tinyevo": lambda number, agent=agent, sample=sample, generator=generator: agent.learn(
                sample, generator
            ),
            "textbook": lambda number, textbook=textbook, sample=sample: textbook.learn(sample),
            "products": matrix_products(hidden, batch, device),
        }
        times = {name: [] for name in contenders}
        for number in range(4 * ROUNDS + 1):
            for name, function in contenders.items():
                seconds = timed(function, 50, device)
                if number > 0:
                    times[name].append(seconds * 1000)
        size = f"{hidden}x{hidden}, batch {batch}"
        show(f"{size}: tinyevo", times["tinyevo"], " ms")
        show(
            f"{size}: textbook / tinyevo",
            [b / a for a, b in zip(times["tinyevo"], times["textbook"])],
        )
        show(
            f"{size}: tinyevo / bare products",
            [a / b for a, b in zip(times["tinyevo"], times["products"])],
        )


def profile_update():
    """Where the time of an update goes, by operation."""
    heading(
        "Where an update's time goes (64x64, batch 128, CPU)",
        "operation",
        "calls per update",
        "share",
    )
    agent = TD3(*spaces(), HP)
    memory = ReplayBuffer(1000, *spaces())
    rng, updates = np.random.default_rng(0), 200
    memory.add(
        rng.random((1000, 8)),
        rng.random((1000, 2)),
        rng.random(1000),
        rng.random((1000, 8)),
        np.zeros(1000),
    )
    for _ in range(updates):
        agent.learn(memory.sample(128, rng))
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profile:
        for _ in range(updates):
            agent.learn(memory.sample(128, rng))
    events = sorted(profile.key_averages(), key=lambda event: -event.self_cpu_time_total)
    total = sum(event.self_cpu_time_total for event in events)
    for event in events[:12]:
        share = event.self_cpu_time_total / total
        print(f"| {event.key} | {event.count / updates:.1f} | {share:.1%} |")


# Processes, population, everything else


def fly_alone(number):
    """An independent process's measurement."""
    torch.set_num_threads(1)
    return fly_tinyevo(800)


def compare_workers():
    """Two workers beside two processes that know nothing of each other."""
    heading("Two workers", "", "", "range")
    ratios = []
    with (
        worker_pool(2) as pool,
        ProcessPoolExecutor(2, mp_context=get_context("spawn")) as independent,
    ):
        list(independent.map(fly_alone, range(2)))
        run_generation(2, pool, 800)
        for _ in range(ROUNDS):
            ours = run_generation(2, pool, 2400)
            theirs = sum(independent.map(fly_alone, range(2)))
            ratios.append(ours / theirs)
    show("steps per second of a generation against two independent processes' sum", ratios)


def run_generation(size, pool, steps):
    """Member-steps per second of one generation, with everything that crosses processes."""
    population = create_population(size, *spaces(), HP)
    memory = ReplayBuffer(100_000, *spaces())
    config = replace(CONFIG, evo_steps=steps)
    slot = partial(train_member_copy, memory=memory, config=config)
    began = time.perf_counter()
    map_in_pool(pool, lambda steps: None, slot, population, range(size))
    return size * steps / (time.perf_counter() - began)


def train_member_copy(agent, seed, memory, config):
    """A member's slice on copies, as `train` does it."""
    return train_member(agent.clone(), copy.deepcopy(memory), config, seed)


def compare_populations():
    """What a member-step costs in populations of several sizes, everything included."""
    heading(
        "Cost of a member-step of `train`, against a population of one", "population", "", "range"
    )
    sizes = (1, 2, 4, 8, 16)
    costs = {size: [] for size in sizes}
    config = replace(CONFIG, evo_steps=800, max_steps=1600, eval_episodes=2, eval_steps=100)
    for number in range(4):
        for size in sizes:
            population = create_population(size, *spaces(), HP)
            run = Run(population, ReplayBuffer(100_000, *spaces()))
            began = time.perf_counter()
            train(run, TournamentSelection(2, True, size), NO_MUTATION, config)
            if number > 0:
                costs[size].append((time.perf_counter() - began) / size)
    for size in sizes:
        show(str(size), [cost / alone for cost, alone in zip(costs[size], costs[1])])


@contextmanager
def stopwatch(seconds, name, owner, attribute):
    """Count the time that is spent in a function while the block runs."""
    original = getattr(owner, attribute)

    def measured(*arguments, **named):
        began = time.perf_counter()
        try:
            return original(*arguments, **named)
        finally:
            seconds[name] += time.perf_counter() - began

    setattr(owner, attribute, measured)
    try:
        yield
    finally:
        setattr(owner, attribute, original)


def measure_the_rest():
    """How much of a run with the script's settings goes into neither environments nor learning."""
    heading(
        "Where the time of `train` goes with the script's settings, one process, two generations",
        "",
        "share",
    )
    sys.path.insert(0, str(ROOT))
    from train_lunar import SETTINGS

    seconds = Counter()
    population = create_population(4, *spaces(), SETTINGS.hp, **vars(SETTINGS.network))
    run = Run(population, ReplayBuffer(SETTINGS.config.memory_size, *spaces()))
    config = replace(SETTINGS.config, max_steps=2 * SETTINGS.config.evo_steps)
    with (
        stopwatch(seconds, "environments", Guarded, "step"),
        stopwatch(seconds, "environments", Guarded, "reset"),
        stopwatch(seconds, "learning: updates", TD3, "learn"),
        stopwatch(seconds, "learning: sampling", ReplayBuffer, "sample"),
        stopwatch(seconds, "acting", TD3, "get_action"),
        stopwatch(seconds, "remembering", ReplayBuffer, "add"),
        stopwatch(seconds, "copies of agents and memory", train_module.copy, "deepcopy"),
    ):
        began = time.perf_counter()
        train(run, SETTINGS.tournament, SETTINGS.mutations, config)
        total = time.perf_counter() - began
    seconds["everything else"] = total - sum(seconds.values())
    for name, value in seconds.most_common():
        print(f"| {name} | {value / total:.1%} |")


def measure_memory():
    """The most memory that the script and its workers ever occupy together."""
    heading("Peak memory of `train_lunar.py --workers 2`, all processes", "", "MiB")
    with tempfile.TemporaryDirectory() as folder:
        arguments = ["--workers", "2", "--max-steps", "20000", "--no-gif", "--out", f"{folder}/run"]
        command = [sys.executable, str(ROOT / "train_lunar.py"), *arguments]
        script = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        peak = 0
        while script.poll() is None:
            peak = max(peak, sum(map(proportional_memory, family(script.pid))))
            time.sleep(0.5)
    print(f"| shared pages counted once (PSS) | {peak / 1024:.0f} |")


def family(pid):
    """A process and its descendants."""
    try:
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    except OSError:
        return [pid]
    return [pid] + [member for child in children for member in family(int(child))]


def proportional_memory(pid):
    """KiB of a process, with what it shares divided among those who share it."""
    try:
        return int(Path(f"/proc/{pid}/smaps_rollup").read_text().split("Pss:")[1].split()[0])
    except (OSError, IndexError):
        return 0


def main():
    """Measure everything."""
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    print(f"Python {platform.python_version()}, torch {torch.__version__}", end=", ")
    print(f"Gymnasium {gym.__version__}, {os.cpu_count()} cores, one torch thread per process;")
    print(f"the median of {ROUNDS} rounds or more")
    compare_loops()
    for device in ["cpu"] + ["cuda"] * torch.cuda.is_available():
        compare_update(device)
    profile_update()
    compare_workers()
    compare_populations()
    measure_the_rest()
    if Path("/proc/self/smaps_rollup").exists():
        measure_memory()


if __name__ == "__main__":
    main()
