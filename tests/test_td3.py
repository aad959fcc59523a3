"""TD3: the update to the digit, and an agent that is whole after all that evolution does to it."""

import copy
import math
import pickle
from dataclasses import fields, replace

import numpy as np
import pytest
import torch
from common import ACTIONS, OBSERVATIONS, flat, learn, make_agent, make_batch, same, tensors
from gymnasium.spaces import Box, Discrete

import train_lunar
from tinyevo import checkpoint
from tinyevo.buffer import Batch, ReplayBuffer
from tinyevo.networks import EvolvableMLP
from tinyevo.td3 import RANGES, TD3, HyperParams

UNIT = Box(-1, 1, (1,))


def constant(network, *values):
    """Make a network output constants, whatever goes in; one for each member of its ensemble."""
    for parameter in network.parameters():
        parameter.data.zero_()
    for index, value in enumerate(values):
        network.biases[-1].data[index] = value


def by_hand(**changes):
    """Hyper-parameters with which a target can be worked out by hand."""
    return HyperParams(**{"reward_scale": 1.0, "policy_noise": 0.2, "noise_clip": 0.5, **changes})


def one(obs=0.0, action=0.0, reward=0.0, next_obs=0.0, terminated=False):
    """A batch of one transition."""
    numbers = (torch.full((1, 1), float(value)) for value in (obs, action, reward, next_obs))
    return Batch(*numbers, torch.full((1, 1), terminated))


def rows(obs=(0, 0, 0), reward=(0, 0, 0), next_obs=(0, 0, 0), terminated=(0, 0, 0)):
    """A batch of three transitions, a number for each of them in every argument."""
    columns = (torch.tensor(numbers)[:, None].float() for numbers in (obs, reward, next_obs))
    obs, reward, next_obs = columns
    return Batch(obs, obs * 0, reward, next_obs, torch.tensor(terminated)[:, None] == 1)


def tiny(**changes):
    """One observation, one action in [-1, 1], one hidden node, no noise on the target policy."""
    hp = HyperParams(**{"reward_scale": 1.0, "policy_noise": 0.0, **changes})
    return TD3(UNIT, UNIT, hp, hidden_size=(1,), generator=torch.Generator().manual_seed(0))


# The critics' target


def test_the_target_worked_by_hand():
    agent = tiny(gamma=0.9)
    constant(agent.targets["critic"], 5.0, 3.0)
    constant(agent.networks["critic"], 1.0, 2.0)
    # y = r + gamma min(5, 3) = 1 + 0.9 x 3 = 3.7; the loss is (1 - 3.7)^2 + (2 - 3.7)^2 = 7.29 +
    # 2.89 = 10.18.
    loss = agent.learn(one(reward=1.0))["critic"]
    assert loss.item() == pytest.approx(10.18)


def test_nothing_follows_a_termination():
    agent = tiny(gamma=0.9)
    constant(agent.targets["critic"], 5.0, 3.0)
    constant(agent.networks["critic"], 0.0, 0.0)
    assert agent.learn(one(reward=1.0, terminated=True))["critic"].item() == pytest.approx(
        2.0
    )  # y = 1, twice 1^2


def test_each_row_of_a_batch_has_its_own_smaller_critic_and_its_own_termination():
    agent = tiny(gamma=0.5)
    critic = agent.targets["critic"]
    constant(critic, -10.0, 12.0)
    # Q1'(s) = relu(s + 10) - 10 = s and Q2'(s) = 12 - relu(s + 10) = 2 - s
    critic.weights[0].data[:, 0] = 1.0
    critic.biases[0].data[:] = 10.0
    critic.weights[1].data[:] = torch.tensor([1.0, -1.0])[:, None, None]
    constant(agent.networks["critic"], 0.0, 1.0)
    batch = rows(reward=(1, 2, 3), next_obs=(0, 3, 2), terminated=(0, 0, 1))
    # y = 1 + 0.5 x 0 = 1 by the first critic, 2 + 0.5 x (2 - 3) = 1.5 by the second one, and 3
    # where it ended. The losses of the two critics are (1^2 + 1.5^2 + 3^2) / 3 and
    # (0^2 + 0.5^2 + 2^2) / 3, in all 16.5 / 3.
    assert agent.learn(batch)["critic"].item() == pytest.approx(5.5)


def target_of(agent, **transition):
    """The target that the critics are moved to, read off the loss of critics that say 0."""
    constant(agent.networks["critic"], 0.0, 0.0)
    return math.sqrt(
        agent.learn(one(**transition), torch.Generator().manual_seed(1))["critic"].item() / 2
    )


