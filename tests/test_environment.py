"""The environments: where an episode ends, and what happens when one of them fails."""

from asyncio import CancelledError
from unittest.mock import Mock

import gymnasium as gym
import numpy as np
import probes
import pytest
import torch

from tinyevo.environment import (
    Guarded,
    can_render,
    episode_limit,
    find_spaces,
    make_env,
    make_envs,
    reward_threshold,
    successors,
)


def test_the_successor_of_a_finished_step_is_its_own_last_observation():
    next_obs = np.array([[1.0], [2.0], [3.0]])
    final = np.array([None, np.array([20.0]), None], dtype=object)
    real = successors(next_obs, {"final_obs": final, "_final_obs": np.array([False, True, False])})
    assert real.tolist() == [[1.0], [20.0], [3.0]]
    assert next_obs.tolist() == [[1.0], [2.0], [3.0]], "the observations to go on from were changed"
    assert np.array_equal(successors(next_obs, {}), next_obs)


def test_final_observations_without_their_mask_are_an_error():
    final = np.array([np.array([20.0])], dtype=object)
    with pytest.raises(KeyError):
        successors(np.array([[1.0]]), {"final_obs": final})


def test_the_environments_start_the_next_episode_in_the_same_step():
    envs = make_envs("probes:Counting-v0", 2, max_episode_steps=1)
    first, _ = envs.reset(seed=[1, 2])
    obs, _, _, _, infos = envs.step(np.tile([0.0, 5.0], (2, 1)).astype(np.float32))
    assert (obs[:, 1] == 0).all() and (obs[:, 0] != first[:, 0]).all()
    assert (successors(obs, infos)[:, 1] == 1).all() and (
        successors(obs, infos)[:, 0] == first[:, 0]
    ).all()
    envs.close()


@pytest.fixture
def faulty(tmp_path, monkeypatch):
    """A function that makes an environment in which something goes wrong in the fourth step of an
    episode.
    """
    monkeypatch.chdir(tmp_path)

    def make(fault, vector=False):
        (tmp_path / "fault").write_text(fault)
        return make_envs("probes:Faulty-v0", 2) if vector else make_env("probes:Faulty-v0")

    return make


FAULTS = {
    "raise": "raised RuntimeError('the engine is on fire')",
    "reward nan": "returned the reward nan",
    "reward -inf": "returned the reward -inf",
    # Finite, but not as float32, in which it would be stored
    "reward 1e39": "returned the reward 1e+39, not finite in float32,",
    "observation nan": "returned the observation [",
    "observation inf": "returned the observation [",
}
ACTION = np.array([0, 5], dtype=np.float32)


@pytest.mark.filterwarnings("ignore:.*(NaN|not within|obs returned).*")
@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("vector", [False, True])
def test_an_environment_that_fails_is_stopped_and_named_with_the_step(faulty, fault, vector):
    env = faulty(fault, vector)
    env.reset(seed=[1, 2] if vector else 1)
    with pytest.raises(gym.error.Error) as caught:
        for _ in range(200):
            *_, terminated, _, _ = env.step(np.stack([ACTION, ACTION]) if vector else ACTION)
            if not vector and terminated:
                env.reset()
    assert str(caught.value).startswith(f"the environment Faulty-v0 {FAULTS[fault]}")
    assert str(caught.value).endswith("in step 4 of an episode")


class Wrong(probes.Counting):
    """Like `Counting`, until it returns (or raises) something else: from `reset` or from `step`."""

    at_reset, in_step = None, {}

    def reset(self, *, seed=None, options=None):
        obs, info = super().reset(seed=seed)
        if isinstance(self.at_reset, BaseException):
            raise self.at_reset
        return obs if self.at_reset is None else self.at_reset, info

    def step(self, action):
        names = ("obs", "reward", "terminated", "truncated", "info")
        result = dict(zip(names, super().step(action))) | self.in_step
        for value in result.values():
            if isinstance(value, BaseException):
                raise value
        return tuple(result.values())


gym.register("Wrong-v0", Wrong)


class Mute(BaseException):
    """Not even its name can be printed."""

    def __repr__(self):
        raise RuntimeError("no words")

    __str__ = __repr__


