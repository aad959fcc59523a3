"""EvolvableMLP: edits keep what was learned."""

import copy
import math
from dataclasses import FrozenInstanceError, asdict

import numpy as np
import pytest
import torch
from torch import nn

from tinyevo.networks import ACTIVATIONS, EvolvableMLP, add_units


def make(hidden_size=(5, 7), seed=0, **arguments):
    return EvolvableMLP(
        3, 2, hidden_size, generator=torch.Generator().manual_seed(seed), **arguments
    )


def inputs(batch=32):
    return torch.randn(batch, 3, generator=torch.Generator().manual_seed(9))


def rng():
    return np.random.default_rng(0)


ENSEMBLES = pytest.mark.parametrize("ensemble_size", [1, 2])


def test_a_network_computes_what_a_stack_of_linear_layers_computes():
    network = make(activation="elu", output_activation="tanh")
    layers = []
    for weight, bias in zip(network.weights, network.biases):
        linear = nn.Linear(weight.shape[1], weight.shape[2])
        linear.weight.data, linear.bias.data = weight[0].T.clone(), bias[0, 0].clone()
        layers += [linear, nn.ELU()]
    oracle = nn.Sequential(*layers[:-1], nn.Tanh())
    torch.testing.assert_close(network(inputs()), oracle(inputs()))


@pytest.mark.parametrize(
    "name, formula",
    [
        ("relu", lambda x: max(x, 0)),
        ("elu", lambda x: x if x > 0 else math.exp(x) - 1),
        ("gelu", lambda x: x * (1 + math.erf(x / 2**0.5)) / 2),
        ("tanh", math.tanh),
    ],
)
def test_an_activation_is_the_formula_of_its_name(name, formula):
    network = EvolvableMLP(1, 1, (1,), activation=name)
    for weight, bias in zip(network.weights, network.biases):  # f(x) and nothing else
        weight.data.fill_(1.0)
        bias.data.zero_()
    x = [-3.0, -1.0, -0.5, 0.0, 0.5, 1.0, 3.0]
    outputs = network(torch.tensor(x)[:, None]).flatten().tolist()
    assert outputs == pytest.approx([formula(value) for value in x], abs=1e-6)


def test_an_ensemble_computes_what_its_members_compute_alone():
    pair = make(ensemble_size=2)
    assert pair(inputs()).shape == (2, 32, 2)
    for index, output in enumerate(pair(inputs())):
        alone = make()
        for mine, theirs in zip(alone.parameters(), pair.parameters()):
            mine.data = theirs.data[index : index + 1]
        torch.testing.assert_close(output, alone(inputs()))


def test_the_first_of_an_ensemble_can_be_asked_alone():
    pair = make(ensemble_size=2)
    first = pair(inputs(), first_only=True)
    torch.testing.assert_close(first, pair(inputs())[0])
    asked = torch.autograd.grad(first.square().sum(), list(pair.parameters()))
    for gradient in asked:
        assert gradient[0].any() and not gradient[1].any()


def test_the_members_of_an_ensemble_begin_different():
    q1, q2 = make(ensemble_size=2)(inputs())
    assert not torch.allclose(q1, q2)


def test_a_single_network_has_no_ensemble_axis():
    assert make()(inputs()).shape == (32, 2)


def test_initial_weights_are_uniform_within_one_over_the_root_of_the_inputs():
    network = EvolvableMLP(100, 1, (400,), generator=torch.Generator().manual_seed(0))
    for tensor in (network.weights[0], network.biases[0]):
        assert tensor.abs().max() <= 0.1
        assert tensor.std().item() == pytest.approx(0.2 / 12**0.5, rel=0.1)


@pytest.mark.parametrize("tensor", ["weights", "biases"])
def test_the_bound_of_the_initial_weights_counts_no_bias_as_an_input(tensor):
    # With one input the bound is 1. The largest of 2000 draws misses 0.99 once in e^20 times; if
    # the bias counted, it would be 0.71 at most.
    fresh = EvolvableMLP(1, 1, (2000,), generator=torch.Generator().manual_seed(0))
    added = EvolvableMLP(1, 1, (1,)).add_nodes(0, 2000, rng())
    for network in (fresh, added):
        assert 0.99 < getattr(network, tensor)[0].abs().max() <= 1


