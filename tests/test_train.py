"""The two loops: what is stored, what is paid for, and that a run depends on its inputs alone."""

import copy
import math
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import gymnasium as gym
import numpy as np
import probes  # noqa: F401  registers the environments
import pytest
import torch
from common import flat, same

from tinyevo import train as module
from tinyevo.buffer import ReplayBuffer
from tinyevo.mutation import Mutations, RLParameter
from tinyevo.population import create_population
from tinyevo.td3 import TD3, HyperParams
from tinyevo.tournament import TournamentSelection
from tinyevo.train import EVALUATE, TrainConfig, train, train_member
from tinyevo.workers import worker_pool

TINY = TrainConfig(
    env_id="probes:Counting-v0",
    num_envs=3,
    max_steps=90,
    evo_steps=30,
    memory_size=1000,
    eval_episodes=2,
    confirm_episodes=3,
    target=1e9,
)
SMALL = HyperParams(batch_size=8)


def setup(config=TINY, size=3, hp=SMALL, capacity=None):
    """A population and an empty memory for a configuration."""
    env = gym.make(config.env_id)
    spaces = env.observation_space, env.action_space
    population = create_population(size, *spaces, hp, hidden_size=(8,), seed=config.seed)
    return population, ReplayBuffer(capacity or config.memory_size, *spaces)


def run(
    config=TINY,
    size=3,
    executor=None,
    on_generation=lambda result: None,
    mutations=None,
    **arguments,
):
    population, memory = setup(config, size, **arguments)
    space = {"learn_step": RLParameter(1, 4, int), "lr_actor": RLParameter(1e-4, 1e-2)}
    mutations = mutations or Mutations(hp_space=space, node_bounds=(4, 16), node_steps=(2,))
    result = train(
        population,
        memory,
        TournamentSelection(2, True, size),
        mutations,
        config,
        executor,
        on_generation,
    )
    return result, memory


def text(result):
    """A result as text, to compare runs bit for bit."""
    return str(result.history) + str(
        [flat(agent.state()) for agent in [*result.population, result.elite]]
    )


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


def test_actions_are_stored_as_the_environment_got_them_and_stay_in_an_asymmetric_box():
    config = replace(TINY, evo_steps=600, learning_delay=300)
    (agent,), memory = setup(
        config, size=1, hp=HyperParams(batch_size=8, learn_step=100, expl_noise=0.8)
    )
    _, records = train_member(
        agent, memory, config, seed=0
    )  # `Counting` itself refuses what is outside
    low, high = agent.action_space.low, agent.action_space.high
    for half in (records["action"][:300], records["action"][300:]):
        assert (half >= low).all() and (half <= high).all()
        assert (half.max(axis=0) > low + 0.9 * (high - low)).all(), "part of the box is never tried"
        assert (half.min(axis=0) < low + 0.1 * (high - low)).all(), "part of the box is never tried"


@pytest.mark.parametrize("noise", ["gaussian", "ou"])
def test_exploration_is_the_policy_plus_noise_of_the_agents_strength(noise):
    config = replace(TINY, evo_steps=3000, memory_size=3000, noise=noise, noise_theta=1.0)
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
    result, memory = run(replace(TINY, num_envs=4, evo_steps=31, max_steps=66))
    assert [row["steps"] for row in result.history if row["elite"]] == [28, 56, 64]
    assert memory.counter == 3 * 64


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
    hp = HyperParams(batch_size=32, gamma=gamma, lr_critic=0.01, tau=0.2, policy_freq=1)
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
    hp = HyperParams(batch_size=64, lr_actor=3e-3, lr_critic=3e-3, expl_noise=0.4)
    config = replace(
        TINY,
        env_id="probes:Aim-v0",
        evo_steps=500,
        max_steps=2000,
        eval_episodes=20,
        confirm_episodes=50,
    )
    config = replace(config, target=-0.05)
    result, _ = run(config, size=2, hp=hp)
    assert result.confirmed >= -0.05
    obs = np.array([[0.2], [0.5], [0.8]])
    assert result.elite.get_action(obs)[:, 0] == pytest.approx([5.2, 7.0, 8.8], abs=1.0)


# A generation is a pure function of its inputs


