"""Images: EvolvableCNN edits keep what was learned, and agents that see learn as others do."""

import copy
from dataclasses import asdict

import numpy as np
import pytest
import torch
from common import MUTATIONS, SMALL, TINY, flat, run, same, text
from torch import nn
from torch.nn import functional as F

from tinyevo.buffer import ReplayBuffer
from tinyevo.environment import find_spaces
from tinyevo.images import CNNConfig, EvolvableCNN, channels_first
from tinyevo.mutation import Mutations
from tinyevo.population import create_population, member_row
from tinyevo.td3 import TD3

SPOT = "probes:Spot-v0"
IMAGE = (10, 8, 3)
NEVER = {"no_mutation": 0, "architecture": 0, "parameters": 0, "activation": 0, "rl_hp": 0}


def make(channels=(4, 6), seed=0, num_inputs=2, **arguments):
    arguments = {"image_shape": IMAGE, "hidden_size": (5,), **arguments}
    generator = torch.Generator().manual_seed(seed)
    return EvolvableCNN(num_inputs, 2, channels=channels, generator=generator, **arguments)


def inputs(batch=16):
    generator = torch.Generator().manual_seed(9)
    images = torch.randint(0, 256, (batch, *IMAGE), generator=generator).float()
    return images, torch.randn(batch, 2, generator=generator)


def rng():
    return np.random.default_rng(0)


def seer(seed=0):
    """A small agent that sees."""
    generator = torch.Generator().manual_seed(seed)
    return TD3(*find_spaces(SPOT), SMALL, (8,), channels=(4, 6), generator=generator)


def remembered(size=64):
    """A memory of what a random pilot saw."""
    memory, draw = ReplayBuffer(size, *find_spaces(SPOT)), rng()
    images = draw.integers(0, 256, (2, size, 12, 12, 1), dtype=np.uint8)
    rewards, ended = draw.normal(size=size), draw.random(size) < 0.5
    memory.add(images[0], draw.uniform(-1, 1, (size, 1)), rewards, images[1], ended)
    return memory


ENSEMBLES = pytest.mark.parametrize("ensemble_size", [1, 2])


def test_a_network_computes_what_convolutions_and_linear_layers_of_torch_compute():
    network = make(channels=(4, 6, 6), halvings=2, activation="elu")
    image, action = inputs()
    layers = []
    for layer, (kernel, offset) in enumerate(zip(network.kernels, network.offsets)):
        depth, width = kernel.shape[1], kernel.shape[3]
        conv = nn.Conv2d(depth, width, 3, stride=2 if layer < 2 else 1, padding=1)
        for taken in range(width):
            for read in range(depth):
                conv.weight.data[taken, read] = kernel[0, read, :, taken].reshape(3, 3)
        conv.bias.data = offset[0, 0].clone()
        layers += [conv, nn.ELU()]
    features = nn.Sequential(*layers, nn.Flatten())(image.permute(0, 3, 1, 2) / 255)
    hidden = torch.cat([features, action], 1) @ network.weights[0][0] + network.biases[0][0]
    expected = F.elu(hidden) @ network.weights[1][0] + network.biases[1][0]
    torch.testing.assert_close(network(image, action), expected)


def test_an_ensemble_computes_what_its_members_compute_alone():
    pair = make(ensemble_size=2)
    assert pair(*inputs()).shape == (2, 16, 2)
    for index, output in enumerate(pair(*inputs())):
        alone = make()
        for mine, theirs in zip(alone.parameters(), pair.parameters()):
            mine.data = theirs.data[index : index + 1]
        torch.testing.assert_close(output, alone(*inputs()))


def test_the_first_of_an_ensemble_can_be_asked_alone():
    pair = make(ensemble_size=2)
    first = pair(*inputs(), first_only=True)
    torch.testing.assert_close(first, pair(*inputs())[0])
    for gradient in torch.autograd.grad(first.square().sum(), list(pair.parameters())):
        assert gradient[0].any() and not gradient[1].any()


def test_the_members_of_an_ensemble_begin_different():
    for kernel in make(ensemble_size=2).kernels:
        assert not torch.allclose(kernel[0], kernel[1])


