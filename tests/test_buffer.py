"""ReplayBuffer: a ring that forgets the oldest, and gives back what it was given."""

import copy
import pickle

import numpy as np
import pytest
import torch
from gymnasium.spaces import Box

from tinyevo.buffer import Batch, ReplayBuffer

OBSERVATIONS = Box(-np.inf, np.inf, (3,))
ACTIONS = Box(-2, 2, (2,))


def transitions(first, n):
    """Transitions first, first + 1, ...: every field tells the number, an action in the
    environment's units.
    """
    number = np.arange(first, first + n, dtype=np.float32)
    obs = np.stack([number, number + 0.25, -number], axis=1)
    action = np.stack([number % 2, -2 * (number % 2)], axis=1)
    return obs, action, 10 * number, obs + 1, number % 2 == 1


def filled(capacity, *sizes):
    memory, first = ReplayBuffer(capacity, OBSERVATIONS, ACTIONS), 0
    for size in sizes:
        memory.add(*transitions(first, size))
        first += size
    return memory


def stored(memory):
    """The numbers of the transitions in a memory, oldest first."""
    return memory.latest(len(memory))["obs"][:, 0].astype(int).tolist()


@pytest.mark.parametrize(
    "sizes, numbers",
    [
        ((), []),
        ((4,), [0, 1, 2, 3]),
        ((5, 5), list(range(10))),
        ((7, 5), list(range(2, 12))),  # wraps
        ((10, 1), list(range(1, 11))),
        ((3, 10), list(range(3, 13))),
        ((25,), list(range(15, 25))),  # larger than the capacity
        ((4, 23, 2), list(range(19, 29))),
    ],
)
def test_the_ring_holds_the_last_transitions_in_order(sizes, numbers):
    memory = filled(10, *sizes)
    assert stored(memory) == numbers
    assert len(memory) == len(numbers)
    assert memory.counter == sum(sizes)


def test_one_by_one_and_all_at_once_fill_the_ring_alike():
    assert np.array_equal(filled(10, *[1] * 27).storage, filled(10, 27).storage)


def test_a_sample_holds_whole_transitions_with_unchanged_values():
    memory = filled(100, 60)
    batch = memory.sample(500, np.random.default_rng(0))
    number = batch.obs[:, 0].numpy()
    expected = transitions(0, 60)
    for name, column in zip(Batch._fields, expected):
        values = getattr(batch, name).numpy()
        assert np.array_equal(values, column.reshape(60, -1)[number.astype(int)])


def test_a_sample_is_batch_first_and_of_the_types_that_learning_needs():
    batch = filled(10, 10).sample(4, np.random.default_rng(0))
    shapes = {name: tuple(getattr(batch, name).shape) for name in Batch._fields}
    assert shapes == {
        "obs": (4, 3),
        "action": (4, 2),
        "reward": (4, 1),
        "next_obs": (4, 3),
        "terminated": (4, 1),
    }
    assert batch.terminated.dtype == torch.bool
    assert {tensor.dtype for tensor in batch[:4]} == {torch.float32}


def test_every_stored_transition_is_drawn_equally_often_and_no_other():
    memory = filled(10, 4)  # six places are still empty
    drawn = memory.sample(40_000, np.random.default_rng(0)).obs[:, 0].numpy()
    counts = np.bincount(drawn.astype(int))
    assert len(counts) == 4
    assert counts == pytest.approx(10_000, rel=0.05)


def test_a_transition_may_be_drawn_twice_even_if_there_are_others_left():
    # 20 draws from 20 are all different once in 43 million times.
    memory, rng = filled(20, 20), np.random.default_rng(0)
    for _ in range(5):
        assert memory.sample(20, rng).obs[:, 0].unique().numel() < 20


def test_samples_lie_on_the_device_of_the_memory():
    memory = ReplayBuffer(10, OBSERVATIONS, ACTIONS, device="meta")  # shapes without numbers
    memory.add(*transitions(0, 5))
    back = ReplayBuffer.from_state(memory.state(), OBSERVATIONS, ACTIONS, device="meta")
    for ring in (memory, back):
        batch = ring.sample(3, np.random.default_rng(0))
        assert {tensor.device.type for tensor in batch} == {"meta"}


def test_the_same_generator_draws_the_same_sample():
    memory = filled(100, 50)
    first, second = (memory.sample(20, np.random.default_rng(3)).obs for _ in range(2))
    assert torch.equal(first, second)