def test_the_same_seed_gives_the_same_run_and_another_seed_another():
    first, second, third = (run(replace(TINY, seed=seed))[0] for seed in (0, 0, 1))
    assert text(first) == text(second)
    assert text(first) != text(third)


def test_two_worker_processes_give_the_same_bits_as_none():
    alone, memory = run()
    with worker_pool(2) as pool:
        together, shared = run(executor=pool)
        assert pool.flown.value == 3 * 90
    assert text(alone) == text(together)
    assert np.array_equal(memory.storage, shared.storage)


def test_any_executor_will_do():
    with ThreadPoolExecutor(2) as pool:
        threaded, _ = run(executor=pool)
    assert text(threaded) == text(run()[0])


def test_no_global_generator_is_read_or_moved():
    torch.manual_seed(1)
    np.random.seed(1)
    states = torch.get_rng_state(), np.random.get_state()[1].tolist()
    first, _ = run()
    assert (
        torch.equal(torch.get_rng_state(), states[0])
        and np.random.get_state()[1].tolist() == states[1]
    )
    torch.manual_seed(2)
    assert text(run()[0]) == text(first)


def test_every_use_of_randomness_has_a_seed_of_its_own():
    seeds = [
        replace(TINY, seed=seed).derived_seed(purpose, generation, slot)
        for seed in (0, 1)
        for purpose in range(7)
        for generation in (0, 1, 19, 20, 21, 400)
        for slot in (0, 1, 3, 4, 99)
    ]
    assert len(set(seeds)) == len(seeds)


def test_a_members_slice_depends_on_its_arguments_alone():
    (agent,), memory = setup(size=1)
    twins = [train_member(agent.clone(), copy.deepcopy(memory), TINY, seed=4) for _ in range(2)]
    assert same(twins[0][0], twins[1][0]) and np.array_equal(twins[0][1], twins[1][1])
    other = train_member(agent.clone(), copy.deepcopy(memory), TINY, seed=5)
    assert not np.array_equal(other[1]["obs"], twins[0][1]["obs"])


def test_train_leaves_the_first_population_as_it_was():
    population, memory = setup()
    before = [flat(agent.state()) for agent in population]
    train(
        population,
        memory,
        TournamentSelection(2, True, 3),
        Mutations(),
        replace(TINY, max_steps=60),
    )
    assert [flat(agent.state()) for agent in population] == before


# Sharing, selecting, stopping


def test_transitions_are_merged_step_by_step_and_member_by_member(monkeypatch):
    seen = []
    original = module.run_tasks

    def spy(function, *arguments):
        results = original(function, *arguments)
        if function is module._fly_member:
            seen.append([records for _, records in results])
        return results

    monkeypatch.setattr(module, "run_tasks", spy)
    _, memory = run(replace(TINY, max_steps=30))
    merged = memory.latest(90)
    for slot, records in enumerate(seen[0]):
        assert np.array_equal(merged[slot::3], records)


def test_a_full_memory_forgets_all_members_evenly():
    _, memory = run(replace(TINY, max_steps=30), capacity=15)
    owners = [set(memory.latest(15)["obs"][slot::3, 0]) for slot in range(3)]
    assert (
        len(memory) == 15 and memory.counter == 45
    )  # 15 of each member were still there to be merged
    assert not owners[0] & owners[1] and not owners[1] & owners[2]


def test_members_learn_from_what_the_others_experienced():
    sizes = []
    original = ReplayBuffer.sample

    def spy(memory, *arguments):
        sizes.append(len(memory))
        return original(memory, *arguments)

    ReplayBuffer.sample = spy
    try:
        run(replace(TINY, max_steps=60))
    finally:
        ReplayBuffer.sample = original
    assert max(sizes[:90]) == 30 and min(sizes[90:]) == 93 and max(sizes) == 120


def test_all_members_of_a_generation_fly_the_same_seeds_and_each_generation_new_ones(monkeypatch):
    calls = []
    original = module.evaluate

    def spy(agent, env_id, episodes, seed, max_steps=None):
        calls.append((episodes, seed, max_steps))
        return original(agent, env_id, episodes, seed, max_steps)

    monkeypatch.setattr(module, "evaluate", spy)
    run(replace(TINY, eval_steps=7))
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


