"""Mutations: every kind really happens, keeps what it must keep, and stays in bounds."""

import copy
import math
from collections import Counter

import numpy as np
import pytest
import torch
from common import flat, learn, make_agent, make_batch, same

from tinyevo.mutation import Mutations, RLParameter
from tinyevo.networks import ACTIVATIONS

HP_SPACE = {
    "lr_actor": RLParameter(1e-4, 1e-2),
    "lr_critic": RLParameter(1e-4, 1e-2),
    "batch_size": RLParameter(8, 512, int),
    "learn_step": RLParameter(1, 16, int),
}
NEVER = dict.fromkeys(
    ("no_mutation", "architecture", "parameters", "activation", "rl_hp", "restart"), 0
)
SMALL = {"node_bounds": (4, 16), "node_steps": (2, 3)}


def only(kind, **arguments):
    """Mutations of one kind alone."""
    return Mutations(**{**NEVER, kind: 1, "hp_space": HP_SPACE, **SMALL, **arguments})


def mutated(mutations, agent, seed=0):
    return mutations.mutate([agent], np.random.default_rng(seed))[0]


def updated(agent):
    """The agent after one update, which must move every network."""
    before = {name: flat(network.state_dict()) for name, network in agent.networks.items()}
    for number in range(agent.hp.policy_freq):
        agent.learn(make_batch(seed=number))
    for name, network in agent.networks.items():
        assert flat(network.state_dict()) != before[name]
        assert all(torch.isfinite(parameter).all() for parameter in network.parameters())
    return agent


def assert_whole(agent):
    """The networks are alike, and every target and optimiser belongs to its network."""
    configs = [network.config for network in agent.networks.values()]
    assert len({(config.hidden_size, config.activation) for config in configs}) == 1
    for name, network in agent.networks.items():
        live = list(network.parameters())
        group = agent.optimizers[name].param_groups[0]
        assert len(group["params"]) == len(live) and all(
            a is b for a, b in zip(group["params"], live)
        )
        assert group["lr"] == getattr(agent.hp, f"lr_{name}")
        assert agent.targets[name].config == network.config
        assert not any(parameter.requires_grad for parameter in agent.targets[name].parameters())


def assert_fresh(agent, *names):
    """These networks have a target that equals them and an optimiser that remembers nothing; the
    others do not.
    """
    for name, network in agent.networks.items():
        equal = flat(agent.targets[name].state_dict()) == flat(network.state_dict())
        assert equal == (name in names)
        assert (not agent.optimizers[name].state) == (name in names)


# Hyper-parameters


def test_a_founders_number_is_log_uniform_over_its_range():
    rng = np.random.default_rng(0)
    for limits in HP_SPACE.values():
        draws = np.array([limits.draw(rng) for _ in range(4000)])
        assert {type(limits.draw(rng)) for _ in range(9)} == {limits.dtype}
        assert draws.min() >= limits.min and draws.max() <= limits.max
        if limits.dtype is int:
            assert draws.max() == limits.max
        ends = np.geomspace(limits.min, limits.max, 3)
        assert (draws <= ends[1]).mean() == pytest.approx(0.5, abs=0.08)
    with pytest.raises(ValueError, match="a range to draw from is above 0, not 0 to 1"):
        RLParameter(0, 1).draw(rng)
    for value in (1e-4, 1e-3, 0.1, 1e6):  # rounding leads out of a range of one value
        assert RLParameter(value, value).draw(rng) == value


def test_a_number_moves_by_one_of_the_two_factors_equally_often():
    rng = np.random.default_rng(0)
    count = Counter(RLParameter(0, 1000).mutate(100.0, rng) for _ in range(4000))
    assert set(count) == {80.0, 125.0}
    assert count[80.0] == pytest.approx(2000, rel=0.1)


def test_the_factors_are_the_ones_given():
    rng = np.random.default_rng(0)
    spec = RLParameter(0, 1000, shrink_factor=0.5, grow_factor=3)
    assert {spec.mutate(100.0, rng) for _ in range(50)} == {50.0, 300.0}


@pytest.mark.parametrize("name", HP_SPACE)
def test_a_number_stays_in_its_bounds_keeps_its_type_and_always_moves(name):
    spec, rng, value = HP_SPACE[name], np.random.default_rng(0), HP_SPACE[name].min
    seen = set()
    for _ in range(10_000):
        new = spec.mutate(value, rng)
        assert (
            spec.min <= new <= spec.max and type(new) is spec.dtype and not math.isclose(new, value)
        )
        value = new
        seen.add(value)
    assert {spec.min, spec.max} <= seen, "a bound is out of reach"