def test_changing_a_sample_or_what_was_added_does_not_change_the_memory():
    memory, fields = ReplayBuffer(10, OBSERVATIONS, ACTIONS), transitions(0, 5)
    memory.add(*fields)
    before = copy.deepcopy(memory.storage)
    for column in (
        *fields,
        *(tensor.numpy() for tensor in memory.sample(10, np.random.default_rng(0))),
    ):
        column[:] = 77
    memory.latest(3)["obs"][:] = 77
    assert np.array_equal(memory.storage, before)


@pytest.mark.parametrize(
    "copied",
    [copy.deepcopy, lambda memory: pickle.loads(pickle.dumps(memory))],
    ids=["deepcopy", "pickle"],
)
def test_a_copy_is_equal_and_goes_its_own_way(copied):
    memory = filled(10, 8)
    other = copied(memory)
    assert stored(other) == stored(memory)
    other.add(*transitions(8, 5))
    assert stored(memory) == list(range(8)) and stored(other) == list(range(3, 13))


def test_latest_gives_what_extend_takes():
    source, sink = filled(100, 30), filled(10, 7)
    records = source.latest(4)
    assert records["obs"][:, 0].tolist() == [26, 27, 28, 29]
    sink.extend(records)
    assert stored(sink) == [1, 2, 3, 4, 5, 6, 26, 27, 28, 29]
    assert stored(sink)[-4:] == [26, 27, 28, 29]


def test_latest_gives_all_there_is_and_no_more():
    assert stored(filled(10, 3)) == [0, 1, 2]
    assert len(filled(10, 3).latest(5)) == 3
    assert len(filled(10, 25).latest(15)) == 10
    assert len(filled(10, 3).latest(0)) == 0


def test_observations_and_actions_keep_the_type_of_their_space():
    memory = ReplayBuffer(4, Box(0, 255, (2,), np.uint8), Box(-1, 1, (2,), np.float64))
    memory.add(np.array([[7, 255]]), np.array([[0.1, 0.2]]), [0], np.array([[8, 254]]), [False])
    batch = memory.sample(1, np.random.default_rng(0))
    assert batch.obs.tolist() == [[7, 255]] and batch.next_obs.tolist() == [[8, 254]]
    assert batch.obs.dtype == batch.next_obs.dtype == torch.uint8
    assert batch.action.tolist() == [[0.1, 0.2]] and batch.action.dtype == torch.float64


@pytest.mark.parametrize("sizes", [(), (4,), (7, 8), (25,)])
def test_a_memory_comes_back_from_its_state_place_by_place_and_shares_nothing(sizes):
    memory = filled(10, *sizes)
    state = memory.state()
    back = ReplayBuffer.from_state(state, OBSERVATIONS, ACTIONS)
    assert np.array_equal(back.storage, memory.storage) and back.counter == memory.counter
    for one, other in (
        zip(memory.sample(5, np.random.default_rng(0)), back.sample(5, np.random.default_rng(0)))
        if sizes
        else ()
    ):
        assert torch.equal(one, other)
    back.add(*transitions(100, 3))
    state["records"]["obs"][:] = 77
    assert np.array_equal(memory.storage, filled(10, *sizes).storage)


def test_the_state_of_a_memory_holds_only_what_was_stored():
    records = filled(1000, 3).state()["records"]
    assert {name: len(values) for name, values in records.items()} == dict.fromkeys(
        Batch._fields, 3
    )


def test_a_single_transition_without_a_batch_axis_is_refused():
    obs, action, reward, next_obs, terminated = (field[0] for field in transitions(5, 1))
    memory = filled(10)
    with pytest.raises(
        TypeError
    ):  # its fields would be spread over as many rows as an observation has entries
        memory.add(obs, action, reward, next_obs, terminated)
    assert len(memory) == 0


@pytest.mark.parametrize("name", ["obs", "action", "next_obs"])
def test_one_observation_or_action_for_a_whole_batch_is_refused(name):
    given = dict(zip(Batch._fields, transitions(0, 3)))
    given[name] = given[name][0]
    memory = filled(10)
    with pytest.raises(ValueError, match=rf"{name} must be \(3, .*for 3 rewards"):
        memory.add(**given)
    assert len(memory) == 0


def test_an_empty_memory_says_so():
    with pytest.raises(ValueError, match="empty"):
        filled(10).sample(1, np.random.default_rng(0))


@pytest.mark.parametrize("capacity", [0, -1, 2.5, "10", None, True])
def test_a_capacity_that_holds_nothing_is_refused(capacity):
    with pytest.raises(ValueError, match="capacity must be a whole number of at least 1"):
        ReplayBuffer(capacity, OBSERVATIONS, ACTIONS)
