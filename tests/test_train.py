"""The two loops: what is stored, what is paid for, and that a run depends on its inputs alone."""

import copy
import math
import multiprocessing
import warnings
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from dataclasses import FrozenInstanceError, fields, replace
from unittest.mock import Mock

import gymnasium as gym
import numpy as np
import probes
import pytest
import torch
from common import MUTATIONS, SMALL, TINY, flat, run, same, setup, text
from gymnasium.spaces import Box

from tinyevo import train as module
from tinyevo.buffer import ReplayBuffer
from tinyevo.environment import find_spaces
from tinyevo.mutation import Mutations, RLParameter
from tinyevo.population import create_population, member_row
from tinyevo.td3 import TD3, HyperParams
from tinyevo.tournament import TournamentSelection
from tinyevo.train import (
    EVALUATE,
    MUTATE,
    RANGES,
    SELECT,
    TRAIN,
    Run,
    TrainConfig,
    breed,
    confirm,
    fly,
    share,
    train,
    train_member,
    with_target,
)


def fittest(done):
    """The rows of the elites of a run's generations."""
    return [row for row in done.history if row["elite"]]


# What is stored


@pytest.mark.parametrize(
    "env_id, cap", [("Counting-v0", None), ("Capped-v0", None), ("Counting-v0", 3)]
)
@pytest.mark.parametrize("num_envs", [1, 4])
def test_no_stored_transition_crosses_an_episode(env_id, cap, num_envs):
    config = replace(
        TINY, env_id=f"probes:{env_id}", num_envs=num_envs, evo_steps=400, train_episode_steps=cap
    )
    (agent,), memory = setup(config, size=1, hp=HyperParams(batch_size=8, learn_step=50))
    _, records = train_member(agent, memory, config, seed=5)
    episode, t, length = records["obs"].T
    next_episode, next_t, _ = records["next_obs"].T
    assert len(records) == 400
    assert len(set(episode[:num_envs])) == num_envs, (
        "environments side by side fly the same episode"
    )
    assert np.array_equal(episode, next_episode), "a successor belongs to another episode"
    assert np.array_equal(next_t, t + 1), "a step is missing or was invented"
    assert np.array_equal(records["terminated"][:, 0], next_t == length), (
        "a time limit was stored as a termination"
    )
    assert (records["reward"] == 1).all()
    limit = cap or (4 if env_id == "Capped-v0" else 9)
    assert next_t.max() == limit, "an episode was cut short"
    if limit < 9:
        assert not records["terminated"][next_t < length].any()


def test_the_environments_of_a_member_are_closed_also_where_one_fails(monkeypatch):
    (agent,), memory = setup(size=1)
    closed = []
    monkeypatch.setattr(probes.Counting, "close", lambda self: closed.append(self))
    train_member(agent, memory, TINY, seed=0)
    assert len(set(closed)) == 3
    monkeypatch.setattr(probes.Counting, "step", Mock(side_effect=RuntimeError("no fuel")))
    with pytest.raises(gym.error.Error, match="no fuel"):
        train_member(agent, memory, TINY, seed=0)
    assert len(set(closed)) == 6


def test_actions_are_stored_as_the_environment_got_them_and_stay_in_an_asymmetric_box():
    config = replace(TINY, evo_steps=600, learning_delay=300)
    (agent,), memory = setup(
        config, size=1, hp=HyperParams(batch_size=8, learn_step=100, expl_noise=0.8)
    )
    _, records = train_member(
        agent, memory, config, seed=0
    )  # `Counting` itself refuses what is outside
    low, high = agent.action_space.low, agent.action_space.high
    at_random = records["action"][:300].reshape(100, 3, 2)
    assert (at_random[:, 0] != at_random[:, 1]).any(), "all environments get one action"
    for half in (records["action"][:300], records["action"][300:]):
        assert (half >= low).all() and (half <= high).all()
        assert (half.max(axis=0) > low + 0.9 * (high - low)).all(), "part of the box is never tried"
        assert (half.min(axis=0) < low + 0.1 * (high - low)).all(), "part of the box is never tried"


@pytest.mark.parametrize("noise", ["gaussian", "ou"])
def test_exploration_is_the_policy_plus_noise_of_the_agents_strength(noise):
    theta = 1.0 if noise == "ou" else 0.15  # at 1 the process is white noise as well
    config = replace(TINY, evo_steps=3000, memory_size=3000, noise=noise, noise_theta=theta)
    (agent,), memory = setup(
        config, size=1, hp=HyperParams(batch_size=8, learn_step=10_000, expl_noise=0.1)
    )
    for parameter in agent.networks["actor"].parameters():
        parameter.data.zero_()  # the middle of the box, so that no noise is clipped
    before = agent.clone()
    _, records = train_member(agent, memory, config, seed=0)
    deviation = (records["action"] - before.get_action(records["obs"])) / np.array([1.0, 5.0])
    assert deviation.std(axis=0) == pytest.approx(0.1, rel=0.1)
    silent = replace(SMALL, expl_noise=0.0, learn_step=10_000)
    (agent,), memory = setup(config, size=1, hp=silent)
    _, records = train_member(agent, memory, config, seed=0)
    assert np.allclose(records["action"], agent.get_action(records["obs"]), atol=1e-5)


def explored(config, expl_noise):
    """How far the actions were from those of a policy that always acts in the middle, in half-ranges; and when."""
    (agent,), memory = setup(
        config, size=1, hp=HyperParams(learn_step=10_000, expl_noise=expl_noise)
    )
    for parameter in agent.networks["actor"].parameters():
        parameter.data.zero_()
    _, records = train_member(agent, memory, config, seed=0)
    return (records["action"] - np.array([0.0, 5.0])) / np.array([1.0, 5.0]), records["obs"][:, 1]