def test_a_learn_step_of_one_reaches_sixteen_and_comes_back():
    spec, rng = HP_SPACE["learn_step"], np.random.default_rng(0)
    walk = [1]
    for _ in range(1000):
        walk.append(spec.mutate(walk[-1], rng))
    assert 16 in walk
    top = walk.index(16)
    assert set(range(1, 5)) <= set(walk[:top]) and 1 in walk[top:]


@pytest.mark.parametrize(
    "value, moved",
    [(6, {5, 8}), (7, {6, 9}), (9, {7, 11}), (13, {10, 16}), (14, {11, 18}), (101, {81, 126})],
)
def test_a_whole_number_moves_to_the_nearest_whole_number(value, moved):
    # 6 goes to 4.8 or 7.5, 9 to 7.2 or 11.25: neither always down nor always away.
    rng, spec = np.random.default_rng(0), RLParameter(1, 512, int)
    assert {spec.mutate(value, rng) for _ in range(50)} == moved


@pytest.mark.parametrize("value, moved", [(1.0, {0.01}), (1e-6, {1e-4})])
def test_a_number_beyond_its_range_comes_back_into_it(value, moved):
    rng = np.random.default_rng(0)
    assert {RLParameter(1e-4, 1e-2).mutate(value, rng) for _ in range(20)} == moved


def test_integers_are_rounded_and_move_by_one_at_least():
    rng = np.random.default_rng(0)
    spec = RLParameter(1, 512, int)
    assert {spec.mutate(128, rng) for _ in range(50)} == {102, 160}  # 102.4 and 160
    assert {spec.mutate(2, rng) for _ in range(50)} == {1, 3}  # 1.6 and 2.5 both round to 2
    assert {spec.mutate(3, rng) for _ in range(50)} == {2, 4}  # 2.4 and 3.75
    assert spec.mutate(1, rng) == 2
    # As whole numbers, also from a range whose ends are given as floats.
    assert {type(RLParameter(1.0, 16.0, int).mutate(15, rng)) for _ in range(20)} == {int}


@pytest.mark.parametrize("name", ["lr_actor", "batch_size"])
def test_without_selection_a_number_does_not_drift_to_a_bound(name):
    spec, rng = HP_SPACE[name], np.random.default_rng(0)
    values = [spec.min]
    for _ in range(20_000):
        values.append(spec.mutate(values[-1], rng))
    middle = math.sqrt(spec.min * spec.max)
    assert middle / 1.5 < np.median(values) < middle * 1.5


def test_at_a_bound_a_number_goes_the_other_way_and_near_it_is_clipped():
    rng = np.random.default_rng(0)
    assert {RLParameter(10, 100).mutate(100.0, rng) for _ in range(20)} == {80.0}
    assert {RLParameter(10, 100).mutate(10.0, rng) for _ in range(20)} == {12.5}
    assert {RLParameter(10, 100).mutate(90.0, rng) for _ in range(20)} == {72.0, 100.0}
    assert RLParameter(3, 3, int).mutate(3, rng) == 3


def test_rounding_errors_are_no_moves():
    spec, rng = RLParameter(1e-4, 1e-2), np.random.default_rng(0)
    assert {spec.mutate(1e-4 * (1 + 1e-15), rng) for _ in range(20)} == {1e-4 * (1 + 1e-15) * 1.25}


@pytest.mark.parametrize(
    "name, spec, text",
    [
        ("batch_size", RLParameter(1000, 5000, int), "batch_size 1000 -> 1250"),
        ("lr_actor", RLParameter(1e-4, 1e-2), "lr_actor 0.0001 -> 0.000125"),
        ("lr_critic", RLParameter(1.25e-4, 1e-2), "lr_critic 0.000125 -> 0.000156"),
    ],
)
def test_the_record_has_all_digits_of_an_integer_and_three_of_another_number(name, spec, text):
    agent = make_agent()
    agent.set_hp(**{name: spec.min})
    assert mutated(only("rl_hp", hp_space={name: spec}), agent).mutation == text
    assert agent.mutation_kind == "rl_hp"


def test_a_mutation_moves_one_hyper_parameter_and_says_which_way():
    seen = set()
    for seed in range(60):
        agent = make_agent()
        old = agent.hp
        name, was, arrow, now = mutated(only("rl_hp"), agent, seed).mutation.split()
        changed = [key for key in HP_SPACE if getattr(agent.hp, key) != getattr(old, key)]
        assert changed == [name] and arrow == "->"
        assert float(was) == pytest.approx(getattr(old, name), rel=0.05)
        assert float(now) == pytest.approx(getattr(agent.hp, name), rel=0.05)
        seen.add(name)
    assert seen == set(HP_SPACE)