def test_a_new_best_elite_is_confirmed_and_only_a_better_mean_is_kept(monkeypatch):
    flown = fixed_scores(monkeypatch, [10, 50, 30, 40], [20, 15, 25, 5])
    result, _ = run(replace(TINY, max_steps=120))
    assert len(flown) == 4 * 3  # every elite promised more than what was confirmed, two held it
    assert result.confirmed == 25


def test_an_elite_that_is_no_better_than_the_confirmed_mean_is_not_flown_again(monkeypatch):
    flown = fixed_scores(monkeypatch, [10, 19, 20], [20])
    result, _ = run()
    assert len(flown) == 3 and result.confirmed == 20


def test_a_confirmation_is_flown_in_parts_of_all_its_episodes_each_on_seeds_of_its_own(monkeypatch):
    flown = fixed_scores(monkeypatch, [10, 20, 30], [5, 15, 25])
    run(replace(TINY, confirm_episodes=100))
    assert [episodes for episodes, _ in flown] == [34, 33, 33] * 3
    assert len({seed for _, seed in flown}) == 9
    flown = fixed_scores(monkeypatch, [10, 20, 30], [5, 15, 25])
    run(replace(TINY, confirm_episodes=1))
    assert [episodes for episodes, _ in flown] == [1, 0, 0] * 3


def test_the_best_confirmed_agent_is_kept_apart_from_the_population(monkeypatch):
    fixed_scores(monkeypatch, [10, 5, 5], [20])
    snapshots = []
    result, _ = run(on_generation=lambda result: snapshots.append(flat(result.elite.state())))
    assert snapshots[0] == snapshots[1] == snapshots[2] == flat(result.elite.state())
    assert result.elite.steps == 30 and result.population[0].steps == 90


def test_a_run_stops_at_a_confirmed_target_but_not_at_a_lucky_fitness(monkeypatch):
    fixed_scores(monkeypatch, [500, 500, 500], [10, 200, 0])
    result, _ = run(replace(TINY, target=200))
    assert len(result.fitnesses) == 2 and result.confirmed == 200


def test_the_returned_population_is_the_one_that_was_evaluated_last():
    result, _ = run()
    rows = result.history[-3:]
    for agent, row, fitness in zip(result.population, rows, result.fitnesses[-1]):
        assert (agent.id, agent.mutation, agent.fitness[-1]) == (
            row["id"],
            row["mutation"],
            row["fitness"],
        )
        assert agent.fitness[-1] == fitness and agent.steps == 90 and len(agent.fitness) == 3