def test_initial_kernels_are_uniform_within_one_over_the_root_of_nine_times_the_depth():
    network = make(channels=(200, 100), image_shape=(10, 8, 1))
    for layer, bound in ((0, 1 / 3), (1, 1 / 1800**0.5)):
        kernel, offset = network.kernels[layer].detach(), network.offsets[layer].detach()
        assert 0.99 * bound < kernel.abs().max() <= bound
        assert kernel.std().item() == pytest.approx(bound * 2 / 12**0.5, rel=0.1)
        assert 0.8 * bound < offset.abs().max() <= bound


def test_the_generator_decides_the_weights_and_no_global_one_is_read():
    before = torch.get_rng_state()
    assert torch.equal(make(seed=1)(*inputs()), make(seed=1)(*inputs()))
    assert not torch.equal(make(seed=1)(*inputs()), make(seed=2)(*inputs()))
    make().add_channels(0, 3, rng()).add_conv_layer().remove_conv_layer().remove_channels(
        0, 2, rng()
    )
    assert torch.equal(before, torch.get_rng_state())


# Images


@pytest.mark.parametrize("shape, first", [((96, 90, 3), (3, 96, 90)), ((84, 84, 12), (12, 84, 84))])
def test_channels_come_first_wherever_the_environment_has_them(shape, first):
    last = torch.arange(2 * np.prod(shape)).reshape(2, *shape)
    images = channels_first(last)
    assert images.shape == (2, *first)
    assert images[1, 2, 7, 5] == last[1, 7, 5, 2]
    assert channels_first(images) is images, "first already"


@pytest.mark.parametrize(
    "shape, readings",
    [
        ((8, 9, 8), "8 channels of 8 x 9 or 8 of 9 x 8"),
        ((4, 40, 3), "3 channels of 4 x 40 or 4 of 40 x 3"),
        ((3, 40, 4), "4 channels of 3 x 40 or 3 of 40 x 4"),
        ((8, 8, 40), "40 channels of 8 x 8 or 8 of 8 x 40"),
        ((40, 8, 8), "8 channels of 40 x 8 or 40 of 8 x 8"),
    ],
)
def test_an_ambiguous_shape_is_refused_with_both_readings(shape, readings):
    with pytest.raises(ValueError, match=readings):
        channels_first(torch.zeros(1, *shape))
    with pytest.raises(ValueError, match=readings):
        make(image_shape=shape)


def test_a_network_reads_the_same_image_in_either_order():
    image, action = inputs()
    turned = make(image_shape=(3, 10, 8))
    torch.testing.assert_close(turned(image.permute(0, 3, 1, 2), action), make()(image, action))


@pytest.mark.parametrize("height, width", [(5, 1000), (6, 7), (16, 16), (17, 33)])
@pytest.mark.parametrize("halvings", [1, 2, 5])
def test_every_map_of_features_has_a_pixel_however_often_it_is_halved(height, width, halvings):
    network = make(channels=(2,) * 5, halvings=halvings, image_shape=(height, width, 1))
    assert network.config.pixels >= 1
    assert network(torch.zeros(1, height, width, 1), torch.zeros(1, 2)).shape == (1, 2)


# Edits

GROWTHS = {
    "add_conv_layer": lambda network: network.add_conv_layer(),
    "add_channels to the first": lambda network: network.add_channels(0, 3, rng()),
    "add_channels to the last": lambda network: network.add_channels(1, 3, rng()),
    "add_layer": lambda network: network.add_layer(),
    "add_nodes": lambda network: network.add_nodes(0, 4, rng()),
}
OTHERS = {
    "remove_conv_layer": lambda network: network.add_conv_layer().remove_conv_layer(),
    "remove_channels": lambda network: network.remove_channels(1, 2, rng()),
    "remove_nodes": lambda network: network.remove_nodes(0, 2, rng()),
    "change_activation": lambda network: network.change_activation("tanh"),
}


@ENSEMBLES
@pytest.mark.parametrize("growth", GROWTHS)
def test_growth_preserves_the_function_behind_a_relu(growth, ensemble_size):
    network = make(ensemble_size=ensemble_size)
    grown = GROWTHS[growth](network)
    assert grown.config != network.config
    torch.testing.assert_close(grown(*inputs()), network(*inputs()))