def test_a_hyper_parameter_that_cannot_move_gives_way_to_another():
    stuck = {name: RLParameter(0.5, 0.5) for name in ("gamma", "tau", "expl_noise")}
    mutations = only("rl_hp", hp_space={**stuck, "lr_actor": RLParameter(1e-4, 1e-2)})
    for seed in range(20):  # that the free one is drawn first every time: once in 4^20
        agent = make_agent()
        agent.set_hp(**dict.fromkeys(stuck, 0.5))
        mutated(mutations, agent, seed)
        assert agent.mutation_kind == "rl_hp" and agent.mutation.startswith("lr_actor ")
        assert {getattr(agent.hp, name) for name in stuck} == {0.5}


@pytest.mark.parametrize("name", ["lr_actor", "lr_critic"])
def test_a_new_learning_rate_is_live_in_its_optimiser_and_networks_and_moments_stay(name):
    agent = learn(make_agent())
    before = flat(agent.state()["networks"])
    live = {key: optimizer.param_groups[0]["lr"] for key, optimizer in agent.optimizers.items()}
    mutated(only("rl_hp", hp_space={name: HP_SPACE[name]}), agent)
    assert flat(agent.state()["networks"]) == before
    key = name.removeprefix("lr_")
    assert agent.optimizers[key].param_groups[0]["lr"] == getattr(agent.hp, name) != live.pop(key)
    assert all(
        agent.optimizers[other].param_groups[0]["lr"] == rate for other, rate in live.items()
    )
    assert_whole(updated(agent))


def test_one_agents_mutation_changes_neither_its_sisters_nor_the_search_space():
    sisters = [make_agent(seed) for seed in range(3)]
    mutations = only("rl_hp")
    space = copy.deepcopy(mutations.hp_space)
    before = [agent.hp for agent in sisters[1:]]
    mutated(mutations, sisters[0])
    assert [agent.hp for agent in sisters[1:]] == before
    assert mutations.hp_space == space


@pytest.mark.parametrize(
    "wrong, rule",
    [
        ({"min": 2}, "max must be a number from 2 to 1000000000.0, not 1"),
        ({"min": -math.inf}, "min must be a number from -1000000000.0 to 1000000000.0, not -inf"),
        ({"max": math.inf}, "max must be a number from 0 to 1000000000.0, not inf"),
        ({"min": math.nan}, "min must be a number from .* not nan"),
        ({"max": "1"}, "max must be a number from .* not '1'"),
        ({"min": False}, "min must be a number from .* not False"),
        ({"dtype": str}, "dtype of a range must be int or float, not <class 'str'>"),
        ({"dtype": int, "min": -9}, "min must be a number from 0 to 1000000000.0, not -9"),
        ({"dtype": int, "max": 1.5}, "a range of int has whole ends, not 0 and 1.5"),
        ({"shrink_factor": 1.0}, "shrink_factor must be a number from 0.001 to 0.999, not 1.0"),
        ({"shrink_factor": 0.0}, "shrink_factor must be a number from 0.001 to 0.999, not 0.0"),
        ({"grow_factor": 1.0}, "grow_factor must be a number from 1.001 to 1000, not 1.0"),
    ],
)
def test_a_range_that_makes_no_sense_is_refused_with_the_rule(wrong, rule):
    with pytest.raises(ValueError, match=rule):
        RLParameter(**{"min": 0, "max": 1, **wrong})


# Architecture


def edit_of(old, new):
    """Which edit leads from one tuple of hidden sizes to the other."""
    if len(old) != len(new):
        return "add_layer" if len(new) > len(old) else "remove_layer"
    return "add_nodes" if sum(new) > sum(old) else "remove_nodes"


def surviving(old, new, name):
    """Whether the old network's tensors stand bit for bit in the new one after the edit `name`."""
    if name == "add_layer":
        pairs = list(
            zip([*old.weights[:-1], old.weights[-1]], [*new.weights[:-2], new.weights[-1]])
        )
        return all(torch.equal(a, b) for a, b in pairs)
    if name == "remove_layer":
        width = min(old.config.hidden_size[-2:])
        kept = all(torch.equal(a, b) for a, b in zip(old.weights[:-2], new.weights[:-1]))
        return kept and torch.equal(old.weights[-1][:, :width], new.weights[-1][:, :width])
    for layer, (a, b) in enumerate(zip(old.biases, new.biases)):
        small, large = sorted([a, b], key=lambda tensor: tensor.shape[2])
        if not all(
            set(row[0].tolist()) <= set(other[0].tolist()) for row, other in zip(small, large)
        ):
            return False
        if name == "add_nodes":
            (_, inputs, outputs), grown = old.weights[layer].shape, new.weights[layer]
            if not torch.equal(old.weights[layer], grown[:, :inputs, :outputs]):
                return False
    return True