def wrong(at_reset=None, **in_step):
    """A guarded `Wrong`, named as one from the registry is."""
    env = Wrong()
    env.spec, env.at_reset, env.in_step = gym.spec("Counting-v0"), at_reset, in_step
    return Guarded(env)


@pytest.mark.parametrize(
    "what, fault",
    [
        (RuntimeError("no fuel"), r"raised RuntimeError\('no fuel'\)"),
        (SystemExit(3), r"raised SystemExit\(3\)"),
        (GeneratorExit(), r"raised GeneratorExit\(\)"),
        (StopIteration(), r"raised StopIteration\(\)"),
        (Mute(), "raised Mute without a repr"),
        (np.full(3, np.nan), r"returned the observation \[nan nan nan\], not finite in float32,"),
        (np.zeros(4), r"said that its observation has shape \(3,\), but returned \(4,\)"),
        (np.zeros((3, 1)), r"said that its observation has shape \(3,\), but returned \(3, 1\)"),
        ("north", "returned the observation 'north', which is not of float32"),
        (["1", "2", "3"], r"returned the observation \['1', '2', '3'\], which is not of float32"),
        (np.array([1j, 2, 3]), "returned the observation .*, which is not of float32"),
        (np.array([1, 2, 3], object), "returned the observation .*, which is not of float32"),
        (
            [[1.0], [2.0, 3.0]],
            r"returned the observation \[\[1.0\], \[2.0, 3.0\]\], which is not of float32",
        ),
    ],
)
def test_a_failure_of_reset_is_named_too(what, fault):
    message = f"the environment Counting-v0 {fault} in step 0 of an episode"
    with pytest.raises(gym.error.Error, match=message):
        wrong(at_reset=what).reset(seed=1)


@pytest.mark.parametrize(
    "what, fault",
    [
        ({"obs": SystemExit(0)}, r"raised SystemExit\(0\)"),
        ({"obs": CancelledError()}, r"raised CancelledError\(\)"),
        ({"obs": np.zeros(2)}, r"said that its observation has shape \(3,\), but returned \(2,\)"),
        ({"obs": [Mute()]}, "returned the observation list without a repr"),
        ({"reward": [Mute()]}, "returned the reward list without a repr"),
        ({"obs": None}, "returned the observation None, which is not of float32"),
        ({"reward": np.ones(2)}, r"said that its reward has shape \(\), but returned \(2,\)"),
        ({"reward": np.ones(1)}, r"said that its reward has shape \(\), but returned \(1,\)"),
        ({"reward": "much"}, "returned the reward 'much', which is not of float64"),
        ({"reward": "1.5"}, "returned the reward '1.5', which is not of float64"),
        ({"reward": np.complex64(1 + 2j)}, "returned the reward .*, which is not of float64"),
        ({"reward": torch.ones((), requires_grad=True)}, "returned the reward tensor"),
        ({"reward": None}, "returned the reward None"),
        ({"terminated": np.array([True, False])}, r"raised ValueError\(.*truth value"),
    ],
)
def test_what_is_not_an_observation_a_reward_or_an_end_is_named(what, fault):
    env = wrong(**what)
    env.reset(seed=1)
    message = f"the environment Counting-v0 {fault}.* in step 1 of an episode"
    with pytest.raises(gym.error.Error, match=message):
        env.step(ACTION)


@pytest.mark.parametrize("reward", [1, np.float64(1), np.array(1.0), True])
def test_a_reward_may_be_any_kind_of_a_number(reward):
    env = wrong(reward=reward)
    env.reset(seed=1)
    assert env.step(ACTION)[1] == reward


class Scribbling(probes.Counting):
    """Like `Counting`, but it returns one array again and again, and writes into each action."""

    def reset(self, *, seed=None, options=None):
        obs, info = super().reset(seed=seed)
        self.page = vars(self).get("page", obs)
        self.page[:] = obs
        return self.page, info

    def step(self, action):
        obs, *rest = super().step(action)
        self.page[:] = obs
        action[:] = 0
        return self.page, *rest


gym.register("Scribbling-v0", Scribbling)