@pytest.mark.parametrize("growth", list(GROWTHS)[:3])
def test_what_has_grown_learns_from_the_second_update_at_the_latest(growth):
    grown = GROWTHS[growth](make(hidden_size=(32,)))
    optimiser = torch.optim.SGD(grown.parameters(), lr=0.01)
    before = copy.deepcopy(grown.state_dict())
    for _ in range(2):
        optimiser.zero_grad()
        (grown(*inputs()) - 1).square().mean().backward()
        optimiser.step()
    for name, parameter in grown.named_parameters():
        if "kernels" in name:  # a channel may have been silent from the beginning, most are not
            assert (parameter != before[name])[..., -3:].float().mean() > 0.3


@ENSEMBLES
@pytest.mark.parametrize("edit", [*GROWTHS, *OTHERS])
def test_an_edit_returns_a_new_network_and_leaves_the_old_one_as_it_was(edit, ensemble_size):
    network = make(ensemble_size=ensemble_size)
    before, config = copy.deepcopy(network.state_dict()), network.config
    new = {**GROWTHS, **OTHERS}[edit](network)
    new(*inputs())
    for parameter in new.parameters():
        assert parameter.requires_grad and parameter.is_leaf and parameter.is_contiguous()
        parameter.data.zero_()
    assert network.config == config
    assert all(torch.equal(value, network.state_dict()[name]) for name, value in before.items())


@pytest.mark.parametrize("edit", [*GROWTHS, *OTHERS])
def test_an_edit_stays_on_the_device_of_the_network(edit):
    edited = {**GROWTHS, **OTHERS}[edit](make().to("meta"))  # a device without numbers
    assert {parameter.device.type for parameter in edited.parameters()} == {"meta"}


def test_a_fresh_network_has_the_same_shape_and_weights_of_its_own():
    network = make(channels=(4, 6, 6), halvings=2)
    fresh = network.fresh(torch.Generator().manual_seed(5))
    assert fresh.config == network.config
    for new, old in zip(fresh.parameters(), network.parameters()):
        assert new.shape == old.shape and not (new == old).any()


@ENSEMBLES
@pytest.mark.parametrize("layer", [0, 1])
def test_adding_channels_keeps_every_old_weight_and_feeds_nothing_forward(layer, ensemble_size):
    network = make(ensemble_size=ensemble_size)
    grown = network.add_channels(layer, 3, rng())
    width = network.config.channels[layer]
    assert torch.equal(grown.kernels[layer][..., :width], network.kernels[layer])
    assert torch.equal(grown.offsets[layer][..., :width], network.offsets[layer])
    added = grown.kernels[layer][..., width:]
    assert added.abs().min() > 0 and len(added.unique()) == added.numel()
    assert added.abs().max() <= (9 * added.shape[1]) ** -0.5
    if layer == 0:
        assert torch.equal(grown.kernels[1][:, :width], network.kernels[1])
        assert not grown.kernels[1][:, width:].any()
        assert all(map(torch.equal, grown.weights, network.weights))
    else:
        pixels = network.config.pixels
        assert torch.equal(grown.weights[0][:, : width * pixels], network.weights[0][:, :-2])
        assert not grown.weights[0][:, width * pixels : -2].any()
        assert torch.equal(grown.weights[0][:, -2:], network.weights[0][:, -2:])
    assert all(map(torch.equal, grown.weights[1:], network.weights[1:]))
    assert all(map(torch.equal, grown.biases, network.biases))


@pytest.mark.parametrize("layer", [0, 1])
def test_removing_channels_is_as_if_they_had_never_been_read(layer):
    network = make()
    smaller = network.remove_channels(layer, 2, rng())
    width = network.config.channels[layer]
    gone = sorted(rng().permutation(width)[:2].tolist())
    blind = copy.deepcopy(network)  # in which nobody reads the channels that went
    if layer == 0:
        blind.kernels[1].data[:, gone] = 0
    else:
        for channel in gone:
            pixels = network.config.pixels
            blind.weights[0].data[:, channel * pixels : (channel + 1) * pixels] = 0
    torch.testing.assert_close(smaller(*inputs()), blind(*inputs()))
    kept = [channel for channel in range(width) if channel not in gone]
    assert torch.equal(smaller.kernels[layer], network.kernels[layer][..., kept])
    assert smaller.config.channels[layer] == width - 2


def test_which_channels_go_is_drawn():
    kept = {
        str(make().remove_channels(0, 2, np.random.default_rng(s)).kernels[0]) for s in range(9)
    }
    assert len(kept) > 3