def test_the_target_is_in_the_unit_of_the_scaled_reward():
    agent = tiny(gamma=0.9, reward_scale=0.1, policy_freq=3)
    constant(agent.targets["critic"], 5.0, 3.0)
    assert target_of(agent, reward=-20.0, terminated=True) == pytest.approx(2.0)
    assert target_of(agent, reward=10.0) == pytest.approx(1.0 + 0.9 * 3)


def test_the_target_uses_the_target_networks_at_the_next_observation():
    agent = tiny(gamma=1.0)
    critic, actor = agent.targets["critic"], agent.targets["actor"]
    constant(critic)
    constant(actor)
    # Q'(s, a) = relu(s + 2a + 10), mu'(s) = tanh(0.5) everywhere
    critic.weights[0].data[:] = torch.tensor([[1.0], [2.0]])
    critic.biases[0].data[:] = 10.0
    critic.weights[1].data[:] = 1.0
    actor.biases[-1].data[:] = 0.5
    expected = 4.0 + 2 * math.tanh(0.5) + 10
    assert target_of(agent, obs=-3.0, action=0.7, next_obs=4.0) == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("learn_step", [1, 2, 7])
def test_the_discount_is_for_one_environment_step_however_seldom_there_is_an_update(learn_step):
    agent = tiny(gamma=0.5, learn_step=learn_step)
    constant(agent.targets["critic"], 8.0, 8.0)
    assert target_of(agent) == pytest.approx(4.0)


@pytest.mark.parametrize("low, high", [(-1, 1), (-4, 4), (2, 12)])
def test_smoothing_noise_is_scaled_to_the_action_range_and_clipped(low, high):
    hp = HyperParams(policy_noise=0.2, noise_clip=0.3)
    agent = TD3(
        UNIT, Box(low, high, (1,)), hp, hidden_size=(1,), generator=torch.Generator().manual_seed(0)
    )
    constant(agent.networks["critic"], 0.0, 0.0)
    seen = []
    target = agent.targets["critic"]
    target.register_forward_hook(lambda module, args, output: seen.append(args[1][:, 0]))
    constant(agent.targets["actor"])
    batch = Batch(
        *(torch.zeros(20_000, 1) for _ in range(4)), torch.zeros(20_000, 1, dtype=torch.bool)
    )
    agent.learn(batch, torch.Generator().manual_seed(0))
    half, middle = (high - low) / 2, (high + low) / 2
    noise = (seen[0] - middle) / half
    assert noise.abs().max().item() == pytest.approx(0.3, rel=1e-5)
    inside = noise[noise.abs() < 0.299]
    normal = torch.randn(20_000, generator=torch.Generator().manual_seed(5)) * 0.2
    assert inside.std().item() == pytest.approx(normal[normal.abs() < 0.299].std().item(), rel=0.05)
    assert noise.mean().item() == pytest.approx(0, abs=0.01)


def test_the_smoothed_action_stays_in_the_box():
    hp = HyperParams(policy_noise=5.0, noise_clip=3.0)
    agent, seen = make_agent(hp=hp), []
    agent.targets["critic"].register_forward_hook(
        lambda module, args, output: seen.append(args[1].numpy())
    )
    agent.learn(make_batch(500), torch.Generator().manual_seed(0))
    np.testing.assert_array_equal(seen[0].min(axis=0), ACTIONS.low)
    np.testing.assert_array_equal(seen[0].max(axis=0), ACTIONS.high)


def test_a_box_far_from_zero_is_filled_like_any_other():
    box = Box(np.float32([2e38]), np.float32([3e38]))  # their sum is no float32
    agent = TD3(OBSERVATIONS, box, generator=torch.Generator().manual_seed(0))
    for value, expected in ((-50.0, box.low), (50.0, box.high), (0.0, np.float32([2.5e38]))):
        constant(agent.networks["actor"], value)
        np.testing.assert_allclose(agent.get_action(np.zeros(3)), expected, rtol=1e-6)


# Who moves, and when


def test_the_critics_move_every_update_and_actor_and_targets_every_policy_freq_updates():
    agent = make_agent(hp=HyperParams(policy_freq=3))
    networks = {"actor": agent.networks["actor"], "critic": agent.networks["critic"]}
    networks |= {f"target {name}": target for name, target in agent.targets.items()}
    moved = {name: [] for name in networks}
    for update in range(1, 8):
        before = {name: flat(network.state_dict()) for name, network in networks.items()}
        losses = agent.learn(make_batch(seed=update))
        for name, network in networks.items():
            if flat(network.state_dict()) != before[name]:
                moved[name].append(update)
        assert ("actor" in losses) == (update in (3, 6))
    assert moved.pop("critic") == [1, 2, 3, 4, 5, 6, 7]
    assert set(map(tuple, moved.values())) == {(3, 6)}
    assert agent.updates == 7