def test_the_generator_decides_the_weights_and_no_global_one_is_read():
    before = torch.get_rng_state()
    assert torch.equal(make(seed=1)(inputs()), make(seed=1)(inputs()))
    assert not torch.equal(make(seed=1)(inputs()), make(seed=2)(inputs()))
    make().add_nodes(0, 3, rng()).add_layer().remove_layer().remove_nodes(
        0, 2, rng()
    ).change_activation("tanh")
    assert torch.equal(before, torch.get_rng_state())


@ENSEMBLES
def test_rebuilding_from_the_config_gives_the_same_shape(ensemble_size):
    network = make(
        ensemble_size=ensemble_size, activation="gelu", output_activation="tanh"
    ).add_layer()
    rebuilt = EvolvableMLP(**asdict(network.config))
    assert rebuilt.config == network.config
    assert [p.shape for p in rebuilt.parameters()] == [p.shape for p in network.parameters()]


def test_the_config_is_frozen_and_a_list_of_sizes_is_copied():
    sizes = [5, 7]
    network = make(sizes)
    sizes.append(9)
    assert network.config.hidden_size == (5, 7)
    with pytest.raises(FrozenInstanceError):
        network.config.activation = "tanh"


@pytest.mark.parametrize(
    "wrong, rule",
    [
        ({"hidden_size": ()}, r"hidden_size must be a tuple such as \(64, 64\), not \(\)"),
        ({"hidden_size": 64}, r"hidden_size must be a tuple such as \(64, 64\), not 64"),
        ({"hidden_size": "64"}, r"hidden_size must be a tuple such as \(64, 64\), not '64'"),
        ({"hidden_size": (0,)}, "each of hidden_size must be whole and from 1 to 1e9, not 0"),
        (
            {"hidden_size": (10**20,)},
            "each of hidden_size must be whole and from 1 to 1e9, not 1000",
        ),
        ({"hidden_size": (2.0,)}, "each of hidden_size must be whole and from 1 to 1e9, not 2.0"),
        (
            {"hidden_size": (True,)},
            "each of hidden_size must be whole and from 1 to 1e9, not True",
        ),
        ({"ensemble_size": 0}, "each size of a network must be whole and from 1 to 1e9, not 0"),
        ({"num_inputs": 0}, "each size of a network must be whole and from 1 to 1e9, not 0"),
        ({"num_outputs": 0}, "each size of a network must be whole and from 1 to 1e9, not 0"),
        ({"activation": "swash"}, "unknown activation 'swash', choose from relu, elu, gelu, tanh"),
        ({"output_activation": "swash"}, "unknown activation 'swash', choose from relu"),
    ],
)
def test_a_shape_that_makes_no_network_is_refused(wrong, rule):
    with pytest.raises(ValueError, match=rule):
        EvolvableMLP(**{"num_inputs": 3, "num_outputs": 2, **wrong})


EDITS = {
    "add_layer": lambda network: network.add_layer(),
    "remove_layer": lambda network: network.remove_layer(),
    "add_nodes": lambda network: network.add_nodes(0, 4, rng()),
    "remove_nodes": lambda network: network.remove_nodes(1, 3, rng()),
    "change_activation": lambda network: network.change_activation("tanh"),
}


@ENSEMBLES
@pytest.mark.parametrize("edit", EDITS)
def test_an_edit_returns_a_new_network_and_leaves_the_old_one_as_it_was(edit, ensemble_size):
    network = make(ensemble_size=ensemble_size)
    before, config = copy.deepcopy(network.state_dict()), network.config
    new = EDITS[edit](network)
    for parameter in new.parameters():
        assert parameter.requires_grad and parameter.is_leaf
        parameter.data.zero_()
    assert network.config == config and new.config != config
    assert all(torch.equal(value, network.state_dict()[name]) for name, value in before.items())