@pytest.mark.parametrize("seed", range(30))
def test_an_architecture_mutation_edits_all_networks_alike_and_keeps_surviving_weights(seed):
    agent = learn(make_agent())
    old = dict(agent.networks)
    obs = torch.randn(20, 3, generator=torch.Generator().manual_seed(0))
    action = agent.get_action(obs.numpy())
    mutated(only("architecture", new_layer_prob=0.5), agent, seed)
    assert agent.hidden_size != (8, 8)
    assert agent.mutation_kind == "architecture"
    assert agent.mutation == f"architecture 8x8 -> {'x'.join(map(str, agent.hidden_size))}"
    name = edit_of((8, 8), agent.hidden_size)
    assert all(surviving(old[key], network, name) for key, network in agent.networks.items())
    if name.startswith("add"):  # growing preserves the function of a relu network
        assert np.abs(agent.get_action(obs.numpy()) - action).max() < 1e-5
        pairs = torch.cat([obs, torch.as_tensor(action)], -1)
        torch.testing.assert_close(
            agent.networks["critic"](pairs), old["critic"](pairs), rtol=0, atol=1e-6
        )
    assert_whole(agent)
    assert_fresh(agent, "actor", "critic")
    assert_whole(updated(agent))


@pytest.mark.parametrize("layers, sizes", [(0, (20, 3)), (1, (8,) * 5)])
def test_an_architecture_beyond_its_bounds_moves_towards_them_alone(layers, sizes):
    agent, rng = make_agent(hidden_size=sizes), np.random.default_rng(0)
    mutations = only("architecture", new_layer_prob=layers, layer_bounds=(1, 3))
    for _ in range(60):
        before = agent.hidden_size
        mutations.mutate([agent], rng)
        after = agent.hidden_size
        if layers:
            assert len(before) <= 3 or len(after) < len(before)
        else:
            assert before[0] <= 16 or after[0] <= before[0]
            assert before[1] >= 4 or after[1] >= before[1]
    assert all(4 <= size <= 16 for size in agent.hidden_size) and len(agent.hidden_size) <= 3


def test_bounds_are_reached_and_never_passed_in_ten_thousand_mutations():
    class Shape:
        """A network that only has a shape, so that ten thousand edits take no time."""

        def __init__(self, hidden_size):
            self.config = self
            self.hidden_size = hidden_size

        def add_layer(self):
            return Shape((*self.hidden_size, self.hidden_size[-1]))

        def remove_layer(self):
            return Shape(self.hidden_size[:-1])

        def add_nodes(self, layer, n, rng):
            return Shape(
                (
                    *self.hidden_size[:layer],
                    self.hidden_size[layer] + n,
                    *self.hidden_size[layer + 1 :],
                )
            )

        def remove_nodes(self, layer, n, rng):
            return self.add_nodes(layer, -n, rng)

    class Agent:
        channels = ()

        def __init__(self):
            self.networks, self.mutation_kind = {"actor": Shape((64, 64))}, "none"

        @property
        def hidden_size(self):
            return self.networks["actor"].hidden_size

        def set_networks(self, **networks):
            self.networks = networks

    agent, rng = Agent(), np.random.default_rng(0)
    mutations = Mutations(**{**NEVER, "architecture": 1})
    depths, widths = set(), set()
    for _ in range(10_000):
        before = agent.hidden_size
        mutations.mutate([agent], rng)
        sizes = agent.hidden_size
        assert sizes != before
        depths.add(len(sizes))
        widths.update(sizes)
    assert depths == {1, 2, 3}
    assert min(widths) == 16 and max(widths) == 256


def test_layers_change_as_often_as_asked_and_both_ways():
    rng = np.random.default_rng(0)
    mutations = only("architecture", new_layer_prob=0.3, layer_bounds=(1, 3))
    agents = [mutations.mutate([make_agent()], rng)[0] for _ in range(1000)]
    count = Counter(edit_of((8, 8), agent.hidden_size) for agent in agents)
    assert count["add_layer"] + count["remove_layer"] == pytest.approx(300, rel=0.15)
    assert count["add_layer"] == pytest.approx(150, rel=0.25)
    assert count["add_nodes"] == pytest.approx(350, rel=0.15)


def test_the_number_of_nodes_is_one_of_the_steps_in_any_layer():
    rng = np.random.default_rng(0)
    mutations = only("architecture", new_layer_prob=0.0)
    seen = {mutations.mutate([make_agent()], rng)[0].hidden_size for _ in range(200)}
    assert seen == {(8 + n, 8) for n in (-3, -2, 2, 3)} | {(8, 8 + n) for n in (-3, -2, 2, 3)}


def test_every_hidden_layer_may_change_its_width():
    mutations = only("architecture", new_layer_prob=0)
    changed = set()
    for seed in range(40):  # a layer of three is missed once in 1.5^40
        agent = mutated(mutations, make_agent(hidden_size=(8, 8, 8)), seed)
        changed |= {layer for layer, nodes in enumerate(agent.hidden_size) if nodes != 8}
    assert changed == {0, 1, 2}