def test_targets_move_by_tau_of_the_way():
    agent = make_agent(hp=HyperParams(policy_freq=1, tau=0.25))
    before = {
        name: copy.deepcopy(list(target.parameters())) for name, target in agent.targets.items()
    }
    agent.learn(make_batch())
    for name, network in agent.networks.items():
        for old, new, live in zip(
            before[name], agent.targets[name].parameters(), network.parameters()
        ):
            torch.testing.assert_close(new, old + 0.25 * (live - old))


def test_the_policy_goes_uphill_on_the_first_critic_alone():
    agent = tiny(policy_freq=1, lr_actor=0.01, lr_critic=0.0)
    critic = agent.networks["critic"]
    constant(critic)
    # Q1(s, a) = relu(a + 5), Q2(s, a) = relu(5 - a): the first wants larger actions, the second
    # smaller ones.
    critic.weights[0].data[:, 1] = torch.tensor([[1.0], [-1.0]])
    critic.biases[0].data[:] = 5.0
    critic.weights[1].data[:] = 1.0
    constant(agent.networks["actor"], 0.0)
    before = agent.get_action(np.zeros(1))
    loss = agent.learn(one())["actor"]
    assert loss.item() == pytest.approx(-5.0)
    assert agent.get_action(np.zeros(1)) > before


def test_the_loss_of_the_policy_is_the_mean_over_the_batch():
    agent = tiny(policy_freq=1, lr_critic=0.0)
    critic = agent.networks["critic"]
    constant(critic)
    critic.weights[0].data[:, 0] = 1.0  # Q(s, a) = relu(s), by both critics
    critic.weights[1].data[:] = 1.0
    loss = agent.learn(rows(obs=(1, 2, 6)))["actor"]
    assert loss.item() == pytest.approx(-3.0)


def test_both_critics_learn_at_the_critic_rate_and_the_actor_at_its_own():
    agent = make_agent(hp=HyperParams(lr_actor=1e-3, lr_critic=1e-2, policy_freq=1))
    before = {
        name: copy.deepcopy(list(network.parameters())) for name, network in agent.networks.items()
    }
    agent.learn(make_batch())
    for name, rate in (("actor", 1e-3), ("critic", 1e-2)):
        steps = [
            (new - old).abs() for old, new in zip(before[name], agent.networks[name].parameters())
        ]
        # The first step of Adam is the learning rate for every parameter with a gradient; look at
        # each critic alone.
        for member in range(len(steps[0])):
            assert max(step[member].max().item() for step in steps) == pytest.approx(rate, rel=0.01)


def test_the_update_is_the_textbook_update():
    """An oracle with separate critics, `backward`, plain Adam and a loop for the targets."""
    hp = by_hand(lr_actor=1e-3, lr_critic=2e-3, gamma=0.9, tau=0.1, policy_freq=2)
    agent = make_agent(hp=hp)
    nets, targets = copy.deepcopy(agent.networks), copy.deepcopy(agent.targets)
    middle, half = torch.tensor([0.0, 5.0]), torch.tensor([1.0, 5.0])
    adam = {
        name: torch.optim.Adam(nets[name].parameters(), lr=getattr(hp, f"lr_{name}"))
        for name in nets
    }
    generator = torch.Generator().manual_seed(3)
    for update in range(1, 7):
        batch = make_batch(seed=update)
        agent.learn(batch, torch.Generator().manual_seed(update))
        noise = torch.randn(16, 2, generator=generator.manual_seed(update)) * 0.2
        with torch.no_grad():
            action = middle + half * (targets["actor"](batch.next_obs) + noise.clamp(-0.5, 0.5))
            action = torch.max(
                torch.min(action, torch.tensor([1.0, 10.0])), torch.tensor([-1.0, 0.0])
            )
            value = targets["critic"](torch.cat([batch.next_obs, action], 1)).min(0).values
            y = batch.reward + 0.9 * (1 - batch.terminated.float()) * value
        loss = sum(
            ((q - y) ** 2).mean() for q in nets["critic"](torch.cat([batch.obs, batch.action], 1))
        )
        adam["critic"].zero_grad()
        loss.backward()
        adam["critic"].step()
        if update % 2 == 0:
            action = middle + half * nets["actor"](batch.obs)
            adam["actor"].zero_grad()
            (-nets["critic"](torch.cat([batch.obs, action], 1))[0].mean()).backward()
            adam["actor"].step()
            for name, target in targets.items():
                for slow, live in zip(target.parameters(), nets[name].parameters()):
                    slow.data = 0.9 * slow.data + 0.1 * live.data
    for mine, theirs in ((agent.networks, nets), (agent.targets, targets)):
        for name in mine:
            for new, oracle in zip(mine[name].parameters(), theirs[name].parameters()):
                torch.testing.assert_close(new, oracle, rtol=1e-4, atol=1e-6)