@ENSEMBLES
@pytest.mark.parametrize("edit", EDITS)
def test_after_an_edit_the_tensors_have_the_shapes_of_the_config_and_learn(edit, ensemble_size):
    new = EDITS[edit](make(ensemble_size=ensemble_size))
    rebuilt = EvolvableMLP(**asdict(new.config))
    assert [p.shape for p in new.parameters()] == [p.shape for p in rebuilt.parameters()]
    new(inputs()).square().sum().backward()
    assert all(parameter.grad is not None for parameter in new.parameters())


@pytest.mark.parametrize("edit", EDITS)
def test_an_edit_stays_on_the_device_of_the_network(edit):
    edited = EDITS[edit](
        make().to("meta")
    )  # "meta" is every machine's other device: shapes without numbers
    assert {parameter.device.type for parameter in edited.parameters()} == {"meta"}


def test_how_many_nodes_come_and_go_may_be_numbers_of_numpy():
    grown = make((4, 4)).add_nodes(0, np.int64(3), rng())
    assert grown.remove_nodes(1, np.int64(2), rng()).config == make((7, 2)).config


@ENSEMBLES
@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("layer", [0, 1])
def test_added_nodes_do_not_change_the_function(layer, activation, ensemble_size):
    network = make(activation=activation, ensemble_size=ensemble_size)
    grown = network.add_nodes(layer, 6, rng())
    torch.testing.assert_close(grown(inputs()), network(inputs()), rtol=0, atol=1e-6)


@ENSEMBLES
@pytest.mark.parametrize("layer", [0, 1])
def test_added_nodes_keep_the_old_weights_and_have_random_inputs_and_zero_outputs(
    layer, ensemble_size
):
    network = make(ensemble_size=ensemble_size)
    grown, width = network.add_nodes(layer, 6, rng()), network.config.hidden_size[layer]
    assert grown.config.hidden_size[layer] == width + 6
    assert torch.equal(grown.weights[layer][:, :, :width], network.weights[layer])
    assert torch.equal(grown.biases[layer][:, :, :width], network.biases[layer])
    assert torch.equal(grown.weights[layer + 1][:, :width], network.weights[layer + 1])
    assert torch.equal(
        grown.weights[layer + 1][:, width:], torch.zeros_like(grown.weights[layer + 1][:, width:])
    )
    for fresh in (grown.weights[layer][:, :, width:], grown.biases[layer][:, :, width:]):
        assert fresh.flatten().unique().numel() == fresh.numel()
        assert fresh.abs().max() <= network.weights[layer].shape[1] ** -0.5


def test_many_added_nodes_have_the_spread_of_fresh_ones():
    network = EvolvableMLP(100, 1, (1,), generator=torch.Generator().manual_seed(0))
    fresh = network.add_nodes(0, 400, rng()).weights[0][:, :, 1:]
    assert fresh.std().item() == pytest.approx(0.2 / 12**0.5, rel=0.05)
    assert fresh.mean().item() == pytest.approx(0, abs=0.002)


def test_an_added_unit_with_a_kernel_has_the_spread_of_all_that_it_reads():
    weights = [torch.zeros(1, 4, 3, 5, 1), torch.zeros(1, 1, 3, 5, 2)]  # fan-in: 4 * 3 * 5
    biases = [torch.zeros(1, 1, 1), torch.zeros(1, 1, 2)]
    grown, grown_biases = add_units(weights, biases, 0, 200, rng())
    fresh = torch.cat([grown[0][..., 1:].flatten(), grown_biases[0][..., 1:].flatten()])
    assert fresh.abs().max().item() == pytest.approx(60**-0.5, rel=0.01)
    assert grown[0].shape == (1, 4, 3, 5, 201) and grown[1].shape == (1, 201, 3, 5, 2)