def test_a_bound_is_reached_even_if_it_is_one_node_away():
    edges = {"node_bounds": (7, 9), "new_layer_prob": 0}
    seen = {
        mutated(only("architecture", **edges), make_agent(), seed).hidden_size for seed in range(40)
    }
    assert seen == {(7, 8), (9, 8), (8, 7), (8, 9)}


BOUNDS = [("layer_bounds", (2, 2), 0.99, 1.0), ("node_bounds", (8, 8), 0.01, 0.0)]


@pytest.mark.parametrize("name, bounds, likely, sure", BOUNDS)
def test_an_edit_at_its_bound_gives_way_to_the_other_sort_unless_that_has_no_probability(
    name, bounds, likely, sure
):
    for seed in range(10):
        mutations = only("architecture", new_layer_prob=likely, **{name: bounds})
        assert mutated(mutations, make_agent(), seed).hidden_size != (8, 8)
        mutations = only("architecture", new_layer_prob=sure, **{name: bounds})
        assert mutated(mutations, make_agent(), seed).mutation_kind == "none"


# Weights of the policy


def changes(before, after):
    """Entry by entry: old and new values of the first weight matrix."""
    return before.weights[0].flatten(), after.weights[0].flatten()


def test_only_weight_matrices_of_the_policy_change():
    agent = learn(make_agent())
    before = copy.deepcopy(agent.networks)
    critic = flat(agent.state()["networks"]["critic"])
    assert mutated(only("parameters"), agent).mutation_kind == "parameters"
    assert flat(agent.state()["networks"]["critic"]) == critic, (
        "the critic, its target or its moments changed"
    )
    old, new = before["actor"], agent.networks["actor"]
    assert all(torch.equal(a, b) for a, b in zip(old.biases, new.biases))
    assert all(not torch.equal(a, b) for a, b in zip(old.weights, new.weights))
    assert_whole(agent)
    assert_fresh(agent, "actor")
    assert_whole(updated(agent))


@pytest.mark.parametrize("grown", [False, True])
def test_the_record_tells_how_many_weights_changed(grown):
    agent = make_agent()
    if grown:  # relative noise cannot move the zeros of an identity layer
        agent.set_networks(
            **{name: network.add_layer() for name, network in agent.networks.items()}
        )
    before = copy.deepcopy(agent.networks["actor"])
    text = mutated(only("parameters"), agent).mutation
    touched = sum(
        int((a != b).sum()) for a, b in zip(before.weights, agent.networks["actor"].weights)
    )
    assert text == f"parameters {touched} weights"


@pytest.mark.parametrize("share", [0.1, 0.4])
def test_at_most_the_given_share_of_entries_changes_and_that_share_is_reached(share):
    counts = []
    for seed in range(300):
        agent = make_agent(hidden_size=(10, 10))
        old = copy.deepcopy(agent.networks["actor"])
        mutated(only("parameters", mutated_share=share), agent, seed)
        counts.append(
            [int((a != b).sum()) for a, b in zip(old.weights, agent.networks["actor"].weights)]
        )
    most = [math.ceil(share * size) for size in (30, 100, 20)]
    assert np.max(counts, axis=0).tolist() == most
    assert np.min(counts, axis=0).tolist() == [1, 1, 1]


def big_policy_mutation(**arguments):
    agent = make_agent(hidden_size=(256, 256))
    before = agent.networks["actor"].weights[1].flatten().clone()
    mutated(only("parameters", node_bounds=(1, 512), mutated_share=1.0, **arguments), agent, seed=4)
    after = agent.networks["actor"].weights[1].flatten()
    moved = before != after
    assert moved.sum() > 5000
    return before[moved], after[moved]


def test_ordinary_noise_is_relative_to_the_weight():
    before, after = big_policy_mutation(super_prob=0, reset_prob=0, mutation_sd=0.1)
    relative = (after - before) / before.abs()
    assert relative.mean().item() == pytest.approx(0, abs=0.01)
    assert relative.std().item() == pytest.approx(0.1, rel=0.05)


def test_super_mutations_are_relative_too_and_a_hundred_times_as_strong():
    before, after = big_policy_mutation(super_prob=1, reset_prob=0)
    assert ((after - before) / before.abs()).std().item() == pytest.approx(10, rel=0.05)


def test_super_mutations_start_from_the_old_weight():
    before, after = big_policy_mutation(super_prob=1, reset_prob=0, super_sd=1e-3)
    assert ((after - before) / before.abs()).abs().max() < 0.01  # ten standard deviations