def test_learning_does_not_change_its_batch():
    agent, batch = make_agent(hp=HyperParams(reward_scale=0.1)), make_batch()
    before = [tensor.clone() for tensor in batch]
    agent.learn(batch)
    agent.learn(batch)
    assert all(torch.equal(new, old) for new, old in zip(batch, before))


def test_losses_are_numbers_without_a_graph():
    losses = make_agent(hp=HyperParams(policy_freq=1)).learn(make_batch())
    assert losses.keys() == {"critic", "actor"}
    assert not any(loss.requires_grad for loss in losses.values())


def test_targets_have_no_gradients_before_and_after_a_network_was_replaced():
    agent = make_agent()
    agent.set_networks(actor=agent.networks["actor"].add_layer())
    for target in agent.targets.values():
        assert not any(parameter.requires_grad for parameter in target.parameters())


def test_the_same_generator_gives_the_same_update_and_no_global_one_is_read():
    state = torch.get_rng_state()
    first, second, third = (learn(make_agent(), seed=seed) for seed in (0, 0, 1))
    assert same(first, second) and not same(first, third)
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize(
    "terminated, gamma, value", [(True, 0.8, 2.0), (False, 0.8, 10.0), (False, 0.5, 4.0)]
)
def test_a_constant_reward_is_worth_what_theory_says(terminated, gamma, value):
    """Reward 2 for ever is worth 2 / (1 - gamma); once, it is worth 2."""
    agent = tiny(gamma=gamma, lr_critic=0.03, tau=0.5, policy_freq=1)
    for _ in range(1000):
        agent.learn(one(reward=2.0, terminated=terminated))
    q1, q2 = agent.networks["critic"](torch.zeros(1, 2))
    assert q1.item() == pytest.approx(value, rel=0.03) and q2.item() == pytest.approx(
        value, rel=0.03
    )


def test_the_policy_finds_the_best_action_of_a_bandit():
    """The reward is 1 - (a - 7)^2 / 25 on the box [2, 12]: the best action is 7, its value 1."""
    hp = by_hand(lr_actor=3e-3, lr_critic=3e-3, tau=0.005, policy_freq=2)
    agent = TD3(
        UNIT, Box(2, 12, (1,)), hp, hidden_size=(32, 32), generator=torch.Generator().manual_seed(0)
    )
    generator = torch.Generator().manual_seed(0)
    for _ in range(800):
        action = 2 + 10 * torch.rand(64, 1, generator=generator)
        nothing = torch.zeros(64, 1)
        batch = Batch(
            nothing,
            action,
            1 - (action - 7) ** 2 / 25,
            nothing,
            torch.ones(64, 1, dtype=torch.bool),
        )
        agent.learn(batch, generator)
    best = agent.get_action(np.zeros(1))
    assert best == pytest.approx(7, abs=0.7)
    assert agent.networks["critic"](torch.tensor([[0.0, best[0]]])).mean().item() == pytest.approx(
        1, abs=0.15
    )


# Acting


def test_an_action_comes_as_numpy_in_the_units_and_the_type_of_the_environment():
    agent = make_agent()
    one_action, batch = agent.get_action(np.zeros(3)), agent.get_action(np.zeros((5, 3)))
    assert one_action.shape == (2,) and batch.shape == (5, 2)
    assert one_action.dtype == batch.dtype == ACTIONS.dtype
    assert np.allclose(batch, one_action)
    assert ACTIONS.contains(one_action)
    assert agent.get_action(np.zeros((1, 3))).shape == (1, 2)