def test_the_noise_has_the_mean_and_the_time_step_of_the_configuration_and_starts_again_with_each_episode():
    config = replace(TINY, evo_steps=6000, memory_size=6000)
    deviation, _ = explored(replace(config, noise_mean=0.5), expl_noise=0.0)
    assert np.allclose(deviation, 0.5)
    deviation, step = explored(replace(config, noise_theta=0.0, noise_dt=0.25), expl_noise=0.1)
    for steps in (1, 4):  # a walk that nothing pulls back spreads with the root of its time
        assert deviation[step == steps - 1].std() == pytest.approx(
            0.1 * (steps * 0.25) ** 0.5, rel=0.1
        )
    cut = replace(config, noise_theta=0.0, noise_dt=0.25, train_episode_steps=3)
    deviation, step = explored(cut, expl_noise=0.1)  # most episodes end by the time limit
    assert deviation[step == 0].std() == pytest.approx(0.1 * 0.25**0.5, rel=0.1)


def test_until_the_delay_actions_are_uniform_and_nobody_learns():
    config = replace(TINY, evo_steps=3000, memory_size=3000, learning_delay=3000)
    (agent,), memory = setup(config, size=1)
    _, records = train_member(agent, memory, config, seed=0)
    share = (records["action"] - agent.action_space.low) / (
        agent.action_space.high - agent.action_space.low
    )
    assert np.histogram(share, bins=10, range=(0, 1))[0] == pytest.approx([600] * 10, rel=0.15)
    assert agent.updates == 0


# What is paid for


@pytest.mark.parametrize("num_envs", [1, 3, 8])
@pytest.mark.parametrize("learn_step", range(1, 17))
def test_there_is_one_update_for_every_learn_step_steps(learn_step, num_envs, monkeypatch):
    updates = []
    monkeypatch.setattr(
        TD3, "learn", lambda agent, batch, generator: updates.append(len(batch.obs))
    )
    config = replace(TINY, num_envs=num_envs, evo_steps=48)
    (agent,), memory = setup(config, size=1, hp=replace(SMALL, learn_step=learn_step))
    train_member(agent, memory, config, seed=0)
    assert len(updates) == 48 // learn_step
    assert set(updates) == {8}
    assert agent.steps == memory.counter == 48


def test_each_update_has_a_batch_of_its_own_and_the_noise_of_the_slice(monkeypatch):
    batches, generators = [], []

    def learn(agent, batch, generator):
        batches.append(batch.obs.numpy().tobytes())
        generators.append(generator)

    monkeypatch.setattr(TD3, "learn", learn)
    config = replace(TINY, num_envs=8, evo_steps=48)  # eight updates after each step of all
    (agent,), memory = setup(config, size=1)
    train_member(agent, memory, config, seed=0)
    assert len(set(batches)) == 48
    assert {type(generator) for generator in generators} == {torch.Generator}
    assert len(set(map(id, generators))) == 1


def test_actions_have_the_type_of_their_box_and_do_not_step_over_its_edges(monkeypatch):
    box = Box(np.array([-0.1, 0.1]), np.array([0.1, 0.3]), dtype=np.float64)  # no float32 numbers
    monkeypatch.setattr(probes.Counting, "action_space", box)
    (agent,), memory = setup(size=1, hp=replace(SMALL, expl_noise=5.0))
    _, records = train_member(agent, memory, TINY, seed=0)  # `Counting` refuses what is outside
    assert (records["action"].max(axis=0) == box.high).all(), "the edge was never tried"
    assert (records["action"].min(axis=0) == box.low).all(), "the edge was never tried"


@pytest.mark.parametrize("updates_for, updates", [("own", 10), ("everybody", 30)])
def test_a_member_updates_for_its_own_steps_or_for_those_of_all_three(updates_for, updates):
    config = replace(TINY, num_envs=2, updates_for=updates_for, max_steps=30)
    done = run(config, hp=replace(SMALL, learn_step=3))
    assert [agent.updates for agent in done.population] == [updates] * 3
    assert {agent.steps for agent in done.population} == {30}


@pytest.mark.parametrize(
    "delay, updates", [(0, 60), (1, 57), (30, 30), (31, 27), (59, 0), (100, 0)]
)
def test_no_credit_accrues_before_the_delay(delay, updates):
    config = replace(TINY, evo_steps=60, learning_delay=delay)
    (agent,), memory = setup(config, size=1)
    train_member(agent, memory, config, seed=0)
    assert agent.updates == updates, (
        "a step that begins before the delay is over pays for no update"
    )


def test_the_delay_counts_what_was_ever_added_to_the_memory_in_use():
    config = replace(TINY, evo_steps=30, learning_delay=200)
    (agent,), memory = setup(config, size=1, capacity=50)
    train_member(agent.clone(), memory, replace(config, evo_steps=198), seed=0)
    train_member(agent, memory, config, seed=1)
    assert len(memory) == 50 and memory.counter == 228
    assert agent.updates == 27  # 198 transitions are too few, 201 are enough


def test_no_credit_is_carried_over_to_the_next_slice():
    config = replace(TINY, evo_steps=9)
    (agent,), memory = setup(config, size=1, hp=replace(SMALL, learn_step=5))
    for seed in range(3):
        train_member(agent, memory, config, seed)
    assert agent.updates == 3 and agent.steps == 27


def test_steps_are_rounded_down_to_whole_steps_of_the_environments():
    done = run(replace(TINY, num_envs=4, evo_steps=31, max_steps=66, train_episode_steps=7))
    assert [row["steps"] for row in fittest(done)] == [28, 56, 64]
    assert done.memory.counter == 3 * done.steps == 3 * 64


# The training return


