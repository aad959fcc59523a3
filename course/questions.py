"""The questions whose answer is a number, each with constants that differ from student to student.

No right answer stands here: it is what the package does, found by running it.
"""

import functools
from dataclasses import dataclass, replace

import numpy as np
import torch
from gymnasium.spaces import Box
from variants import constants

from tinyevo.buffer import Batch, ReplayBuffer
from tinyevo.environment import find_spaces
from tinyevo.mutation import RLParameter
from tinyevo.noise import OrnsteinUhlenbeckNoise
from tinyevo.population import create_population
from tinyevo.td3 import TD3, HyperParams
from tinyevo.tournament import TournamentSelection
from tinyevo.train import TrainConfig, train_member

UNIT = Box(-1, 1, (1,))


class Member:
    """The least that selection needs of an agent."""

    parent_id, mutation_kind, mutation = None, "none", "none"

    def __init__(self, id, fitness, founder=None):
        self.id, self.fitness, self.founder = id, [fitness], founder

    def is_finite(self):
        """Whether it may take part."""
        return True

    def clone(self):
        """A copy."""
        return Member(self.id, self.fitness[-1], self.founder)


def updates(envs, steps, learn_step, delay):
    """How many updates a member makes."""
    env_id = "Pendulum-v1"
    config = TrainConfig(env_id, num_envs=envs, evo_steps=steps, learning_delay=delay)
    spaces = find_spaces(env_id)
    hp = HyperParams(learn_step=learn_step, batch_size=4)
    (agent,) = create_population(1, *spaces, hp, hidden_size=(4,))
    train_member(agent, ReplayBuffer(1000, *spaces), config, seed=0)
    return agent.updates


def noise(theta, sigma, dt):
    """The share of its steps in which a walk that has settled is beyond a dead zone of 0.5."""
    walk = OrnsteinUhlenbeckNoise(20_000, 1, mean=0.0, sigma=sigma, theta=theta, dt=dt)
    generator = np.random.default_rng(0)
    samples = [walk.sample(generator) for _ in range(300)]
    return float(np.mean(np.abs(samples[200::10]) > 0.5))


def loss(reward, gamma, targets, values, rows, ended):
    """The critics' loss in a batch of transitions of which some terminated."""
    hp = HyperParams(gamma=gamma, reward_scale=1, policy_noise=0)
    agent = TD3(UNIT, UNIT, hp, hidden_size=(1,))
    for network, outputs in (
        (agent.targets["critic"], targets),
        (agent.networks["critic"], values),
    ):
        _zero(network)
        network.biases[-1].data[:, 0, 0] = torch.tensor(outputs, dtype=torch.float32)
    return agent.learn(_batch(reward, rows, ended))["critic"].item()


def growth(start, most, factor):
    """How many growing moves lead from one bound of an integer to the other."""
    limits = RLParameter(min=1, max=most, dtype=int, grow_factor=factor)
    value, moves = start, 0
    while value < most:
        value, moves = limits._moved(value, factor), moves + 1
    return moves


@functools.cache  # two questions ask for it
def places(members, rivals):
    """The shares of a next generation that each member gets on average, the fittest first."""
    population = [Member(id, -id) for id in range(members)]
    selection = TournamentSelection(rivals, True, members)
    generator, counts = np.random.default_rng(0), np.zeros(members)
    for _ in range(12_000):  # a standard error of 0.7 % at most
        _, (elite, *children) = selection.select(population, generator)
        counts[[elite.id]] += 1
        np.add.at(counts, [child.parent_id for child in children], 1)
    return counts / counts.sum()


def best(members, rivals):
    """The fittest member's share of the places."""
    return float(places(members, rivals)[0])


def second(members, rivals):
    """The second fittest member's share of the places."""
    return float(places(members, rivals)[1])


def takeover(members, rivals):
    """The mean number of generations until all descend from one founder, under drift."""
    generator, total, runs = np.random.default_rng(0), 0, 3000
    selection = TournamentSelection(rivals, True, members)
    for _ in range(runs):
        population = [Member(id, 0.0, founder=id) for id in range(members)]
        while len({member.founder for member in population}) > 1:
            for member, luck in zip(population, generator.random(members)):
                member.fitness = [luck]
            _, population = selection.select(population, generator)
            total += 1
    return total / runs


def worth(reward, gamma, ended):
    """What the critics learn of a reward in every step, if a part of the steps ends the episode."""
    hp = HyperParams(
        gamma=gamma, lr_critic=0.03, lr_actor=0, tau=0.5, policy_freq=1, reward_scale=1
    )
    agent = TD3(UNIT, UNIT, replace(hp, policy_noise=0), (8,), generator=torch.Generator())
    for network in (agent.networks["actor"], agent.targets["actor"]):
        _zero(network)  # the action is 0 in all that it learns, and it is asked about no other
    for _ in range(400):
        agent.learn(_batch(reward, rows=20, ended=round(20 * ended)))
    return agent.networks["critic"](torch.zeros(1, 2)).mean().item()


def curse(members, episodes, deviation):
    """How far the elite's fitness lies above its true mean, if all members are equal."""
    generator, sums = np.random.default_rng(0), 0.0
    selection = TournamentSelection(2, True, members)
    for _ in range(4000):
        fitness = generator.normal(0, deviation, size=(members, episodes)).mean(axis=1)
        population = [Member(id, float(value)) for id, value in enumerate(fitness)]
        sums += selection.elite(population).fitness[-1]
    return sums / 4000