def test_a_reset_forgets_the_old_weight():
    agent = make_agent()
    for weight in agent.networks["actor"].weights:
        weight.data.fill_(100.0)
    mutated(only("parameters", super_prob=0, reset_prob=1), agent)
    weights = torch.cat([weight.flatten() for weight in agent.networks["actor"].weights])
    assert weights[weights != 100].abs().max() < 10  # ten standard deviations


def test_a_reset_weight_is_drawn_from_the_standard_normal():
    before, after = big_policy_mutation(super_prob=0, reset_prob=1)
    assert after.mean().item() == pytest.approx(0, abs=0.05)
    assert after.std().item() == pytest.approx(1, rel=0.05)
    assert abs(np.corrcoef(before.detach(), after.detach())[0, 1]) < 0.05


def test_the_bands_have_their_shares():
    before, after = big_policy_mutation(super_prob=0.05, reset_prob=0.05, mutation_sd=1e-6)
    relative = ((after - before) / before.abs()).abs()
    ordinary = relative < 1e-4
    assert 1 - ordinary.float().mean().item() == pytest.approx(0.1, rel=0.15)
    before, after = big_policy_mutation(super_prob=0.05, reset_prob=0.0, mutation_sd=1e-6)
    assert ((after - before).abs() > 1e-4 * before.abs()).float().mean().item() == pytest.approx(
        0.05, rel=0.15
    )


def test_no_noise_and_no_bands_is_the_identity():
    agent = learn(make_agent())
    before = agent.clone()
    mutated(only("parameters", mutation_sd=0, super_prob=0, reset_prob=0), agent)
    assert agent.mutation_kind == agent.mutation == "none"
    assert same(agent, before)


# Activation


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_an_activation_mutation_always_picks_a_different_one_and_any_of_them(activation):
    seen = set()
    for seed in range(40):
        agent = mutated(only("activation"), make_agent(activation=activation), seed)
        assert agent.mutation_kind == "activation"
        assert agent.mutation == f"activation {activation} -> {agent.activation}"
        seen.add(agent.activation)
    assert seen == set(ACTIVATIONS) - {activation}


def test_an_activation_mutation_keeps_weights_and_output_activation_in_all_networks():
    agent = learn(make_agent())
    before = {name: flat(network.state_dict()) for name, network in agent.networks.items()}
    outputs = {name: network.config.output_activation for name, network in agent.networks.items()}
    mutated(only("activation"), agent)
    assert {name: flat(network.state_dict()) for name, network in agent.networks.items()} == before
    assert {
        name: network.config.output_activation for name, network in agent.networks.items()
    } == outputs
    assert outputs == {"actor": "tanh", "critic": None}
    assert_whole(agent)
    assert_fresh(agent, "actor", "critic")
    assert_whole(updated(agent))


def test_the_default_choice_is_every_activation_there_is():
    assert Mutations().activations == tuple(ACTIVATIONS)


# The restart


def test_a_restart_makes_fresh_networks_of_the_same_architecture_and_moves_every_hyper_parameter():
    agent = learn(make_agent(hidden_size=(6, 4), activation="gelu"))
    agent.id, agent.parent_id, agent.fitness = 7, 3, [1.0, 2.0]
    before = agent.clone()
    mutated(only("restart"), agent)
    assert agent.mutation_kind == agent.mutation == "restart"
    assert_whole(agent)
    assert_fresh(agent, "actor", "critic")
    for name, network in agent.networks.items():
        assert network.config == before.networks[name].config
        for new, old in zip(network.parameters(), before.networks[name].parameters()):
            assert not (new == old).any()
        for weight in network.weights:
            assert weight.abs().max() <= weight.shape[1] ** -0.5, "as drawn at first"
    for name, limits in HP_SPACE.items():
        old = getattr(before.hp, name)
        moved = {limits._moved(old, limits.shrink_factor), limits._moved(old, limits.grow_factor)}
        assert getattr(agent.hp, name) in moved - {old}
    assert agent.hp.gamma == before.hp.gamma
    assert agent.fitness == [] and agent.steps == before.steps and agent.updates == before.updates
    assert (agent.id, agent.parent_id) == (7, 3)
    updated(agent)


def test_a_restart_draws_from_its_generator_and_from_no_other():
    first, second, third = (
        mutated(only("restart"), make_agent(), seed).networks["critic"].state_dict()
        for seed in (1, 1, 2)
    )
    assert flat(first) == flat(second) != flat(third)
    state = torch.get_rng_state()
    mutated(only("restart"), make_agent())
    assert torch.equal(torch.get_rng_state(), state)


def test_who_is_spared_is_not_mutated_even_where_the_elite_is():
    for kind in NEVER:
        agent = make_agent()
        agent.mutation_kind = agent.mutation = "spared"
        before = agent.clone()
        assert same(mutated(only(kind, mutate_elite=True), agent), before)