@pytest.mark.parametrize("cap", [None, 3])
def test_the_training_return_is_the_mean_over_the_episodes_that_ended(cap):
    config = replace(TINY, evo_steps=600, train_episode_steps=cap)
    (agent,), memory = setup(config, size=1, hp=replace(SMALL, learn_step=100))
    _, records = train_member(agent, memory, config, seed=0)
    _, t, length = records[
        "next_obs"
    ].T  # with a reward of 1 a step, the return of an episode is its length
    assert agent.train_return == pytest.approx(t[(t == length) | (t == cap)].mean())
    assert type(agent.train_return) is float


def test_without_a_finished_episode_the_training_return_is_nan():
    config = replace(TINY, env_id="probes:Ticking-v0", num_envs=2, evo_steps=8)
    (agent,), memory = setup(config, size=1)
    train_member(agent, memory, config, seed=0)
    assert math.isnan(agent.train_return)


# Known values are learned


def value(env_id, gamma=0.8):
    """What an agent believes of the first observation of an environment after a little training."""
    hp = replace(SMALL, batch_size=32, gamma=gamma, lr_critic=0.01, tau=0.2, policy_freq=1)
    config = replace(TINY, env_id=f"probes:{env_id}", num_envs=1, evo_steps=600)
    (agent,), memory = setup(config, size=1, hp=hp)
    train_member(agent, memory, config, seed=0)
    return agent.networks["critic"](torch.zeros(1, 2)).mean().item()


def test_a_time_limit_still_bootstraps():
    # Reward 1 for ever, cut off after 5 steps, is worth 1 / (1 - 0.8) = 5; five steps of it would
    # be worth 3.36.
    assert value("Ticking-v0") == pytest.approx(5, rel=0.05)


def test_a_termination_does_not():
    assert value("Mortal-v0") == pytest.approx(1, rel=0.05)


def test_a_population_learns_to_aim():
    hp = replace(SMALL, batch_size=64, lr_actor=3e-3, lr_critic=3e-3, expl_noise=0.4)
    config = replace(
        TINY,
        env_id="probes:Aim-v0",
        evo_steps=500,
        max_steps=2000,
        eval_episodes=20,
        confirm_episodes=50,
    )
    config = replace(config, target=-0.05)
    done = run(config, size=2, hp=hp)
    assert done.best_return >= -0.05
    obs = np.array([[0.2], [0.5], [0.8]])
    assert done.best.get_action(obs)[:, 0] == pytest.approx([5.2, 7.0, 8.8], abs=1.0)


# A generation is a pure function of its inputs


def test_the_same_seed_gives_the_same_run_and_another_seed_another():
    first, second, third = (run(replace(TINY, seed=seed)) for seed in (0, 0, 1))
    assert text(first) == text(second)
    assert text(first) != text(third)


def test_training_twice_from_one_run_gives_the_same_run_and_changes_nothing_passed_in():
    start, mutations = Run(*setup()), MUTATIONS
    before = text(start), copy.deepcopy(vars(mutations))
    first, second = (run(start=start, mutations=mutations) for _ in range(2))
    assert text(first) == text(second) != before[0]
    assert (text(start), vars(mutations)) == before
    agents = [id(agent) for agent in (*start.population, *first.population, *second.population)]
    assert len(set(agents)) == 9, "an agent is in two runs"


def test_training_on_from_a_run_changes_nothing_in_it():
    middle = run(replace(TINY, max_steps=60))
    before = text(middle)
    assert text(run(start=middle)) == text(run(start=middle)) == text(run())
    assert text(middle) == before


def test_the_runs_that_generations_end_with_stay_as_they_were():
    kept, told = [], []

    def keep(state):
        kept.append(state)
        told.append(text(state))

    done = run(options={"on_generation": keep})
    assert [text(state) for state in kept] == told
    assert kept[-1] is done and len(kept) == 3


def test_a_run_cannot_be_assigned_to():
    with pytest.raises(FrozenInstanceError):
        Run(*setup()).steps = 3


def test_threads_of_an_executor_give_the_same_bits_as_a_plain_loop():
    with ThreadPoolExecutor(2) as pool:
        assert text(run(options={"map": pool.map})) == text(run())


def test_processes_of_an_executor_give_the_same_bits_as_a_plain_loop():
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(2, mp_context=context) as pool:
        assert text(run(options={"map": pool.map})) == text(run())


def test_members_fly_in_any_order_without_changing_a_bit():
    def backwards(function, *arguments):
        return [function(*task) for task in reversed(list(zip(*arguments)))][::-1]

    assert text(run(options={"map": backwards})) == text(run())