def _zero(network):
    for parameter in network.parameters():
        parameter.data.zero_()


def _batch(reward, rows, ended):
    """Transitions that lead from 0 to 0, of which the first `ended` terminated."""
    zero = torch.zeros(rows, 1)
    terminated = (torch.arange(rows) < ended)[:, None]
    return Batch(zero, zero, zero + reward, zero, terminated)


@dataclass(frozen=True)
class Question:
    """A question: its text with the names of constants in braces, and the values these may have.

    `value` gives the right answer for a choice of constants; an answer may be off by the share
    `tolerance` of it.
    """

    text: str
    choices: dict
    value: callable
    tolerance: float = 0.0


MEMBERS = {"members": (6, 7, 8, 9), "rivals": (2, 3)}
QUESTIONS = {
    "updates": Question(
        "A member flies evo_steps={steps} steps in {envs} environments with\nlearn_step="
        "{learn_step}, learning_delay={delay} and updates_for='own', its memory empty at first.\n"
        "How many updates does it make?",
        {
            "envs": (3, 4, 6),
            "steps": (96, 120, 144),
            "learn_step": (5, 7, 9),
            "delay": (10, 20, 31),
        },
        updates,
    ),
    "noise": Question(
        "The actor says 0, and an Ornstein-Uhlenbeck walk with theta={theta}, sigma={sigma} and\n"
        "dt={dt} is added. Once the walk has settled, in which share of the steps does a side\n"
        "engine fire, that is, is the action beyond 0.5 on either side?",
        {"theta": (0.2, 0.4, 0.6), "sigma": (0.3, 0.4, 0.5), "dt": (0.5, 1.0)},
        noise,
        tolerance=0.015,  # sigma / sqrt(2 theta), for steps that are infinitely short, is refused
    ),
    "loss": Question(
        "In a batch of {rows} transitions every reward is {reward} and {ended} of them "
        "terminated.\nThe two target critics say {targets} everywhere, the two critics {values}; "
        "gamma is\n{gamma}, reward_scale 1. What is the critics' loss that `learn` returns?",
        {
            "reward": (1.0, -1.0, 2.0),
            "gamma": (0.9, 0.8),
            "targets": ((5.0, 3.0), (2.0, 4.0), (-1.0, 3.0)),
            "values": ((1.0, 2.0), (0.0, 3.0)),
            "rows": (4, 8),
            "ended": (1, 2, 3),
        },
        loss,
        tolerance=0.001,
    ),
    "growth": Question(
        "A learn_step of {start} in RLParameter(1, {most}, int, grow_factor={factor}) grows in\n"
        "every mutation. After how many is it {most}?",
        {"start": (1, 2, 3), "most": (24, 40, 64), "factor": (1.25, 1.4, 1.1)},
        growth,
    ),
    "best": Question(
        "With elitism and tournaments of {rivals} among {members} members: which share of the\n"
        "places of the next generation does the best one get on average, its own included?",
        MEMBERS,
        best,
        tolerance=0.025,
    ),
    "second": Question(
        "And which share does the second best one get, with elitism and tournaments of {rivals}\n"
        "among {members} members?",
        MEMBERS,
        second,
        tolerance=0.025,  # drawing rivals with replacement is refused
    ),
    "takeover": Question(
        "Fitness is pure chance, new in every generation. With elitism and tournaments of\n"
        "{rivals} among {members} members: how many generations does it take on average until "
        "all\ndescend from one member of the first?",
        MEMBERS,
        takeover,
        tolerance=0.04,
    ),
    "worth": Question(
        "Every step gives a reward of {reward}, and a share of {ended} of all steps ends the\n"
        "episode, whatever was done. With gamma={gamma}: which value do the critics learn?",
        {"reward": (1.0, 2.0, 3.0), "gamma": (0.8, 0.9), "ended": (0.1, 0.2, 0.3)},
        worth,
        tolerance=0.01,
    ),
    "curse": Question(
        "{members} members are equally good, and the return of an episode has a standard\n"
        "deviation of {deviation}. Fitness is the mean of {episodes} episodes. How far does the "
        "fitness of the\nelite lie above the true mean on average?",
        {"members": (3, 4, 6, 10), "episodes": (5, 10, 20), "deviation": (60, 70, 80)},
        curse,
        tolerance=0.05,
    ),
}
# Two questions about one situation have the same constants.
SITUATION = {"second": "best"}


def given(student, key):
    """The constants of a student's question: a dict by name."""
    question = QUESTIONS[key]
    return constants(student, SITUATION.get(key, key), question.choices)


def asked(student, key):
    """A student's question in words."""
    return QUESTIONS[key].text.format(**given(student, key))


def right(student, key):
    """The right answer to a student's question, as the package computes it."""
    return _computed(key, tuple(sorted(given(student, key).items())))


@functools.cache
def _computed(key, items):
    return QUESTIONS[key].value(**dict(items))


def fits(answer, student, key):
    """Whether a number is the answer to that student's question."""
    if type(answer) not in (int, float):
        return False
    value = right(student, key)
    return abs(answer - value) <= QUESTIONS[key].tolerance * abs(value) + 1e-9