@pytest.mark.parametrize("before, removed", [(4, 6), (6, 4)])
def test_removing_a_convolution_lets_the_perceptron_read_the_one_before_by_channel(before, removed):
    network = make(channels=(before, removed), halvings=1)
    shallower = network.remove_conv_layer()
    assert shallower.config.channels == (before,)
    assert torch.equal(shallower.kernels[0], network.kernels[0])
    assert torch.equal(shallower.offsets[0], network.offsets[0])
    kept = min(before, removed) * network.config.pixels
    assert torch.equal(shallower.weights[0][:, :kept], network.weights[0][:, :kept])
    assert not shallower.weights[0][:, kept:-2].any()
    assert torch.equal(shallower.weights[0][:, -2:], network.weights[0][:, -2:])


@ENSEMBLES
def test_removing_a_convolution_undoes_adding_one(ensemble_size):
    network = make(ensemble_size=ensemble_size)
    back = network.add_conv_layer().remove_conv_layer()
    assert back.config == network.config
    assert all(map(torch.equal, back.parameters(), network.parameters()))


@pytest.mark.parametrize(
    "impossible, rule",
    [
        (lambda: make().remove_conv_layer(), "of 1 layers at least 1 halves the picture.* not 2"),
        (lambda: make().add_channels(2, 1, rng()), r"no layer 2 in channels \(4, 6\)"),
        (lambda: make().remove_channels(-1, 1, rng()), r"no layer -1 in channels \(4, 6\)"),
        (lambda: make().remove_channels(0, 4, rng()), "from 1 to 1e9, not 0"),
        (lambda: make().remove_channels(0, -1, rng()), "-1 of a layer's units cannot be removed"),
        (lambda: make(channels=()), r"channels must be a tuple such as \(16, 32\), not \(\)"),
        (lambda: make(channels=4), r"channels must be a tuple such as \(16, 32\), not 4"),
        (lambda: make(channels=(4, 0)), "from 1 to 1e9, not 0"),
        (lambda: make(num_inputs=-1), "from 1 to 1e9, not -1"),
        (lambda: make(halvings=0), "of 2 layers at least 1 halves the picture, at most all, not 0"),
        (lambda: make(halvings=3), "of 2 layers at least 1 halves the picture, at most all, not 3"),
        (lambda: make(hidden_size=()), "hidden_size must be a tuple"),
    ],
)
def test_a_shape_that_makes_no_network_is_refused(impossible, rule):
    with pytest.raises(ValueError, match=rule):
        impossible()


@ENSEMBLES
def test_rebuilding_from_the_config_gives_the_same_shape(ensemble_size):
    network = make(ensemble_size=ensemble_size).add_conv_layer().add_channels(1, 2, rng())
    rebuilt = EvolvableCNN(**asdict(network.config))
    assert rebuilt.config == network.config
    assert [p.shape for p in rebuilt.parameters()] == [p.shape for p in network.parameters()]


def test_a_list_of_channels_is_copied():
    channels = [4, 6]
    network = make(channels)
    channels.append(9)
    assert network.config.channels == (4, 6) and CNNConfig(1, 1).halvings == 4


# Agents that see


def test_an_agent_sees_one_image_or_a_batch_and_acts_in_its_box():
    agent, memory = seer(), remembered()
    images = memory.storage["obs"][:5]
    actions = agent.get_action(images)
    assert actions.shape == (5, 1) and abs(actions).max() <= 1
    np.testing.assert_allclose(agent.get_action(images[3]), actions[3], rtol=1e-5)
    assert agent.channels == (4, 6)


def test_the_memory_holds_the_bytes_of_images():
    memory = remembered()
    assert memory.storage["obs"].dtype == np.uint8
    assert memory.sample(5, rng()).next_obs.dtype == torch.uint8


def test_an_agent_that_sees_learns_is_cloned_and_comes_back_from_its_state():
    agent, draw = seer(), rng()
    before = flat(agent.state())
    for _ in range(4):
        losses = agent.learn(remembered().sample(8, draw), torch.Generator().manual_seed(0))
    assert losses.keys() == {"critic", "actor"}
    after = flat(agent.state())
    for name in before:
        if ".weights.kernels" in name or ".target.kernels" in name:
            assert after[name] != before[name], f"{name} did not move"
    assert same(agent.clone(), agent) and same(TD3.from_state(agent.state()), agent)