def test_steps_are_told_as_they_are_flown():
    told = []
    run(options={"on_steps": told.append})
    assert told == [3] * (3 * 90 // 3)


def test_no_global_generator_is_read_or_moved():
    torch.manual_seed(1)
    np.random.seed(1)
    states = torch.get_rng_state(), np.random.get_state()[1].tolist()
    first = run()
    assert torch.equal(torch.get_rng_state(), states[0])
    assert np.random.get_state()[1].tolist() == states[1]
    torch.manual_seed(2)
    np.random.seed(2)
    assert text(run()) == text(first)


def test_every_use_of_randomness_has_a_seed_of_its_own():
    seeds = [
        replace(TINY, seed=seed).derived_seed(purpose, generation, slot)
        for seed in (0, 1)
        for purpose in range(7)
        for generation in (0, 1, 19, 20, 21, 400)
        for slot in (0, 1, 3, 4, 99)
    ]
    assert len(set(seeds)) == len(seeds)


def test_the_smoothing_noise_is_another_one_in_each_slice(monkeypatch):
    seeds = []
    monkeypatch.setattr(
        TD3, "learn", lambda agent, batch, generator: seeds.append(generator.initial_seed())
    )
    run()
    assert len(set(seeds)) == 3 * 3  # generations and members


def test_a_members_slice_depends_on_its_arguments_alone():
    (agent,), memory = setup(size=1)
    twins = [train_member(agent.clone(), copy.deepcopy(memory), TINY, seed=4) for _ in range(2)]
    assert same(twins[0][0], twins[1][0]) and np.array_equal(twins[0][1], twins[1][1])
    other = train_member(agent.clone(), copy.deepcopy(memory), TINY, seed=5)
    assert not np.array_equal(other[1]["obs"], twins[0][1]["obs"])


@pytest.fixture
def three_threads():
    """Torch with three threads, as long as the test takes."""
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    yield
    torch.set_num_threads(before)


def test_a_run_takes_one_thread_of_torch_and_gives_the_others_back(three_threads):
    seen = []
    run(options={"on_generation": lambda state: seen.append(torch.get_num_threads())})
    assert seen == [1, 1, 1] and torch.get_num_threads() == 3


def test_a_member_that_flies_alone_takes_one_thread_and_gives_the_others_back(three_threads):
    (agent,), memory = setup(size=1)
    seen = []
    tell = lambda steps: seen.append(torch.get_num_threads())  # noqa: E731
    fly(agent, 0, memory, TINY, 0, on_steps=tell)
    assert set(seen) == {1} and torch.get_num_threads() == 3


def test_a_part_of_a_confirmation_takes_one_thread_and_gives_the_others_back(
    three_threads, monkeypatch
):
    (agent,), _ = setup(size=1)
    monkeypatch.setattr(module, "evaluate", lambda *arguments: [torch.get_num_threads()])
    assert module.confirm_part(agent, TINY, 1, 0) == [1] and torch.get_num_threads() == 3


def test_even_a_run_that_fails_gives_the_threads_back(three_threads):
    def fail(state):
        raise InterruptedError

    with pytest.raises(InterruptedError):
        run(options={"on_generation": fail})
    assert torch.get_num_threads() == 3


# Resuming


@pytest.mark.parametrize("capacity", [None, 100])  # the smaller one is full and wraps
@pytest.mark.parametrize("generations", [0, 1, 2, 3])
def test_an_interrupted_run_goes_on_to_the_same_end_bit_for_bit(generations, capacity):
    kept = [Run(*setup(capacity=capacity))]

    def interrupt(state):
        kept.append(state)
        if state.generation == generations:
            raise InterruptedError

    if generations:
        with pytest.raises(InterruptedError):
            run(start=kept[0], options={"on_generation": interrupt})
    assert kept[-1].generation == generations and kept[-1].steps == 30 * generations
    assert text(run(start=kept[-1])) == text(run(capacity=capacity))


def test_any_generation_of_a_run_that_went_on_can_be_resumed():
    kept = []
    done = run(options={"on_generation": kept.append})
    assert {text(run(start=state)) for state in kept} == {text(done)}


def test_a_finished_run_has_nothing_left_to_do():
    done, calls = run(), []
    options = {"on_generation": calls.append}
    assert run(start=done, options=options) is done
    assert run(replace(TINY, max_steps=999, target=0.0), start=done, options=options) is done
    assert calls == []


def test_a_finished_run_goes_on_with_more_steps_as_if_it_had_always_had_them():
    longer = replace(TINY, max_steps=150)
    done = run(longer, start=run())
    assert text(done) == text(run(longer)) and done.steps == 150


def test_steps_go_on_where_an_uneven_last_generation_left_off():
    done = run(start=run(replace(TINY, max_steps=45)))
    assert [row["steps"] for row in fittest(done)] == [30, 45, 75, 90]


def test_a_run_counts_its_generations():
    generations = []
    run(options={"on_generation": lambda state: generations.append(state.generation)})
    assert Run(*setup()).generation == 0 and generations == [1, 2, 3]


# Breeding


def test_the_first_generation_is_the_population_as_it_is_given():
    start = Run(*setup())
    assert breed(start, TournamentSelection(2, True, 3), MUTATIONS, TINY) is start.population


def test_the_next_generation_is_bred_from_the_last_one_and_seeds_of_its_own():
    middle, tournament = run(replace(TINY, max_steps=60)), TournamentSelection(2, True, 3)
    before = text(middle)
    first, second = (breed(middle, tournament, MUTATIONS, TINY) for _ in range(2))
    assert all(map(same, first, second))
    assert text(middle) == before
    lineage = [(agent.id, agent.parent_id, agent.mutation_kind) for agent in first]
    rows = run().history[-3:]
    assert lineage == [(row["id"], row["parent_id"], row["mutation_kind"]) for row in rows]
    _, expected = tournament.select(middle.population, TINY.derived_rng(SELECT, 1))
    assert all(map(same, first, MUTATIONS.mutate(expected, TINY.derived_rng(MUTATE, 1))))
    other = breed(middle, tournament, MUTATIONS, replace(TINY, seed=1))
    assert not all(map(same, first, other))


def test_breeding_draws_from_the_seeds_of_the_generation_that_it_breeds_from():
    drawn = []

    class Selecting(TournamentSelection):
        def select(self, population, rng):
            drawn.append(rng.bit_generator.state)
            return super().select(population, rng)

    class Mutating(Mutations):
        def mutate(self, population, rng):
            drawn.append(rng.bit_generator.state)
            return super().mutate(population, rng)

    train(Run(*setup()), Selecting(2, True, 3), Mutating(), TINY)
    purposes = [(purpose, last) for last in (0, 1) for purpose in (SELECT, MUTATE)]
    assert drawn == [TINY.derived_rng(*purpose).bit_generator.state for purpose in purposes]


def test_the_last_generation_is_evaluated_and_not_bred_from():
    done = run()
    rows = done.history[-3:]
    for agent, row in zip(done.population, rows, strict=True):
        assert {"generation": 2, **member_row(agent)}.items() <= row.items()
        assert agent.steps == 90 and len(agent.fitness) == 3


# Flying


def test_fitness_is_the_mean_of_the_returns(monkeypatch):
    (agent,), memory = setup(size=1)
    monkeypatch.setattr(module, "evaluate", lambda *arguments: np.array([0.0, 0.0, 30.0]))
    flown, _ = fly(agent, 0, memory, TINY, generation=0)
    assert flown.fitness == [10.0]


def test_an_agent_whose_weights_broke_is_unfit_however_well_it_flew(monkeypatch):
    (agent,), memory = setup(size=1)
    monkeypatch.setattr(TD3, "is_finite", lambda agent: False)
    flown, _ = fly(agent, 0, memory, TINY, generation=0)
    assert flown.fitness == [-math.inf]


def test_a_member_flies_on_copies_and_is_trained_and_evaluated_there():
    (agent,), memory = setup(size=1)
    before = flat(agent.state())
    flown, records = fly(agent, 2, memory, TINY, generation=5)
    assert flat(agent.state()) == before and memory.counter == 0
    twin, own = agent.clone(), copy.deepcopy(memory)
    _, expected = train_member(twin, own, TINY, TINY.derived_seed(TRAIN, 5, 2))
    assert np.array_equal(records, expected)
    seed = TINY.derived_seed(EVALUATE, 5)
    returns = module.evaluate(twin, TINY.env_id, TINY.eval_episodes, seed, TINY.eval_steps)
    assert len(set(returns)) > 1, "one episode would tell as much"
    twin.fitness.append(float(returns.mean()))
    assert same(flown, twin) and type(flown.fitness[-1]) is float


def test_members_in_different_slots_train_apart_but_are_evaluated_alike(monkeypatch):
    (agent,), memory = setup(size=1)
    seeds = []

    def spy(agent, env_id, episodes, seed, max_steps):
        seeds.append(seed)
        return np.zeros(episodes)

    monkeypatch.setattr(module, "evaluate", spy)
    (_, first), (_, second) = (fly(agent, slot, memory, TINY, 0) for slot in (0, 1))
    assert not np.array_equal(first["obs"], second["obs"])
    assert len(set(seeds)) == 1


# Sharing, confirming, stopping


def test_transitions_are_merged_step_by_step_and_member_by_member():
    seen = []

    def spy(function, *arguments):
        results = list(map(function, *arguments))
        if function.func is fly:
            seen.append([records for _, records in results])
        return results

    done = run(replace(TINY, max_steps=30), options={"map": spy})
    merged = done.memory.latest(90)
    for slot, records in enumerate(seen[0]):
        assert np.array_equal(merged[slot::3], records)


def test_what_a_member_that_diverged_experienced_is_not_shared():
    members, memory = setup()
    experience = []
    for slot, agent in enumerate(members):
        agent.fitness.append(-math.inf if slot == 1 else 1.0)
        records = np.zeros(4, dtype=memory.storage.dtype)
        records["reward"][:, 0] = 10 * slot + np.arange(4)
        experience.append(None if slot == 1 else records)
    share(memory, members, experience)
    assert memory.latest(99)["reward"][:, 0].tolist() == [0, 20, 1, 21, 2, 22, 3, 23]


def test_what_a_member_with_broken_weights_experienced_is_not_shared_even_if_it_finished():
    members, memory = setup(size=2)
    flown = [fly(agent, slot, memory, TINY, 0) for slot, agent in enumerate(members)]
    members, experience = zip(*flown)
    members[0].fitness.append(-math.inf)
    share(memory, members, experience)
    assert np.array_equal(memory.latest(60), experience[1])


def test_a_full_memory_forgets_all_members_evenly():
    memory = run(replace(TINY, max_steps=30), capacity=15).memory
    owners = [set(memory.latest(15)["obs"][slot::3, 0]) for slot in range(3)]
    assert (
        len(memory) == 15 and memory.counter == 45
    )  # 15 of each member were still there to be merged
    assert not owners[0] & owners[1] and not owners[1] & owners[2]


def test_members_learn_from_what_the_others_experienced(monkeypatch):
    sizes = []
    original = ReplayBuffer.sample

    def spy(memory, *arguments):
        sizes.append(len(memory))
        return original(memory, *arguments)

    monkeypatch.setattr(ReplayBuffer, "sample", spy)
    run(replace(TINY, max_steps=60), mutations=replace(MUTATIONS, rl_hp=0))
    assert max(sizes[:90]) == 30 and min(sizes[90:]) == 93 and max(sizes) == 120


def test_all_members_of_a_generation_fly_the_same_seeds_and_each_generation_new_ones(monkeypatch):
    calls = []
    original = module.evaluate

    def spy(agent, env_id, episodes, seed, max_steps=None):
        calls.append((episodes, seed, max_steps))
        return original(agent, env_id, episodes, seed, max_steps)

    monkeypatch.setattr(module, "evaluate", spy)
    run(replace(TINY, eval_steps=7))
    assert {max_steps for *_, max_steps in calls} == {7}
    fitness_calls = [call for call in calls if call[0] == 2]
    assert len(fitness_calls) == 9
    assert fitness_calls == [
        (2, TINY.derived_seed(EVALUATE, generation), 7) for generation in range(3) for _ in range(3)
    ]
    assert len(set(fitness_calls)) == 3


def fixed_scores(monkeypatch, fitness, confirmed):
    """Evaluations that return given numbers: `fitness` per generation for everybody, `confirmed` per confirmation."""
    fitness = [value for value in fitness for _ in range(3)]
    confirmed = [
        value for value in confirmed for _ in range(3)
    ]  # flown in as many parts as there are members
    flown = []

    def fake(agent, env_id, episodes, seed, max_steps=None):
        if episodes == TINY.eval_episodes:
            return np.array([fitness.pop(0)])
        flown.append((episodes, seed))
        return np.array([confirmed.pop(0)])

    monkeypatch.setattr(module, "evaluate", fake)
    return flown


def test_confirmations_are_flown_by_the_map_too(monkeypatch):
    fixed_scores(monkeypatch, [10, 20, 30], [5, 15, 25])
    called = []

    def spy(function, *arguments):
        called.append(function.func)
        return map(function, *arguments)

    run(options={"map": spy})
    assert called == [fly, module.confirm_part] * 3


def test_a_new_best_elite_is_confirmed_and_only_a_better_mean_is_kept(monkeypatch):
    flown = fixed_scores(monkeypatch, [10, 50, 30, 40], [20, 15, 25, 5])
    done = run(replace(TINY, max_steps=120))
    assert len(flown) == 4 * 3  # every elite promised more than what was confirmed, two held it
    assert done.best_return == 25 and done.best.steps == 90
    fixed_scores(monkeypatch, [10, 50, 30], [20, 20, 20])
    assert run().best.steps == 30, "one that is only as good takes the place of the first"


def test_an_elite_that_is_no_better_than_the_confirmed_mean_is_not_flown_again(monkeypatch):
    flown = fixed_scores(monkeypatch, [10, 19, 20], [20])
    done = run()
    assert len(flown) == 3 and done.best_return == 20


def test_a_great_past_is_no_reason_to_confirm_an_elite_again(monkeypatch):
    flown = fixed_scores(monkeypatch, [50, 10, 30], [20, 25])
    done = run()
    assert len(flown) == 2 * 3 and done.best_return == 25 and done.best.steps == 90


def test_a_confirmation_is_flown_in_parts_of_all_its_episodes_each_on_seeds_of_its_own(monkeypatch):
    flown = fixed_scores(monkeypatch, [10, 20, 30], [5, 15, 25])
    run(replace(TINY, num_envs=2, confirm_episodes=100))  # as many parts as members, of whom are 3
    assert [episodes for episodes, _ in flown] == [34, 33, 33] * 3
    assert len({seed for _, seed in flown}) == 9
    flown = fixed_scores(monkeypatch, [10, 20, 30], [5, 15, 25])
    run(replace(TINY, confirm_episodes=1))
    assert [episodes for episodes, _ in flown] == [1, 0, 0] * 3


def test_the_best_confirmed_agent_is_kept_apart_from_the_population(monkeypatch):
    fixed_scores(monkeypatch, [10, 5, 5], [20])
    kept = []
    done = run(options={"on_generation": kept.append})
    assert all(same(state.best, done.best) for state in kept)
    assert done.best.steps == 30 and done.population[0].steps == 90
    assert not any(done.best is agent for state in kept for agent in state.population)


def test_without_a_target_a_run_stops_at_the_environments_own_threshold():
    done = run(replace(TINY, env_id="probes:Capped-v0", target=None))
    assert done.generation == 1 and done.best_return >= 2.5  # the threshold
    assert run(replace(TINY, env_id="probes:Capped-v0", target=9.0)).generation == 3
    with pytest.raises(ValueError, match="probes:Counting-v0 has no reward_threshold: choose a"):
        run(replace(TINY, target=None))


def test_a_target_is_taken_from_the_environment_only_where_none_is_chosen():
    config = TrainConfig()
    assert with_target(config) == replace(config, target=200)
    chosen = replace(config, target=0.0)
    assert with_target(chosen) is chosen


def test_a_run_stops_at_a_confirmed_target_but_not_at_a_lucky_fitness(monkeypatch):
    fixed_scores(monkeypatch, [500, 500, 500], [10, 200, 0])
    done = run(replace(TINY, target=200))
    assert done.generation == 2 and done.best_return == 200


def test_the_elite_of_a_generation_is_its_fittest_though_another_was_carried_over(monkeypatch):
    monkeypatch.setattr(module, "evaluate", lambda agent, *_: np.full(3, float(agent.id)))
    done = run(replace(TINY, max_steps=90))
    assert [row["id"] for row in fittest(done)] == [2, 4, 6]
    assert [row["id"] for row in done.history if row["mutation_kind"] == "elite"] == [2, 4]


def test_the_history_tells_every_members_life_and_its_lineage_holds():
    done = run(replace(TINY, max_steps=300))
    generations = [done.history[first : first + 3] for first in range(0, 30, 3)]
    for number, rows in enumerate(generations):
        assert {row["generation"] for row in rows} == {number} and {
            row["steps"] for row in rows
        } == {30 * (number + 1)}
        (elite,) = (row for row in rows if row["elite"])
        assert elite["fitness"] == max(row["fitness"] for row in rows)
    for before, rows in zip(generations, generations[1:]):
        ids = {row["id"] for row in before}
        assert [row["mutation_kind"] == "elite" for row in rows] == [True, False, False]
        assert rows[0]["id"] == next(row["id"] for row in before if row["elite"])
        assert all(row["parent_id"] in ids and row["id"] not in ids for row in rows[1:])
    assert list(done.history[0]) == [
        *(
            "generation",
            "id",
            "parent_id",
            "mutation_kind",
            "mutation",
            "fitness",
            "train_return",
            "steps",
            "hidden_size",
            "activation",
        ),
        *(
            "lr_actor",
            "lr_critic",
            "batch_size",
            "learn_step",
            "gamma",
            "reward_scale",
            "tau",
            "policy_freq",
        ),
        *("policy_noise", "noise_clip", "expl_noise", "elite"),
    ]


def test_a_population_of_one_is_plain_td3():
    done = run(size=1)
    assert [row["id"] for row in done.history] == [0, 0, 0]
    (agent,), memory = setup(size=1)
    for generation in range(3):
        train_member(agent, memory, TINY, TINY.derived_seed(TRAIN, generation))
    agent.fitness = done.population[0].fitness
    agent.mutation_kind = agent.mutation = "elite"
    assert same(done.population[0], agent)


def test_an_agent_with_broken_weights_is_replaced_and_the_run_goes_on():
    config = replace(TINY, env_id="probes:Ticking-v0")
    population, memory = setup(config)
    with torch.no_grad():
        population[1].networks["actor"].weights[0].fill_(math.nan)
    done = run(config, start=Run(population, memory))
    assert done.history[1]["fitness"] == -math.inf
    actions = done.memory.latest(1000)["action"]
    assert np.isfinite(actions).all(), "the others would learn from NaN"
    assert len(actions) == 90 * 3 - 30
    assert 1 not in {row["parent_id"] for row in done.history}
    assert all(math.isfinite(row["fitness"]) for row in done.history[3:])


def test_an_agent_that_diverges_in_the_middle_of_its_slice_stops_there():
    population, memory = setup()
    for optimizer in population[1].optimizers.values():
        optimizer.param_groups[0]["lr"] = 1e30  # more than `HyperParams` allows
    population[1].train_return = 7.0  # its parent's
    done = run(replace(TINY, max_steps=30), start=Run(population, memory))
    assert [math.isfinite(row["fitness"]) for row in done.history] == [True, False, True]
    assert done.history[1]["fitness"] == -math.inf
    assert math.isnan(done.history[1]["train_return"])
    actions = done.memory.latest(1000)["action"]
    assert len(actions) == 2 * 30 and np.isfinite(actions).all()


def test_an_elite_that_diverges_in_its_confirmation_is_not_confirmed_and_the_run_goes_on(
    monkeypatch,
):
    def fly(agent, env_id, episodes, seed, max_steps):
        if episodes == TINY.eval_episodes:
            return np.full(episodes, 1.0 + len(agent.fitness))
        if len(agent.fitness) == 1:
            raise FloatingPointError
        return np.full(episodes, 5.0)

    monkeypatch.setattr(module, "evaluate", fly)
    kept = []
    config = replace(TINY, max_steps=60, confirm_episodes=3 * (TINY.eval_episodes + 1))
    run(config, options={"on_generation": kept.append})
    assert [state.best_return for state in kept] == [-math.inf, 5.0]
    assert [state.best.steps for state in kept] == [30, 60]


def test_a_confirmation_is_the_mean_of_all_its_episodes_whatever_flies_them():
    (agent,), _ = setup(size=1)
    config = replace(TINY, confirm_episodes=20)
    mean = confirm(agent, config, generation=2, parts=3)
    assert type(mean) is float and 1 <= mean <= 9
    seeds = [config.derived_seed(module.CONFIRM, 2, slot) for slot in range(3)]
    parts = [module.confirm_part(agent, config, *part) for part in zip((7, 7, 6), seeds)]
    assert mean == np.concatenate(parts).mean()
    with ThreadPoolExecutor(2) as pool:
        assert confirm(agent, config, 2, 3, pool.map) == mean
    assert confirm(agent, config, 3, 3) != mean


@pytest.mark.parametrize("size", [0, 2, 4])
def test_a_population_of_another_size_than_the_tournament_makes_is_refused(size):
    population, memory = setup()
    start = Run([*population, *population][:size], memory)
    with pytest.raises(ValueError, match=f"run has {size} agents, but the tournament makes 3"):
        train(start, TournamentSelection(2, True, 3), MUTATIONS, TINY)


def test_a_run_that_flew_no_whole_steps_of_so_many_environments_is_refused():
    start = run(replace(TINY, max_steps=30))
    with pytest.raises(ValueError, match="4 environments cannot have flown 30 steps"):
        run(replace(TINY, num_envs=4), start=start)


@pytest.mark.parametrize("space, words", [
    ({"gama": RLParameter(0.5, 0.9)}, "hp_space has 'gama', choose from lr_actor, "),
    ({"batch_size": RLParameter(8, 64)}, "hp_space.batch_size: .* whole number .*, not 8.0"),
])  # fmt: skip
def test_what_no_agent_has_or_may_have_is_refused_before_it_flies(space, words):
    population, memory = setup()
    mutations = Mutations(hp_space=space)
    generations = []
    with pytest.raises(ValueError, match=words):
        train(Run(population, memory), TournamentSelection(2, True, 3), mutations, TINY,
              on_generation=generations.append)  # fmt: skip
    assert generations == []


def test_an_environment_that_there_is_not_is_refused_with_a_target_too():
    population, memory = setup()
    config = replace(TINY, env_id="Nowhere-v0", target=1)
    with pytest.raises(ValueError, match="there is no environment 'Nowhere-v0' here"):
        train(Run(population, memory), TournamentSelection(2, True, 3), MUTATIONS, config)


def test_if_all_diverge_the_run_says_so():
    config = replace(TINY, env_id="probes:Ticking-v0")
    population, memory = setup(config)
    for agent in population:
        agent.networks["actor"].weights[0].data.fill_(math.nan)
    with pytest.raises(ArithmeticError, match="all members diverged"):
        run(config, start=Run(population, memory))


SHORT = replace(TINY, env_id="probes:Ticking-v0", num_envs=8, evo_steps=32, max_steps=64)


@pytest.fixture
def warned():
    """The warnings of a test that begins as a fresh process does."""
    module._warn_once.cache_clear()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        yield caught
    module._warn_once.cache_clear()


def test_a_slice_too_short_for_an_episode_is_warned_of_with_what_would_do(warned):
    run(SHORT)
    (warning,) = warned
    assert warning.category is UserWarning
    assert str(warning.message) == (
        "an environment flies 4 steps in a generation, but an episode may take 5: long ones are "
        "cut off; set evo_steps to 40 or more, or train_episode_steps to 4 or less"
    )


def test_a_run_shorter_than_an_episode_is_warned_of_with_the_setting_that_is_short(warned):
    run(replace(SHORT, evo_steps=400, max_steps=32))
    (warning,) = warned
    assert "flies 4 steps in a generation, but an episode may take 5" in str(warning.message)
    assert "set max_steps to 40 or more" in str(warning.message)


def test_the_warning_points_to_the_call_of_train(warned):
    train(Run(*setup(SHORT)), TournamentSelection(2, True, 3), MUTATIONS, SHORT)
    assert [warning.filename for warning in warned] == [__file__]


def test_a_warning_comes_once_for_each_message(warned):
    for config in (SHORT, SHORT, replace(SHORT, seed=1), replace(SHORT, evo_steps=24), SHORT):
        run(config)
    numbers = [int(str(warning.message).split()[3]) for warning in warned]
    assert numbers == [4, 3]


@pytest.mark.parametrize(
    "config",
    [
        replace(SHORT, evo_steps=40),
        replace(SHORT, train_episode_steps=4),
        replace(SHORT, env_id="probes:Free-v0", eval_steps=9),  # its episodes have no limit
    ],
)
def test_a_slice_that_holds_an_episode_is_not_warned_of(warned, config):
    run(config)
    assert not warned


def test_an_episode_without_a_limit_is_warned_of_because_its_evaluation_may_never_end(warned):
    run(replace(SHORT, env_id="probes:Free-v0"))
    (warning,) = warned
    assert str(warning.message) == (
        "probes:Free-v0 has no limit of an episode's length: if one never ends, its evaluation "
        "does not; set eval_steps"
    )


def test_a_last_generation_that_is_cut_short_is_not_warned_of_if_the_others_are_not(warned):
    run(replace(SHORT, evo_steps=40, max_steps=56))
    assert not warned


# Newcomers


def test_newcomers_are_spared_until_they_are_judged_and_their_run_resumes_to_the_bit():
    config = replace(TINY, max_steps=180)
    tournament = TournamentSelection(2, True, 3, judged_by=2)
    breeding = tournament, replace(MUTATIONS, restart=1e6)
    whole = train(Run(*setup(config)), *breeding, config)
    half = train(Run(*setup(config)), *breeding, replace(config, max_steps=90))
    assert text(train(half, *breeding, config)) == text(whole)

    kinds = {}
    for row in whole.history:
        kinds.setdefault(row["id"], []).append(row["mutation_kind"])
    founders, newcomers = [kinds[id] for id in range(3)], [kinds[id] for id in kinds if id > 2]
    assert all(own[0] == "none" for own in founders) and newcomers
    assert all(own[0] == "restart" and own[1:2] in ([], ["spared"]) for own in newcomers)
    assert all(set(own[2:]) <= {"elite"} for own in newcomers)
    lives = [len(agent.fitness) for agent in whole.population]
    assert min(lives) < 3 and all(agent.steps == 180 for agent in whole.population)


# What is refused


@pytest.mark.parametrize(
    "wrong, rule",
    [
        ({"seed": -1}, "a whole number from 0 to inf, not -1"),
        ({"seed": "0"}, "a whole number from 0 to inf, not '0'"),
        ({"num_envs": 0}, "a whole number from 1 to 1000, not 0"),
        ({"num_envs": 8.0}, "a whole number from 1 to 1000, not 8.0"),
        ({"evo_steps": 2}, "a whole number from 3 to inf, not 2"),
        ({"max_steps": 0}, "a whole number from 3 to inf, not 0"),
        ({"max_steps": 1e6}, "a whole number from 3 to inf, not 1000000.0"),
        ({"learning_delay": -1}, "a whole number from 0 to inf, not -1"),
        ({"memory_size": 0}, "a whole number from 1 to 1000000000000, not 0"),
        ({"noise": "pink"}, "'ou' or 'gaussian', not 'pink'"),
        ({"updates_for": "all"}, "'own' or 'everybody', not 'all'"),
        ({"draw_hp": 1}, "True or False, not 1"),
        ({"noise_mean": 2}, "a number from -1 to 1, not 2"),
        ({"noise_theta": 1.1}, "a number from 0 to 1, not 1.1"),
        ({"noise_dt": "1"}, "a number from 0 to 1, not '1'"),
        ({"noise_dt": -1.0}, "a number from 0 to 1, not -1.0"),
        ({"train_episode_steps": 0}, "None or a whole number from 1, not 0"),
        ({"eval_steps": 1.5}, "None or a whole number from 1, not 1.5"),
        ({"eval_episodes": 0}, "a whole number from 1 to 1000, not 0"),
        ({"confirm_episodes": 0}, "a whole number from 1 to 1000, not 0"),
        ({"target": math.nan}, "None or a number from -1e9 to 1e9, not nan"),
    ],
)
def test_a_setting_that_makes_no_sense_is_refused_by_name_with_the_rule(wrong, rule):
    (name,) = wrong
    with pytest.raises(ValueError, match=f"{name} must be {rule}"):
        replace(TINY, **wrong)


def test_every_setting_is_checked():
    checked = {*RANGES, "noise", "updates_for", "draw_hp", "train_episode_steps", "eval_steps"}
    checked |= {"max_steps", "evo_steps", "target"}
    assert checked | {"env_id"} == {setting.name for setting in fields(TrainConfig)}


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA here")
def test_a_run_on_cuda():
    spaces = find_spaces(TINY.env_id)
    population = create_population(2, *spaces, SMALL, hidden_size=(8,), device="cuda")
    done = run(start=Run(population, ReplayBuffer(100, *spaces, "cuda")))
    assert done.best.device.type == "cuda" and len(done.history) == 6
