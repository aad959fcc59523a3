"""Exploration noise: the right size, the right memory, a row for each environment."""

import numpy as np
import pytest

from tinyevo.noise import GaussianNoise, OrnsteinUhlenbeckNoise, make_noise


def walk(noise, steps, seed=0):
    rng = np.random.default_rng(seed)
    return np.stack([noise.sample(rng) for _ in range(steps)])  # (steps, num_envs, action_dim)


NOISES = pytest.mark.parametrize(
    "make",
    [
        lambda: GaussianNoise(3, 2, 0.0, 0.1),
        lambda: OrnsteinUhlenbeckNoise(3, 2, 0.0, 0.1, 0.15, 1.0),
    ],
    ids=["gaussian", "ornstein-uhlenbeck"],
)


@NOISES
def test_a_sample_has_a_row_for_each_environment_and_follows_from_the_generator(make):
    assert walk(make(), 5).shape == (5, 3, 2)
    assert np.array_equal(walk(make(), 5), walk(make(), 5))
    assert not np.array_equal(walk(make(), 5), walk(make(), 5, seed=1))


@NOISES
def test_environments_and_dimensions_are_independent(make):
    columns = walk(make(), 20_000).reshape(20_000, 6)
    off_diagonal = np.corrcoef(columns.T)[~np.eye(6, dtype=bool)]
    assert np.abs(off_diagonal).max() < 0.1


def test_gaussian_noise_has_its_mean_and_deviation_and_no_memory():
    steps = walk(GaussianNoise(1, 1, 0.5, 0.2), 20_000).ravel()
    assert steps.mean() == pytest.approx(0.5, abs=0.01)
    assert steps.std() == pytest.approx(0.2, rel=0.02)
    assert np.corrcoef(steps[1:], steps[:-1])[0, 1] == pytest.approx(0, abs=0.03)


@pytest.mark.parametrize("theta, sigma, dt", [(0.15, 0.3, 1.0), (0.5, 0.2, 0.5), (1.0, 0.1, 1.0)])
def test_the_walk_settles_at_the_deviation_and_correlation_that_theory_gives(theta, sigma, dt):
    steps = walk(OrnsteinUhlenbeckNoise(1000, 1, 0.3, sigma, theta, dt), 400)[300:]
    assert steps.mean() == pytest.approx(0.3, abs=0.02)
    assert steps.std() == pytest.approx(sigma / (2 * theta - theta**2 * dt) ** 0.5, rel=0.05)
    neighbours = np.corrcoef(steps[1:].ravel(), steps[:-1].ravel())[0, 1]
    assert neighbours == pytest.approx(1 - theta * dt, abs=0.02)


def test_one_step_of_the_walk_worked_by_hand():
    noise = OrnsteinUhlenbeckNoise(1, 1, mean=1.0, sigma=0.0, theta=0.5, dt=0.5)
    noise.x[:] = 3.0
    # 3 + 0.5 (1 - 3) 0.5 = 2.5, and again: 2.5 + 0.5 (1 - 2.5) 0.5 = 2.125
    assert walk(noise, 2).ravel().tolist() == [2.5, 2.125]


def test_the_walk_begins_at_its_mean_and_returns_there_where_an_episode_ended():
    noise = OrnsteinUhlenbeckNoise(3, 2, mean=0.5, sigma=0.3, theta=0.15, dt=1.0)
    assert (noise.x == 0.5).all()
    before = walk(noise, 10)[-1].copy()
    noise.reset(np.array([False, True, False]))
    assert np.array_equal(noise.x[[0, 2]], before[[0, 2]])
    assert (noise.x[1] == 0.5).all()


def test_a_sample_stays_as_it_was_when_the_walk_goes_on():
    noise = OrnsteinUhlenbeckNoise(2, 1, 0.0, 0.3, 0.15, 1.0)
    rng = np.random.default_rng(0)
    sample = noise.sample(rng)
    before = sample.copy()
    noise.sample(rng)
    noise.reset([True, True])
    assert np.array_equal(sample, before)


@NOISES
def test_whoever_changes_a_sample_does_not_change_the_noise(make):
    changed, untouched = make(), make()
    rngs = np.random.default_rng(0), np.random.default_rng(0)
    changed.sample(rngs[0])[:] = 77
    untouched.sample(rngs[1])
    assert np.array_equal(changed.sample(rngs[0]), untouched.sample(rngs[1]))


@NOISES
def test_the_noise_is_as_large_in_every_environment_and_dimension(make):
    # 200 forgetting times of the walk or more: each deviation is within a tenth of the others'.
    deviations = walk(make(), 5000).std(axis=0)
    assert deviations == pytest.approx(deviations.mean(), rel=0.2)


def test_gaussian_noise_has_nothing_to_reset():
    noise = GaussianNoise(2, 1, 0.0, 0.3)
    noise.reset([True, False])
    assert np.array_equal(walk(noise, 3), walk(GaussianNoise(2, 1, 0.0, 0.3), 3))


def test_noise_is_made_by_its_kind():
    settings = (3, 2, 0.5, 0.1, 0.15, 1.0)
    assert np.array_equal(
        walk(make_noise("gaussian", *settings), 5), walk(GaussianNoise(*settings[:4]), 5)
    )
    assert np.array_equal(
        walk(make_noise("ou", *settings), 5), walk(OrnsteinUhlenbeckNoise(*settings), 5)
    )
    with pytest.raises(ValueError, match="noise must be 'ou' or 'gaussian', not 'gausian'"):
        make_noise("gausian", *settings)