def test_the_worked_example_of_growing_a_layer_of_two_nodes():
    network = EvolvableMLP(1, 1, hidden_size=(2,))  # f(x) = 2 relu(x) + 3 relu(-x)
    network.weights[0].data[:] = torch.tensor([[1.0, -1.0]])
    network.weights[1].data[:] = torch.tensor([[2.0], [3.0]])
    for bias in network.biases:
        bias.data.zero_()
    x = torch.tensor([[2.0], [-1.0]])
    assert network(x).flatten().tolist() == [4.0, 3.0]
    grown = network.add_nodes(0, 1, rng())
    assert grown(x).flatten().tolist() == [4.0, 3.0]
    assert grown.weights[1].flatten().tolist() == [2.0, 3.0, 0.0]
    grown.weights[0].data[0, 0, 2], grown.biases[0].data[0, 0, 2] = 0.5, 1.0
    # The new node says relu(0.5 x 2 + 1) = 2 to x = 2, and that is the gradient of its outgoing
    # weight there.
    grown(x[:1]).sum().backward()
    assert grown.weights[1].grad.flatten().tolist() == [2.0, 0.0, 2.0]


def test_the_weights_of_added_nodes_are_up_to_the_generator():
    network, before = make((5,)), torch.get_rng_state()
    first, twin, other = (
        network.add_nodes(0, 3, np.random.default_rng(seed)) for seed in (1, 1, 2)
    )
    assert torch.equal(first.weights[0], twin.weights[0])
    assert torch.equal(first.biases[0], twin.biases[0])
    assert not torch.equal(first.weights[0], other.weights[0])
    assert torch.equal(torch.get_rng_state(), before)


def test_added_nodes_take_part_after_one_update():
    grown = make((4,)).add_nodes(0, 3, rng())
    grown(inputs()).square().sum().backward()
    assert (grown.weights[1].grad[:, 4:].abs() > 0).any(dim=2).all()


@ENSEMBLES
@pytest.mark.parametrize("layer", [0, 1])
def test_removed_nodes_leave_the_others_with_their_weights_and_order(layer, ensemble_size):
    network = make(ensemble_size=ensemble_size)
    smaller = network.remove_nodes(layer, 2, rng())
    width = network.config.hidden_size[layer]
    assert smaller.config.hidden_size[layer] == width - 2
    old, new = network.biases[layer][0, 0].tolist(), smaller.biases[layer][0, 0].tolist()
    keep = [old.index(bias) for bias in new]
    assert keep == sorted(set(keep)) and len(keep) == width - 2
    assert torch.equal(smaller.biases[layer], network.biases[layer][:, :, keep])
    assert torch.equal(smaller.weights[layer], network.weights[layer][:, :, keep])
    assert torch.equal(smaller.weights[layer + 1], network.weights[layer + 1][:, keep])
    untouched = 2 if layer == 0 else 0
    assert torch.equal(smaller.weights[untouched], network.weights[untouched])


def test_which_nodes_go_is_up_to_the_generator():
    network, chance = make((50,)), rng()
    drawn = {
        tuple(network.remove_nodes(0, 25, chance).biases[0].flatten().tolist()) for _ in range(20)
    }
    assert len(drawn) == 20


def test_a_node_that_was_just_added_can_be_removed_without_a_trace():
    network = make((5, 7))
    shrunk = [
        network.add_nodes(0, 1, rng()).remove_nodes(0, 1, np.random.default_rng(seed))
        for seed in range(50)
    ]
    traceless = [
        new for new in shrunk if all(map(torch.equal, new.parameters(), network.parameters()))
    ]
    assert traceless and len(traceless) < 50
    assert torch.equal(traceless[0](inputs()), network(inputs()))


