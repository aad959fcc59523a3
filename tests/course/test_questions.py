"""The questions: what the package computes is what theory says, and a name decides the constants."""

import itertools
import math
from statistics import NormalDist

import numpy as np
import pytest
from questions import (
    QUESTIONS,
    asked,
    curse,
    fits,
    given,
    growth,
    loss,
    noise,
    places,
    right,
    takeover,
    updates,
    worth,
)
from tasks import DERIVE, PREDICT, TASKS

NAMES = ["", "Ada Lovelace", "Grace Hopper", "Emmy Noether"]


def test_every_question_belongs_to_a_task_and_every_task_has_its_questions():
    keys = [key for task in TASKS if task.kind in (PREDICT, DERIVE) for key in task.tests]
    assert sorted(keys) == sorted(QUESTIONS)


@pytest.mark.parametrize("key", QUESTIONS)
def test_a_question_says_all_its_constants_and_they_follow_from_the_name(key):
    for name in NAMES:
        text = asked(name, key)
        assert "{" not in text and all(len(line) <= 98 for line in text.splitlines())
        assert all(str(value) in text for value in given(name, key).values())
        assert asked(name.upper() + " ", key) == text
    many = {asked(str(number), key) for number in range(50)}
    assert len(many) >= min(8, math.prod(map(len, QUESTIONS[key].choices.values())))


def test_an_answer_is_a_number_within_its_tolerance():
    value = right("Ada", "noise")
    assert fits(value, "Ada", "noise") and fits(1.014 * value, "Ada", "noise")
    assert not fits(1.03 * value, "Ada", "noise") and not fits(0.97 * value, "Ada", "noise")
    assert not fits(str(value), "Ada", "noise") and not fits(True, "Ada", "growth")
    assert not fits(math.nan, "Ada", "noise") and not fits(math.inf, "Ada", "noise")


def test_predictions_are_what_theory_says():
    # Of 24 steps of 4 environments the first 5 begin before 20 transitions are stored.
    assert updates(envs=4, steps=96, learn_step=7, delay=20) == (96 - 20) // 7
    assert updates(envs=3, steps=120, learn_step=5, delay=31) == (120 - 33) // 5
    for theta, sigma, dt in ((0.2, 0.3, 0.5), (0.6, 0.3, 0.5), (0.2, 0.5, 1.0)):
        settled = sigma / math.sqrt(2 * theta - theta**2 * dt)
        theory = 2 * (1 - NormalDist(0, settled).cdf(0.5))
        assert noise(theta, sigma, dt) == pytest.approx(theory, rel=0.015)
    # y is 2 where it ended and 2 + 0.5 x 3 = 3.5 elsewhere; the critics say 1 and 2.
    one, other = (1 - 2) ** 2 + (2 - 2) ** 2, (1 - 3.5) ** 2 + (2 - 3.5) ** 2
    assert loss(2.0, 0.5, (5.0, 3.0), (1.0, 2.0), 4, 1) == pytest.approx((one + 3 * other) / 4)
    assert growth(1, 16, 1.25) == len([2, 3, 4, 5, 6, 8, 10, 12, 15, 16])


@pytest.mark.slow
def test_no_variant_takes_a_neighbouring_theory_for_the_right_one():
    for own in variants("noise"):
        short = NormalDist(0, own["sigma"] / math.sqrt(2 * own["theta"]))  # steps without length
        wrong = 2 * (1 - short.cdf(0.5))
        assert abs(wrong / noise(**own) - 1) > QUESTIONS["noise"].tolerance
    for own in variants("second"):
        n, k = own["members"], own["rivals"]
        again = ((n - 1) / n) ** k - ((n - 2) / n) ** k  # rivals drawn with replacement
        wrong = (n - 1) / n * again
        assert abs(wrong / places(**own)[1] - 1) > QUESTIONS["second"].tolerance


@pytest.mark.slow
def test_the_shares_of_the_places_are_what_theory_says():
    for own in variants("second"):
        n, k = own["members"], own["rivals"]
        wins = [math.comb(n - rank, k - 1) for rank in range(1, n + 1)]
        fought = np.array(wins) / math.comb(n, k) * (n - 1) / n
        fought[0] += 1 / n
        shares = places(**own)
        assert shares[:2] == pytest.approx(fought[:2], rel=0.015)
        assert shares == pytest.approx(fought, abs=0.003)


def variants(key):
    """All choices of a question's constants."""
    choices = QUESTIONS[key].choices
    return [dict(zip(choices, values)) for values in itertools.product(*choices.values())]


def exact_takeover(members, rivals):
    """The mean time until one founder is left, by the chain of the sizes of families."""
    ranks = range(members)
    wins = [math.comb(members - 1 - rank, rivals - 1) for rank in ranks]
    chance = np.array(wins) / math.comb(members, rivals)
    start = (1,) * members
    states, moves = [start], {}
    for state in states:  # grows while it is walked through
        founders = [founder for founder, size in enumerate(state) for _ in range(size)]
        moves[state] = {}
        orders = set(itertools.permutations(founders))
        for order in orders:
            for children in itertools.product(ranks, repeat=members - 1):
                family = [order[0], *(order[rank] for rank in children)]
                after = tuple(sorted((family.count(f) for f in set(family)), reverse=True))
                share = math.prod(chance[rank] for rank in children) / len(orders)
                moves[state][after] = moves[state].get(after, 0) + share
        states += [after for after in moves[state] if after not in states and len(after) > 1]
    matrix = np.eye(len(states))
    for row, state in enumerate(states):
        for after, share in moves[state].items():
            if after in states:
                matrix[row, states.index(after)] -= share
    return np.linalg.solve(matrix, np.ones(len(states)))[0]


@pytest.mark.slow
def test_drift_takes_as_long_as_the_chain_says():
    assert exact_takeover(4, 2) == pytest.approx(87 / 28)  # 3.1: the tutorial's own case
    for members, rivals in ((4, 2), (5, 2), (5, 3)):
        assert takeover(members, rivals) == pytest.approx(exact_takeover(members, rivals), rel=0.03)


@pytest.mark.slow
def test_values_and_the_winners_curse_are_what_theory_says():
    assert worth(2.0, 0.9, 0.2) == pytest.approx(2 / (1 - 0.9 * 0.8), rel=1e-3)
    largest_of_three = 1.5 / math.sqrt(math.pi)  # of standard normal numbers, on average
    assert curse(3, 10, 60) == pytest.approx(largest_of_three * 60 / math.sqrt(10), rel=0.03)