def test_the_history_tells_every_members_life_and_its_lineage_holds():
    result, _ = run(replace(TINY, max_steps=300))
    generations = [result.history[first : first + 3] for first in range(0, 30, 3)]
    for number, rows in enumerate(generations):
        assert {row["generation"] for row in rows} == {number} and {
            row["steps"] for row in rows
        } == {30 * (number + 1)}
        (elite,) = (row for row in rows if row["elite"])
        assert elite["fitness"] == max(row["fitness"] for row in rows)
    for before, rows in zip(generations, generations[1:]):
        ids = {row["id"] for row in before}
        assert rows[0]["mutation"] == "elite"
        assert rows[0]["id"] == next(row["id"] for row in before if row["elite"])
        assert all(row["parent_id"] in ids and row["id"] not in ids for row in rows[1:])
    assert list(result.history[0]) == [
        *(
            "generation",
            "id",
            "parent_id",
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
    result, _ = run(size=1)
    assert [row["id"] for row in result.history] == [0, 0, 0]
    (agent,), memory = setup(size=1)
    for generation in range(3):
        train_member(agent, memory, TINY, TINY.derived_seed(module.TRAIN, generation))
    agent.fitness, agent.mutation = result.population[0].fitness, result.population[0].mutation
    assert same(result.population[0], agent)


def test_an_agent_with_broken_weights_is_replaced_and_the_run_goes_on():
    config = replace(TINY, env_id="probes:Ticking-v0")
    population, memory = setup(config)
    with torch.no_grad():
        population[1].networks["actor"].weights[0].fill_(math.nan)
    result = train(population, memory, TournamentSelection(2, True, 3), Mutations(), config)
    assert result.history[1]["fitness"] == -math.inf
    assert np.isfinite(memory.latest(1000)["action"]).all(), "the others would learn from NaN"
    assert len(memory) == 90 * 3 - 30
    assert 1 not in {row["parent_id"] for row in result.history}
    assert all(math.isfinite(row["fitness"]) for row in result.history[3:])


def test_an_agent_that_diverges_in_the_middle_of_its_slice_stops_there(monkeypatch):
    population, memory = setup()
    population[1].set_hp(lr_actor=1e30, lr_critic=1e30)
    population[1].train_return = 7.0  # its parent's
    result = train(
        population,
        memory,
        TournamentSelection(2, True, 3),
        Mutations(),
        replace(TINY, max_steps=30),
    )
    assert result.fitnesses[0][1] == -math.inf and all(map(math.isfinite, result.fitnesses[0][::2]))
    assert math.isnan(result.history[1]["train_return"])
    assert len(memory) == 2 * 30 and np.isfinite(memory.latest(60)["action"]).all()


def test_an_elite_that_diverges_in_its_confirmation_is_not_confirmed_and_the_run_goes_on(
    monkeypatch,
):
    def fly(agent, env_id, episodes, seed, max_steps):
        if episodes == TINY.eval_episodes:
            return np.full(episodes, 1.0 + len(agent.fitness))
        if len(agent.fitness) == 1:
            raise FloatingPointError
        return np.full(episodes, 5.0)

    monkeypatch.setattr("tinyevo.train.evaluate", fly)
    seen = []
    population, memory = setup()
    config = replace(
        TINY, max_steps=2 * TINY.evo_steps, confirm_episodes=3 * (TINY.eval_episodes + 1)
    )
    tell = lambda result: seen.append((result.elite.id, result.confirmed))  # noqa: E731
    train(population, memory, TournamentSelection(2, True, 3), Mutations(), config, None, tell)
    assert [confirmed for _, confirmed in seen] == [-math.inf, 5.0]


@pytest.mark.parametrize("size", [0, 2, 4])
def test_a_population_of_another_size_than_the_tournament_makes_is_refused(size):
    population, memory = setup()
    with pytest.raises(ValueError, match=f"{size} agents are given, but the tournament makes 3"):
        train(
            [*population, *population][:size],
            memory,
            TournamentSelection(2, True, 3),
            Mutations(),
            TINY,
        )


def test_if_all_diverge_the_run_says_so():
    config = replace(TINY, env_id="probes:Ticking-v0")
    population, memory = setup(config)
    for agent in population:
        agent.networks["actor"].weights[0].data.fill_(math.nan)
    with pytest.raises(ArithmeticError, match="all members diverged"):
        train(population, memory, TournamentSelection(2, True, 3), Mutations(), config)


def test_a_slice_too_short_for_an_episode_is_warned_of():
    config = replace(TINY, env_id="probes:Ticking-v0", num_envs=8, evo_steps=32, max_steps=32)
    with pytest.warns(
        UserWarning, match="flies 4 steps in a generation, but an episode may take 5"
    ):
        run(config)


@pytest.mark.parametrize(
    "wrong",
    [
        {"num_envs": 0},
        {"evo_steps": 2},
        {"max_steps": 0},
        {"max_steps": 1e6},
        {"memory_size": 0},
        {"seed": -1},
        {"seed": "0"},
        {"learning_delay": -1},
        {"eval_episodes": 0},
        {"confirm_episodes": 0},
        {"train_episode_steps": 0},
        {"eval_steps": 1.5},
        {"noise": "pink"},
        {"noise_dt": "1"},
        {"noise_dt": -1.0},
        {"target": math.nan},
    ],
)
def test_a_setting_that_makes_no_sense_is_refused_by_name(wrong):
    (name,) = wrong
    with pytest.raises(ValueError, match=name):
        replace(TINY, **wrong)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA here")
def test_a_run_on_cuda():
    env = gym.make(TINY.env_id)
    spaces = env.observation_space, env.action_space
    population = create_population(2, *spaces, SMALL, hidden_size=(8,), device="cuda")
    memory = ReplayBuffer(100, *spaces, "cuda")
    result = train(
        population, memory, TournamentSelection(2, True, 2), Mutations(node_bounds=(4, 16)), TINY
    )
    assert result.elite.device.type == "cuda" and len(result.history) == 6