@pytest.mark.parametrize(
    "low, high", [([-1, 0], [1, 10]), ([-3, -30], [-2, 0.1]), ([0.1, 1e3], [0.3, 1e6])]
)
def test_actions_fill_the_box_and_never_leave_it(low, high):
    box = Box(np.array(low, dtype=np.float32), np.array(high, dtype=np.float32))
    agent = TD3(OBSERVATIONS, box, generator=torch.Generator().manual_seed(0))
    network = agent.networks["actor"]
    for value, expected in ((-50.0, box.low), (50.0, box.high), (0.0, (box.low + box.high) / 2)):
        constant(network, value)
        action = agent.get_action(np.ones(3))
        assert box.contains(action)
        assert action == pytest.approx(expected, rel=1e-5)


def test_acting_is_greedy_and_tracks_no_gradients():
    agent = make_agent()
    obs = np.random.default_rng(0).normal(size=(10, 3))
    assert np.array_equal(agent.get_action(obs), agent.get_action(obs))


# Clones and states


def test_a_clone_is_equal_in_everything_and_shares_nothing():
    agent = learn(make_agent())
    agent.id, agent.parent_id = 7, 3
    agent.mutation_kind, agent.mutation = "rl_hp", "lr_actor 0.1 -> 0.2"
    agent.fitness, agent.train_return, agent.steps = [1.0, -2.5], 12.5, 4000
    clone = agent.clone()
    assert same(clone, agent)
    assert clone.updates == 4 and clone.hp == agent.hp
    assert vars(clone).keys() == vars(agent).keys()
    assert not {tensor.data_ptr() for tensor in tensors(agent)} & {
        tensor.data_ptr() for tensor in tensors(clone)
    }
    assert len(list(tensors(clone))) == len(list(tensors(agent))) == 6 * 2 * 2 + 6 * 3 * 2
    obs = np.random.default_rng(0).normal(size=(10, 3))
    assert np.array_equal(agent.get_action(obs), clone.get_action(obs))


def history(agent):
    """What an agent tells of itself, by name; NaN as text, because it does not equal itself."""
    names = ("id", "parent_id", "mutation_kind", "mutation", "fitness", "steps", "updates")
    return {name: getattr(agent, name) for name in names} | {"return": str(agent.train_return)}


@pytest.mark.parametrize(
    "copied",
    [
        lambda agent: agent.clone(),
        lambda agent: TD3.from_state(agent.state()),
        lambda agent: pickle.loads(pickle.dumps(agent)),
    ],
    ids=["clone", "state", "pickle"],
)
def test_a_copy_knows_all_that_the_agent_tells_of_itself_from_its_first_generation_on(copied):
    agent = make_agent()
    agent.id, agent.parent_id = 7, 3
    agent.mutation_kind, agent.mutation = "rl_hp", "tau 0.1 -> 0.2"
    agent.fitness = [float(generation) for generation in range(40)]
    agent.train_return, agent.steps, agent.updates = 12.5, 4000, 2000
    assert history(copied(agent)) == history(agent)


def test_a_new_agent_has_no_past():
    expected = {"id": 0, "parent_id": None, "mutation_kind": "none", "mutation": "none"}
    expected |= {"fitness": [], "steps": 0, "updates": 0, "return": "nan"}
    assert history(make_agent()) == expected


def test_a_clone_is_copied_and_only_what_goes_to_another_process_becomes_bytes(monkeypatch):
    agent = learn(make_agent())
    travelled = pickle.loads(pickle.dumps(agent))
    assert same(travelled, agent) and travelled.device == agent.device
    assert not {tensor.data_ptr() for tensor in tensors(agent)} & {
        tensor.data_ptr() for tensor in tensors(travelled)
    }

    def fail(*arguments):
        raise AssertionError("it was serialised")

    for name in ("dumps", "loads", "copied"):
        monkeypatch.setattr(checkpoint, name, fail)
    assert vars(agent.clone()).keys() == vars(agent).keys()
    with pytest.raises(AssertionError, match="serialised"):
        pickle.dumps(agent)


@pytest.mark.filterwarnings("ignore:for .*a no-op")  # a tensor on "meta" has no values
def test_an_agent_arrives_in_another_process_on_the_device_that_it_left():
    agent = make_agent()
    agent.device = torch.device("meta")  # the one that is everywhere, beside the CPU
    assert pickle.loads(pickle.dumps(agent)).device.type == "meta"


def test_a_clone_keeps_what_an_exercise_hangs_on_an_agent_and_shares_none_of_it():
    agent = make_agent()
    agent.notes = ["first"]
    clone = agent.clone()
    clone.notes.append("second")
    assert agent.notes == ["first"] and clone.notes == ["first", "second"]