@ENSEMBLES
def test_a_new_layer_behind_a_relu_does_not_change_the_function(ensemble_size):
    network = make(ensemble_size=ensemble_size)
    deeper = network.add_layer()
    assert deeper.config.hidden_size == (5, 7, 7)
    torch.testing.assert_close(deeper(inputs()), network(inputs()), rtol=0, atol=1e-6)


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_a_new_layer_applies_the_activation_a_second_time(activation):
    network = make(activation=activation)
    deeper = network.add_layer()
    once = ACTIVATIONS[activation]
    hidden = once(inputs() @ network.weights[0][0] + network.biases[0][0])
    hidden = once(once(hidden @ network.weights[1][0] + network.biases[1][0]))
    expected = hidden @ network.weights[2][0] + network.biases[2][0]
    torch.testing.assert_close(deeper(inputs()), expected)


def test_a_new_layer_is_as_wide_as_the_last_one():
    assert make((4, 5, 6)).add_layer().config.hidden_size == (4, 5, 6, 6)
    assert make((4,)).add_layer().config.hidden_size == (4, 4)


@ENSEMBLES
def test_a_new_layer_keeps_all_old_weights_and_is_the_identity(ensemble_size):
    network = make(ensemble_size=ensemble_size)
    deeper = network.add_layer()
    for old, new in ((0, 0), (1, 1), (2, 3)):
        assert torch.equal(network.weights[old], deeper.weights[new])
        assert torch.equal(network.biases[old], deeper.biases[new])
    assert all(torch.equal(weight, torch.eye(7)) for weight in deeper.weights[2])
    assert not deeper.biases[2].any()


@ENSEMBLES
def test_removing_a_layer_undoes_adding_one(ensemble_size):
    network = make(ensemble_size=ensemble_size)
    back = network.add_layer().remove_layer()
    assert back.config == network.config
    assert all(torch.equal(new, old) for new, old in zip(back.parameters(), network.parameters()))


@pytest.mark.parametrize("sizes", [(5, 7), (7, 5), (6, 6), (3, 7, 5), (9, 5, 7)])
def test_removing_a_layer_lets_the_output_read_the_one_before_by_index(sizes):
    network = make(sizes)
    shallower = network.remove_layer()
    assert shallower.config.hidden_size == sizes[:-1]
    for layer in range(len(sizes) - 1):
        assert torch.equal(shallower.weights[layer], network.weights[layer])
        assert torch.equal(shallower.biases[layer], network.biases[layer])
    assert torch.equal(shallower.biases[-1], network.biases[-1])
    kept = min(sizes[-2:])
    assert shallower.weights[-1].shape == (1, sizes[-2], 2)
    assert torch.equal(shallower.weights[-1][:, :kept], network.weights[-1][:, :kept])
    assert not shallower.weights[-1][:, kept:].any()


@pytest.mark.parametrize(
    "impossible, rule",
    [
        (lambda: make((4,)).remove_layer(), "hidden_size must be a tuple"),
        (lambda: make((4,)).remove_nodes(0, 4, rng()), "from 1 to 1e9, not 0"),
        (lambda: make((4,)).remove_nodes(0, -1, rng()), "-1 of a layer's units cannot be removed"),
        (lambda: make((4,)).add_nodes(1, 1, rng()), r"no layer 1 in hidden_size \(4,\)"),
        (lambda: make((4,)).add_nodes(-1, 1, rng()), r"no layer -1 in hidden_size \(4,\)"),
        (lambda: make((4,)).change_activation("swash"), "unknown activation 'swash'"),
    ],
)
def test_an_edit_that_leaves_no_network_is_refused(impossible, rule):
    with pytest.raises(ValueError, match=rule):
        impossible()


@pytest.mark.parametrize("activation", [name for name in ACTIVATIONS if name != "relu"])
def test_changing_the_activation_keeps_every_weight_and_the_output_activation(activation):
    network = make(output_activation="tanh", ensemble_size=2)
    changed = network.change_activation(activation)
    assert changed.config.activation == activation and changed.config.output_activation == "tanh"
    assert all(
        torch.equal(new, old) for new, old in zip(changed.parameters(), network.parameters())
    )
    assert changed(inputs()).abs().max() < 1
    assert not torch.allclose(changed(inputs()), network(inputs()))