@pytest.mark.filterwarnings("ignore:.*share an object")
def test_an_environment_may_write_into_its_own_arrays_and_into_actions():
    envs = make_envs("Scribbling-v0", 2, max_episode_steps=1)
    first, _ = envs.reset(seed=[1, 2])
    action = np.stack([ACTION, ACTION])
    obs, _, _, _, infos = envs.step(action)
    assert (successors(obs, infos)[:, 0] == first[:, 0]).all(), "the next episode's, not the last's"
    assert (action == ACTION).all()
    envs.close()


def test_ctrl_c_is_no_fault_of_the_environment(monkeypatch):
    with pytest.raises(KeyboardInterrupt):
        wrong(at_reset=KeyboardInterrupt()).reset()
    monkeypatch.setattr(Wrong, "__init__", Mock(side_effect=KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        make_env("Wrong-v0")


def test_an_environment_that_cannot_be_made_any_more_is_named(monkeypatch):
    message = r"the environment Wrong-v0 raised RuntimeError\('full'\) when it was made"
    monkeypatch.setattr(Wrong, "__init__", Mock(side_effect=[None, RuntimeError("full"), Mute()]))
    with pytest.raises(gym.error.Error, match=message):
        make_envs("Wrong-v0", 2)
    with pytest.raises(gym.error.Error, match="raised Mute without a repr when it was made"):
        make_env("Wrong-v0")


def test_environments_whose_spaces_differ_are_named(monkeypatch):
    edges = iter([1, 2])

    def grow(self):
        self.observation_space = gym.spaces.Box(0, next(edges), (3,))

    monkeypatch.setattr(Wrong, "__init__", grow)
    with pytest.raises(gym.error.Error, match="the spaces of the environment Wrong-v0 differ"):
        make_envs("Wrong-v0", 2)


@pytest.mark.parametrize("error", [RuntimeError("stuck"), SystemExit(3)])
def test_an_environment_that_cannot_be_closed_is_warned_of_once_and_the_run_goes_on(error):
    env = wrong()
    env.env.close = Mock(side_effect=error)
    with pytest.warns(UserWarning) as warned:
        env.close()
        env.close()
    (warning,) = warned
    message = f"the environment Counting-v0 raised {error!r} when it was closed"
    assert str(warning.message) == message


@pytest.mark.parametrize("look", [find_spaces, can_render, reward_threshold])
def test_a_look_at_an_environment_that_cannot_be_closed_warns(monkeypatch, look):
    monkeypatch.setattr(Wrong, "close", Mock(side_effect=RuntimeError("stuck")))
    with pytest.warns(UserWarning, match="when it was closed"):
        look("Wrong-v0")


def test_an_environment_that_cannot_be_rendered_is_named():
    env = wrong()
    env.env.render = Mock(side_effect=SystemExit(3))
    with pytest.raises(gym.error.Error, match=r"raised SystemExit\(3\) when it was rendered"):
        env.render()


@pytest.mark.filterwarnings("ignore:.*share an object")
def test_the_infos_of_environments_side_by_side_may_be_anything(monkeypatch):
    strange = {"final_obs": 3, "_final_obs": "no"}
    monkeypatch.setattr(Wrong, "in_step", {"info": strange})
    envs = make_envs("Wrong-v0", 2)
    first, _ = envs.reset(seed=[1, 2])
    for _ in range(12):
        obs, _, _, _, infos = envs.step(np.stack([ACTION, ACTION]))
        assert successors(obs, infos).shape == first.shape
    envs.close()


def test_the_steps_are_those_of_the_episode_in_which_the_environment_fails():
    env = wrong()
    for episode in range(3):
        env.reset(seed=episode)
        env.step(ACTION)
    env.reset(seed=9)
    env.env.in_step = {"reward": np.nan}
    fault = "returned the reward nan, not finite in float32, in step 1 of an episode"
    with pytest.raises(gym.error.Error, match=fault):
        env.step(ACTION)


def test_a_failure_keeps_the_environments_own_error_as_its_cause():
    mine = RuntimeError("no fuel")
    with pytest.raises(gym.error.Error) as at_reset:
        wrong(at_reset=mine).reset()
    env = wrong(obs=mine)
    env.reset(seed=1)
    with pytest.raises(gym.error.Error) as in_step:
        env.step(ACTION)
    assert at_reset.value.__cause__ is mine and in_step.value.__cause__ is mine


def test_a_step_before_the_first_reset_is_named_too():
    with pytest.raises(
        gym.error.Error, match=r"Counting-v0 raised ResetNeeded.* in step 1 of an episode"
    ):
        make_env("probes:Counting-v0").step(ACTION)


def test_an_environment_without_an_id_is_named_by_what_it_is():
    bare = wrong(at_reset=ValueError()).unwrapped
    bare.spec = None
    with pytest.raises(gym.error.Error, match=r"the environment <.*Wrong.*> raised ValueError"):
        Guarded(bare).reset()


def test_an_environment_that_does_not_fail_is_left_as_it_is():
    guarded, plain = make_env("probes:Counting-v0"), gym.make("probes:Counting-v0")
    assert np.array_equal(guarded.reset(seed=3)[0], plain.reset(seed=3)[0])
    for a, b in zip(guarded.step(ACTION), plain.step(ACTION)):
        assert np.array_equal(a, b)
    assert make_env("probes:Ticking-v0", max_episode_steps=2).spec.max_episode_steps == 2


def test_the_arguments_of_an_environment_reach_it(monkeypatch):
    env = make_env("probes:Ticking-v0", life=2)
    env.reset()
    assert [env.step(np.zeros(1, dtype=np.float32))[2] for _ in range(2)] == [False, True]
    asked = []
    monkeypatch.setattr(
        probes.Ticking, "reset", lambda self, **given: (np.zeros(1), {"n": asked.append(given)})
    )
    env.reset(seed=4, options={"wind": 3})
    assert asked == [{"seed": 4, "options": {"wind": 3}}]


def test_the_spaces_of_an_environment_are_found_by_its_id():
    counting = probes.Counting.observation_space, probes.Counting.action_space
    assert find_spaces("probes:Counting-v0") == counting
    assert find_spaces("LunarLanderContinuous-v3")[1].shape == (2,)


@pytest.mark.parametrize("env_id, columns", [("Mixed", [2, 3, 4]), ("Paired", [0, 1, 2])])
def test_observations_of_several_parts_are_flattened_into_one_vector(env_id, columns):
    space, _ = find_spaces(f"probes:{env_id}-v0")
    assert space.shape == (5,) and type(space) is gym.spaces.Box
    env, plain = make_env(f"probes:{env_id}-v0"), make_env("probes:Counting-v0")
    (obs, _), (expected, _) = env.reset(seed=1), plain.reset(seed=1)
    button = [column for column in range(5) if column not in columns]
    for pressed in (0, 1, 0):
        assert obs.dtype == space.dtype and space.contains(obs)
        assert obs[columns].tolist() == expected.tolist()
        assert obs[button].tolist() == [1 - pressed, pressed]
        (obs, *_), (expected, *_) = env.step(ACTION), plain.step(ACTION)


@pytest.mark.parametrize(
    "kind",
    [
        gym.spaces.Tuple,
        lambda parts: gym.spaces.Dict(seen=parts[0]),
        lambda parts: gym.spaces.Dict(all=gym.spaces.Tuple(parts)),
    ],
)
def test_images_among_other_parts_are_not_flattened_into_numbers(monkeypatch, kind):
    image = gym.spaces.Box(0, 255, (32, 32, 3), np.uint8)
    monkeypatch.setattr(Wrong, "observation_space", kind([image, gym.spaces.Discrete(2)]))
    with pytest.raises(ValueError, match=r"observations with images in them, .* cannot be flatt"):
        find_spaces("Wrong-v0")


@pytest.mark.parametrize(
    "dtype, obs",
    [
        (np.int8, [300, -200, 1]),
        (np.uint8, np.array([0, 256, 1], np.uint16)),
        (np.uint8, [0, -1, 1]),
    ],
)
def test_whole_numbers_that_do_not_fit_their_space_are_refused_and_not_wrapped(
    monkeypatch, dtype, obs
):
    limits = np.iinfo(dtype)
    space = gym.spaces.Box(limits.min, limits.max, (3,), dtype)
    monkeypatch.setattr(Wrong, "observation_space", space)
    with pytest.raises(gym.error.Error, match=f"which is not of {np.dtype(dtype)} in step 0"):
        wrong(at_reset=obs).reset(seed=1)


def test_an_observation_comes_in_the_dtype_of_its_space_and_fits_into_float32(monkeypatch):
    obs, _ = wrong(at_reset=[0.5, 1.0, 2.0]).reset(seed=1)
    assert obs.dtype == np.float32 and obs.tolist() == [0.5, 1.0, 2.0]
    space = gym.spaces.Box(-np.inf, np.inf, (3,), np.float64)
    monkeypatch.setattr(Wrong, "observation_space", space)
    obs, _ = wrong(at_reset=[0.1, 1.0, 2.0]).reset(seed=1)
    assert obs.dtype == np.float64 and obs[0] == 0.1
    with pytest.raises(gym.error.Error, match=r"the observation \[1.*e\+39"):
        wrong(at_reset=[1e39, 1.0, 2.0]).reset(seed=1)


def test_an_observation_of_another_kind_is_told_by_its_shape_and_kind_not_by_its_numbers():
    env = wrong()
    env.env.reset = Mock(return_value=(np.zeros((3, 40), complex), {}))
    with pytest.raises(
        gym.error.Error, match=r"observation array \(3, 40\) of complex128, which is"
    ):
        env.reset()


def test_a_part_of_an_observation_that_is_missing_is_answered_with_the_name(monkeypatch):
    monkeypatch.setattr(probes.Mixed, "_obs", lambda self: {"button": np.int64(0)})
    env = make_env("probes:Mixed-v0", disable_env_checker=True)
    words = r"^the environment Mixed-v0 raised KeyError\('count'\) in step 0 of an episode$"
    with pytest.raises(gym.error.Error, match=words):
        env.reset(seed=1)


def test_whether_an_environment_gives_pictures_is_known_by_its_id():
    assert can_render("LunarLanderContinuous-v3") and not can_render("probes:Counting-v0")


def test_the_return_at_which_an_environment_counts_as_solved_is_known_by_its_id():
    assert reward_threshold("LunarLanderContinuous-v3") == 200
    assert reward_threshold("probes:Capped-v0") == 2.5
    assert reward_threshold("Pendulum-v1") is None


def test_a_threshold_of_numpy_is_a_number_like_any_other(monkeypatch):
    monkeypatch.setattr(gym.spec("Wrong-v0"), "reward_threshold", np.float32(2.5))
    threshold = reward_threshold("Wrong-v0")
    assert threshold == 2.5 and type(threshold) is float


@pytest.mark.filterwarnings("ignore:.*render_modes")
@pytest.mark.parametrize(
    "modes, pictures", [(None, 0), (3, 0), (["rgb_array_list"], 0), ({"rgb_array"}, 1)]
)
def test_what_an_environment_says_of_its_pictures_may_be_anything(monkeypatch, modes, pictures):
    monkeypatch.setattr(Wrong, "metadata", {"render_modes": modes})
    assert can_render("Wrong-v0") == pictures


def test_an_environment_that_is_only_looked_at_is_closed(monkeypatch):
    closed = []
    monkeypatch.setattr(probes.Counting, "close", lambda self: closed.append(self))
    find_spaces("probes:Counting-v0")
    can_render("probes:Counting-v0")
    reward_threshold("probes:Counting-v0")
    episode_limit("probes:Counting-v0")
    assert len(closed) == 4


@pytest.mark.parametrize("look", [find_spaces, can_render, reward_threshold])
@pytest.mark.parametrize("error", [RuntimeError(), SystemExit(), GeneratorExit(), Mute()])
def test_an_environment_that_cannot_be_made_is_refused_with_what_it_raised(
    monkeypatch, look, error
):
    monkeypatch.setattr(Wrong, "__init__", Mock(side_effect=error))
    words = f"no environment 'Wrong-v0' here: .*Wrong-v0 raised {type(error).__name__}"
    with pytest.raises(ValueError, match=words):
        look("Wrong-v0")


@pytest.mark.parametrize("look", [find_spaces, can_render, reward_threshold])
@pytest.mark.parametrize("env_id", ["Nowhere-v0", "nowhere:Nothing-v0", "not an id"])
def test_an_environment_that_is_not_here_is_refused_by_name_without_a_warning(look, env_id):
    with pytest.raises(ValueError, match=f"there is no environment '{env_id}' here: "):
        look(env_id)