@pytest.mark.parametrize("trained", ["agent", "clone"])
def test_training_one_of_a_pair_moves_no_other(trained):
    agent = learn(make_agent())
    clone = agent.clone()
    pair = {"agent": agent, "clone": clone}
    moving = pair.pop(trained)
    (still,) = pair.values()
    before = flat(still.state())
    learn(moving, seed=50)
    moving.fitness.append(1.0)
    moving.set_hp(lr_actor=0.5)
    assert flat(still.state()) == before
    assert not same(agent, clone)


def test_new_hyper_parameters_are_in_force_and_all_else_stays():
    agent = learn(make_agent())
    before, hp = agent.state(), agent.hp
    agent.set_hp(lr_actor=0.5, gamma=0.5)
    assert agent.hp == replace(hp, lr_actor=0.5, gamma=0.5)
    rates = {name: optimizer.param_groups[0]["lr"] for name, optimizer in agent.optimizers.items()}
    assert rates == {"actor": 0.5, "critic": hp.lr_critic}
    assert flat(agent.state() | {"hp": None}) == flat(before | {"hp": None})


class Own(TD3):
    """What an exercise might make of it."""


def test_a_clone_of_a_subclass_is_one():
    agent = Own(OBSERVATIONS, ACTIONS, generator=torch.Generator())
    assert type(agent.clone()) is Own and type(pickle.loads(pickle.dumps(agent))) is Own


def test_the_next_updates_of_a_clone_equal_its_parents():
    agent = learn(make_agent())
    clone = agent.clone()
    assert same(learn(agent, seed=9), learn(clone, seed=9))


def test_the_optimisers_of_a_clone_follow_its_own_parameters():
    clone = learn(make_agent()).clone()
    for name, network in clone.networks.items():
        group = clone.optimizers[name].param_groups[0]["params"]
        assert all(held is live for held, live in zip(group, network.parameters(), strict=True))


def test_the_mutated_clone_is_equal_too():
    agent = learn(make_agent())
    agent.set_networks(
        **{
            name: net.add_layer().add_nodes(1, 3, np.random.default_rng(0))
            for name, net in agent.networks.items()
        }
    )
    agent.set_networks(
        **{name: network.change_activation("gelu") for name, network in agent.networks.items()}
    )
    agent.set_hp(learn_step=5, lr_critic=0.02)
    learn(agent, updates=1)
    clone = agent.clone()
    assert same(clone, agent) and clone.hidden_size == (8, 11, 8) and clone.activation == "gelu"


def test_a_state_is_plain_data_that_survives_bytes_and_shares_nothing_with_the_agent():
    agent = learn(make_agent())
    state = agent.state()
    back = TD3.from_state(checkpoint.loads(checkpoint.dumps(state)))
    assert same(back, agent)
    first, second = TD3.from_state(state), TD3.from_state(state)
    learn(first, seed=50)
    assert same(second, agent), "two agents of one state share something"
    learn(agent, seed=60)
    assert same(TD3.from_state(state), back), "the state changed with the agent"


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_a_state_keeps_the_spaces(dtype):
    edges = np.array([[-2, 0], [1, 3]], dtype=dtype)
    spaces = Box(-np.inf, 5, (2,), dtype), Box(*edges, dtype=dtype)
    agent = TD3(*spaces, generator=torch.Generator())
    back = TD3.from_state(checkpoint.loads(checkpoint.dumps(agent.state())))
    assert (back.observation_space, back.action_space) == spaces
    assert back.action_space.dtype == dtype == back.get_action(np.zeros(2)).dtype


@pytest.mark.parametrize("dtype", [np.float64, np.float32, np.uint8])
def test_an_agent_learns_from_observations_of_any_type_and_acts_in_its_box(dtype):
    box = Box(np.array([-0.1, 0.1]), np.array([0.1, 0.3]), dtype=np.float64)  # no float32 numbers
    observations = Box(0, 200, (2,), dtype)
    agent = TD3(
        observations, box, HyperParams(batch_size=4, policy_freq=1), generator=torch.Generator()
    )
    memory = ReplayBuffer(10, observations, box)
    obs = np.arange(20).reshape(10, 2)
    memory.add(obs, np.tile([0.0, 0.2], (10, 1)), np.ones(10), obs, np.arange(10) % 2)
    for _ in range(4):
        agent.learn(memory.sample(4, np.random.default_rng(0)))
    assert agent.is_finite()
    for value in (-50.0, 50.0):
        constant(agent.networks["actor"], value)
        assert box.contains(agent.get_action(obs[0])), "rounding stepped over an edge"


def test_a_checkpoint_brings_the_agent_back(tmp_path):
    agent = learn(make_agent())
    agent.save_checkpoint(tmp_path / "agent.pt")
    assert same(TD3.load_checkpoint(tmp_path / "agent.pt"), agent)