# The draw


def test_kinds_are_drawn_in_proportion_to_their_weights():
    # 0.4 + 4 x 0.2 is 1.2: relative weights, so a third of the members stay as they are.
    mutations, rng = Mutations(hp_space=HP_SPACE, **SMALL), np.random.default_rng(0)
    count = Counter(mutations.mutate([make_agent()], rng)[0].mutation_kind for _ in range(1800))
    expected = {
        "none": 600,
        "architecture": 300,
        "parameters": 300,
        "activation": 300,
        "rl_hp": 300,
    }
    assert {kind: count[kind] for kind in expected} == pytest.approx(expected, rel=0.2)
    assert count.total() == 1800 and set(count) == set(expected)


@pytest.mark.parametrize("kind", [*NEVER])
def test_a_kind_of_weight_zero_never_happens(kind):
    weights = {**dict.fromkeys(NEVER, 1), kind: 0}
    mutations, rng = Mutations(**weights, hp_space=HP_SPACE, **SMALL), np.random.default_rng(0)
    kinds = {mutations.mutate([make_agent()], rng)[0].mutation_kind for _ in range(150)}
    assert kinds == {name.replace("no_mutation", "none") for name in NEVER if name != kind}


def test_a_kind_that_cannot_apply_is_drawn_again_among_the_others():
    stuck = {"layer_bounds": (2, 2), "node_bounds": (8, 8), "activations": ("relu",)}
    weights = {**NEVER, "architecture": 1000, "activation": 1000, "rl_hp": 0.001}
    for seed in range(20):
        agent = mutated(Mutations(**weights, hp_space=HP_SPACE, **stuck), make_agent(), seed)
        assert agent.mutation_kind == "rl_hp"
        assert agent.hidden_size == (8, 8) and agent.activation == "relu"


def test_after_a_draw_that_cannot_apply_the_other_kinds_keep_their_proportions():
    # The architecture cannot move: of the others, one mutation in four is of a hyper-parameter.
    weights = {**NEVER, "architecture": 4, "activation": 3, "rl_hp": 1}
    stuck = {"layer_bounds": (2, 2), "node_bounds": (8, 8)}
    mutations = Mutations(**weights, hp_space={"tau": RLParameter(1e-6, 1)}, **stuck)
    agent, rng = make_agent(), np.random.default_rng(0)
    count = Counter(mutations.mutate([agent], rng)[0].mutation_kind for _ in range(300))
    assert set(count) == {"activation", "rl_hp"}
    # 75 are expected, give or take 7.5. Alike they would be 150; with the weight of the
    # architecture on top of the first or the last, 38 or 188.
    assert count["rl_hp"] == pytest.approx(75, abs=23)


def test_if_nothing_applies_the_record_says_none_and_nothing_is_touched():
    agent = learn(make_agent())
    before = agent.clone()
    fixed = {"learn_step": RLParameter(agent.hp.learn_step, agent.hp.learn_step, int)}
    mutations = Mutations(
        **{**NEVER, "architecture": 1, "rl_hp": 1},
        hp_space=fixed,
        layer_bounds=(2, 2),
        node_bounds=(8, 8),
    )
    mutated(mutations, agent)
    assert agent.mutation_kind == agent.mutation == "none"
    assert same(agent, before)


def test_no_mutation_leaves_an_agent_bit_for_bit():
    agent = learn(make_agent())
    before = agent.clone()
    mutated(only("no_mutation"), agent)
    assert agent.mutation_kind == agent.mutation == "none"
    assert same(agent, before)


@pytest.mark.parametrize("kind", [*NEVER])
def test_the_elite_is_never_mutated_unless_asked(kind):
    elite = learn(make_agent())
    elite.mutation_kind, elite.mutation = "elite", "whatever a reader is told"
    before = elite.clone()
    mutated(only(kind), elite)
    assert same(elite, before)
    mutated(only(kind, mutate_elite=True), elite)
    assert elite.mutation_kind == kind.replace("no_mutation", "none")


@pytest.mark.parametrize("place", [0, 1, 2])
def test_the_elite_is_known_by_its_mark_wherever_it_stands(place):
    population = [make_agent(slot) for slot in range(3)]
    population[place].mutation_kind = population[place].mutation = "elite"
    only("activation").mutate(population, np.random.default_rng(0))
    kinds = [agent.mutation_kind for agent in population]
    assert kinds == ["elite" if slot == place else "activation" for slot in range(3)]


def test_who_stands_first_is_mutated_like_everybody_else():
    population = [make_agent(slot) for slot in range(3)]
    only("activation").mutate(population, np.random.default_rng(0))
    assert [agent.mutation_kind for agent in population] == ["activation"] * 3