@pytest.mark.parametrize("new_layer_prob", [0, 1])
def test_every_edit_of_an_agent_that_sees_happens_within_its_bounds(new_layer_prob):
    bounds = {"layer_bounds": (1, 2), "node_bounds": (4, 12), "node_steps": (2, 3)}
    bounds |= {"conv_bounds": (1, 3), "channel_bounds": (3, 8), "channel_steps": (1, 2)}
    kinds = {**NEVER, "architecture": 1}
    mutations = Mutations(**kinds, **bounds, new_layer_prob=new_layer_prob)
    agent, draw = seer(), rng()
    seen = set()
    for _ in range(120):
        old = agent.channels, agent.hidden_size
        mutations.mutate([agent], draw)
        new = agent.channels, agent.hidden_size
        parts = [part for part in (0, 1) if new[part] != old[part]]
        assert len(parts) == 1, "one edit at a time"
        seen.add((parts[0], sum(new[parts[0]]) > sum(old[parts[0]])))
        assert agent.mutation == f"architecture {as_text(old)} -> {as_text(new)}"
        assert 2 <= len(agent.channels) <= 3 and 1 <= len(agent.hidden_size) <= 2
        assert all(3 <= width <= 8 for width in agent.channels)
        assert all(4 <= width <= 12 for width in agent.hidden_size)
        configs = [network.config for network in agent.networks.values()]
        assert len({(config.channels, config.hidden_size) for config in configs}) == 1
    assert len(seen) == 4, "channels and nodes, or convolutions and layers, more and fewer"
    agent.learn(remembered().sample(8, draw))


def test_channels_change_in_every_layer_by_their_own_steps():
    steps = {"channel_bounds": (1, 99), "channel_steps": (1, 2), "node_bounds": (8, 8)}
    mutations = Mutations(**{**NEVER, "architecture": 1}, **steps, new_layer_prob=0)
    agent, draw, seen = seer(), rng(), set()
    for _ in range(60):
        old = agent.channels
        mutations.mutate([agent], draw)
        differences = [new - before for new, before in zip(agent.channels, old)]
        seen.add(tuple(differences))
    assert seen == {(n, 0) for n in (-2, -1, 1, 2)} | {(0, n) for n in (-2, -1, 1, 2)}


def test_the_fewest_convolutions_are_those_of_the_bounds_where_fewer_halve_the_picture():
    bounds = {"conv_bounds": (3, 4), "layer_bounds": (1, 1)}
    mutations = Mutations(**{**NEVER, "architecture": 1}, **bounds, new_layer_prob=1)
    agent, draw = seer(), rng()
    assert agent.networks["actor"].config.halvings == len(agent.channels) == 2
    depths = []
    for _ in range(20):
        mutations.mutate([agent], draw)
        depths.append(len(agent.channels))
    assert set(depths) == {3, 4} and 3 in depths[2:]


def test_an_agent_with_one_broken_kernel_is_not_finite():
    agent = seer()
    assert agent.is_finite()
    agent.networks["critic"].kernels[1].data.view(-1)[3] = torch.nan
    assert not agent.is_finite()


def as_text(sizes):
    return "+".join("x".join(map(str, part)) for part in sizes)


def test_the_mutation_of_weights_touches_every_kernel_of_the_policy_alone():
    agent = seer()
    before = copy.deepcopy(agent.networks)
    Mutations(**{**NEVER, "parameters": 1}).mutate([agent], rng())
    policy, old = agent.networks["actor"], before["actor"]
    for new, kept in zip(policy.kernels, old.kernels):
        assert 0 < (new != kept).sum() <= np.ceil(0.1 * new.numel())
    assert all(map(torch.equal, policy.offsets, old.offsets))
    critics = agent.networks["critic"].kernels, before["critic"].kernels
    assert all(map(torch.equal, *critics))


def test_the_row_of_a_member_that_sees_has_its_channels():
    [agent] = create_population(1, *find_spaces(SPOT), SMALL, hidden_size=(8,), channels=(4, 6))
    assert member_row(agent)["channels"] == "4x6"


@pytest.mark.slow
def test_a_population_that_sees_evolves_and_the_same_seed_gives_the_same_run():
    config = TINY.__class__(**{**vars(TINY), "env_id": SPOT, "max_steps": 60})
    runs = [run(config, mutations=MUTATIONS) for _ in range(2)]
    assert text(runs[0]) == text(runs[1])
    assert all(row["channels"] for row in runs[0].history)