def test_a_checkpoint_of_something_else_is_refused(tmp_path):
    checkpoint.save({"generation": 3}, tmp_path / "other.pt")
    with pytest.raises(ValueError, match=r"cannot load .*other\.pt: it holds something else"):
        TD3.load_checkpoint(tmp_path / "other.pt")


def test_one_part_of_an_action_that_is_no_number_is_enough():
    agent = make_agent()
    agent.networks["actor"].biases[-1].data[..., 1] = math.nan
    with pytest.raises(FloatingPointError, match="the policy diverged"):
        agent.get_action(np.zeros((4, 3)))


@pytest.mark.parametrize("obs", [np.zeros(3), np.zeros((4, 3))])
def test_a_policy_that_diverged_gives_no_action(obs):
    agent = make_agent()
    agent.networks["actor"].weights[0].data.fill_(math.nan)
    with pytest.raises(FloatingPointError, match="the policy diverged"):
        agent.get_action(obs)


@pytest.mark.parametrize("broken", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("network", ["actor", "critic"])
def test_an_agent_knows_whether_its_weights_are_numbers(network, broken):
    agent = learn(make_agent())
    assert agent.is_finite()
    agent.networks[network].biases[1].data.view(-1)[3] = broken
    assert not agent.is_finite()


# What evolution changes


def test_a_new_number_keeps_networks_and_moments_and_is_live():
    agent = learn(make_agent())
    before = flat(agent.state()["networks"])
    agent.set_hp(lr_actor=0.5, lr_critic=0.25, gamma=0.5)
    assert agent.hp.gamma == 0.5
    assert agent.optimizers["actor"].param_groups[0]["lr"] == 0.5
    assert agent.optimizers["critic"].param_groups[0]["lr"] == 0.25
    assert flat(agent.state()["networks"]) == before


def test_a_replaced_network_gets_a_fresh_target_and_optimiser_and_the_other_keeps_its_own():
    agent = learn(make_agent(hp=HyperParams(lr_actor=0.007)))
    critic = flat(agent.state()["networks"]["critic"])
    new = agent.networks["actor"].add_nodes(0, 2, np.random.default_rng(0))
    agent.set_networks(actor=new)
    assert agent.networks["actor"] is new
    assert flat(agent.targets["actor"].state_dict()) == flat(new.state_dict())
    assert agent.targets["actor"] is not new
    assert not agent.optimizers["actor"].state
    assert agent.optimizers["actor"].param_groups[0]["lr"] == 0.007
    assert flat(agent.state()["networks"]["critic"]) == critic
    learn(agent)


def test_the_critic_is_an_ensemble_of_two_over_observation_and_action():
    agent = make_agent()
    q1, q2 = agent.networks["critic"](torch.cat([torch.zeros(5, 3), torch.zeros(5, 2)], -1))
    assert q1.shape == q2.shape == (5, 1) and not torch.equal(q1, q2)
    assert isinstance(agent.networks["critic"], EvolvableMLP)
    assert (
        list(agent.networks) == list(agent.targets) == list(agent.optimizers) == ["actor", "critic"]
    )


def test_an_environment_may_change_torchs_default_of_numbers():
    batch = make_batch()

    def grown():
        agent = make_agent()
        agent.set_networks(actor=agent.networks["actor"].add_layer())
        for seed in range(4):
            agent.learn(batch, torch.Generator().manual_seed(seed))
        return agent

    expected = grown()
    torch.set_default_dtype(torch.float64)
    try:
        assert same(grown(), expected)
    finally:
        torch.set_default_dtype(torch.float32)


# What is refused


def test_the_defaults_are_the_hyper_parameters_of_the_benchmark():
    assert HyperParams() == train_lunar.SETTINGS.hp


@pytest.mark.parametrize(
    "wrong, rule",
    [
        ({"batch_size": 0}, "a whole number from 1 to 1000000, not 0"),
        ({"batch_size": 12.0}, "a whole number from 1 to 1000000, not 12.0"),
        ({"learn_step": 0}, "a whole number from 1 to 1000000, not 0"),
        ({"learn_step": True}, "a whole number from 1 to 1000000, not True"),
        ({"policy_freq": -1}, "a whole number from 1 to 1000000, not -1"),
        ({"lr_actor": -1e-4}, "a number from 0 to 1, not -0.0001"),
        ({"lr_actor": 1.5}, "a number from 0 to 1, not 1.5"),
        ({"lr_critic": math.nan}, "a number from 0 to 1, not nan"),
        ({"lr_critic": "0.1"}, "a number from 0 to 1, not '0.1'"),
        ({"gamma": 1.01}, "a number from 0 to 1, not 1.01"),
        ({"reward_scale": -1}, "a number from 0 to 1000000, not -1"),
        ({"tau": 2}, "a number from 0 to 1, not 2"),
        ({"policy_noise": None}, "a number from 0 to 1000, not None"),
        ({"noise_clip": 1001}, "a number from 0 to 1000, not 1001"),
        ({"expl_noise": math.inf}, "a number from 0 to 1000, not inf"),
    ],
)
def test_a_hyper_parameter_that_makes_no_sense_is_refused_by_name_with_its_range(wrong, rule):
    (name,) = wrong
    with pytest.raises(ValueError, match=f"{name} must be {rule}"):
        HyperParams(**wrong)
    with pytest.raises(ValueError, match=f"{name} must be {rule}"):
        make_agent().set_hp(**wrong)


def test_every_hyper_parameter_has_a_range_whose_ends_are_allowed():
    assert list(RANGES) == [hyper_param.name for hyper_param in fields(HyperParams)]
    for end in (0, 1):
        HyperParams(**{name: limits[end] for name, limits in RANGES.items()})


@pytest.mark.parametrize(
    "space",
    [
        Box(-np.inf, np.inf, (2,)),
        Box(0, np.inf, (2,)),
        Box(-100, 127, (2,), np.int8),
        Box(-1e39, 1e39, (2,), np.float64),  # infinite as float32
        Box(-3e38, 3e38, (2,)),  # finite, but the way from end to end is not
    ],
)
def test_an_action_space_without_bounds_that_float32_can_hold_is_refused(space):
    with pytest.raises(ValueError, match="real actions with finite bounds whose difference fits"):
        TD3(OBSERVATIONS, space)


def test_a_large_action_space_whose_size_float32_can_hold_is_taken():
    agent = TD3(OBSERVATIONS, Box(-1e38, 1e38, (2,)), generator=torch.Generator())
    assert np.isfinite(agent.get_action(np.zeros(3))).all()


@pytest.mark.parametrize("space", [Discrete(4), Box(-1, 1, (2, 2))])
def test_actions_that_are_no_vectors_are_refused(space):
    with pytest.raises(ValueError, match="actions that are vectors"):
        TD3(OBSERVATIONS, space)


@pytest.mark.parametrize("space", [Discrete(4), Box(0, 1, (8, 8, 3)), Box(-1, 1, (2, 2))])
def test_observations_that_are_neither_vectors_nor_images_are_refused(space):
    with pytest.raises(ValueError, match="observations that are vectors, or images of uint8"):
        TD3(space, ACTIONS)


@pytest.mark.filterwarnings("ignore:for .*a no-op")  # of numbers that "meta" does not keep
def test_an_agent_lives_on_the_device_that_it_is_made_or_loaded_for(tmp_path):
    path = tmp_path / "agent.pt"
    make_agent().save_checkpoint(path)
    agents = [  # "meta" is every machine's other device: shapes without numbers
        make_agent(device="meta"),
        TD3.from_state(make_agent().state(), "meta"),
        TD3.load_checkpoint(path, "meta"),
    ]
    for agent in agents:
        assert agent.device.type == "meta"
        assert {tensor.device.type for tensor in tensors(agent)} == {"meta"}


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA here")
def test_an_agent_learns_on_cuda_and_comes_back_to_the_cpu():
    agent = make_agent(device="cuda")
    batch = Batch(*(tensor.to("cuda") for tensor in make_batch()))
    for _ in range(4):
        agent.learn(batch, torch.Generator("cuda").manual_seed(0))
    assert {
        tensor.device.type
        for name in agent.networks
        for tensor in agent.networks[name].parameters()
    } == {"cuda"}
    back = TD3.from_state(agent.state(), "cpu")
    assert same(back, agent)
    learn(back)
    assert same(agent.clone(), agent)


@pytest.mark.skipif(np.dtype(np.longdouble).itemsize == 8, reason="no longer numbers here")
def test_numbers_that_torch_does_not_have_are_refused():
    with np.errstate(over="ignore"):
        long = Box(-1, 1, (1,), np.longdouble)
    with pytest.raises(ValueError, match="TD3 needs observations of at most 64 bits, not Box"):
        TD3(long, UNIT)
    with pytest.raises(ValueError, match="TD3 needs actions of at most 64 bits, not Box"):
        TD3(UNIT, long)