def test_only_the_kind_says_who_is_the_elite():
    child = make_agent()
    child.mutation = "elite"
    assert mutated(only("activation"), child).mutation_kind == "activation"


def test_the_same_generator_mutates_the_same_and_another_one_does_not():
    def run(seed):
        mutations = Mutations(hp_space=HP_SPACE, **SMALL)
        agents = [make_agent(slot) for slot in range(6)]
        return mutations.mutate(agents, np.random.default_rng(seed))

    first, second, third = run(1), run(1), run(2)
    assert all(same(a, b) for a, b in zip(first, second))
    assert not all(same(a, b) for a, b in zip(first, third))


def test_no_global_generator_is_read():
    torch_state, numpy_state = torch.get_rng_state(), np.random.get_state()[1].tolist()
    for kind in NEVER:
        mutated(only(kind), make_agent())
    assert torch.equal(torch.get_rng_state(), torch_state)
    assert np.random.get_state()[1].tolist() == numpy_state


NOT_SIZES = "must be whole numbers of at least 1"


@pytest.mark.parametrize(
    "wrong, rule",
    [
        (NEVER, "the weights of all kinds of mutation are 0: raise one of them"),
        ({"architecture": -0.1}, "architecture must be a number from 0 to 1000000000.0, not -0.1"),
        ({"rl_hp": math.nan}, "rl_hp must be a number from 0 to 1000000000.0, not nan"),
        ({"parameters": math.inf}, "parameters must be a number from 0 to .* not inf"),
        ({"activation": "1"}, "activation must be a number from 0 to .* not '1'"),
        ({"no_mutation": True}, "no_mutation must be a number from 0 to .* not True"),
        ({"new_layer_prob": 1.1}, "new_layer_prob must be a number from 0 to 1, not 1.1"),
        ({"mutation_sd": -1}, "mutation_sd must be a number from 0 to .* not -1"),
        ({"mutated_share": 0}, "mutated_share must be a number from 1e-09 to 1, not 0"),
        ({"mutated_share": 1.5}, "mutated_share must be a number from 1e-09 to 1, not 1.5"),
        ({"super_prob": -0.1}, "super_prob must be a number from 0 to 1, not -0.1"),
        ({"super_sd": math.nan}, "super_sd must be a number from 0 to .* not nan"),
        ({"reset_prob": 2}, "reset_prob must be a number from 0 to 1, not 2"),
        (
            {"super_prob": 0.75, "reset_prob": 0.5},
            r"super_prob \+ reset_prob must be a number from 0 to 1, not 1.25",
        ),
        ({"layer_bounds": (3, 1)}, r"layer_bounds must be \(fewest, most\), not \(3, 1\)"),
        ({"layer_bounds": (1, 2, 3)}, r"layer_bounds must be \(fewest, most\), not \(1, 2, 3\)"),
        ({"layer_bounds": (0, 3)}, f"layer_bounds {NOT_SIZES}"),
        ({"node_bounds": (256, 16)}, r"node_bounds must be \(fewest, most\), not \(256, 16\)"),
        ({"node_bounds": (0, 16)}, f"node_bounds {NOT_SIZES}"),
        ({"node_bounds": 16}, "node_bounds must be a tuple of whole numbers, not 16"),
        ({"node_steps": ()}, r"node_steps must be a tuple of whole numbers, not \(\)"),
        ({"node_steps": (0, 8)}, f"node_steps {NOT_SIZES}"),
        ({"node_steps": (8.0,)}, f"node_steps {NOT_SIZES}"),
        ({"conv_bounds": (3, 1)}, r"conv_bounds must be \(fewest, most\), not \(3, 1\)"),
        ({"channel_bounds": (64, 8)}, r"channel_bounds must be \(fewest, most\), not \(64, 8\)"),
        ({"channel_steps": (0,)}, f"channel_steps {NOT_SIZES}"),
        ({"restart": -1}, "restart must be a number from 0 to"),
        ({"activations": "relu"}, "activations must be a tuple of names, not 'relu'"),
        ({"hp_space": ["gamma"]}, "hp_space must be a dict of RLParameter by name"),
        ({"hp_space": {"gamma": (0, 1)}}, r"hp_space\['gamma'\] must be an RLParameter"),
    ],
)
def test_a_setting_that_makes_no_sense_is_refused_by_name_with_the_rule(wrong, rule):
    with pytest.raises(ValueError, match=rule):
        Mutations(**wrong)


def test_lists_of_sizes_and_of_names_are_copied_into_tuples():
    lists = {
        "layer_bounds": [1, 2],
        "node_bounds": [4, 8],
        "node_steps": [2],
        "activations": ["elu"],
    }
    mutations = Mutations(**lists)
    assert {name: list(getattr(mutations, name)) for name in lists} == lists
    assert all(type(getattr(mutations, name)) is tuple for name in lists)
