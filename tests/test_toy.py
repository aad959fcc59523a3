"""The tutorial's toy: where no member of the first generation can solve a problem, evolution does."""

import pytest
from test_tutorial import TEXT, blocks

(TOY,) = [body for _, body in blocks(TEXT) if "class Climber:" in body]
toy = {"__name__": "toy"}
exec(compile(TOY, "toy.py", "exec"), toy)
evolve = toy["evolve"]


@pytest.mark.parametrize("seed", range(10))
def test_evolution_solves_what_no_founder_can(seed):
    assert evolve(seed, select=False, mutate=False) == pytest.approx(0.39, abs=0.005)
    assert evolve(seed, select=True, mutate=True) > 1.18  # of at most 1.2


@pytest.mark.parametrize("seed", range(10))
def test_selection_without_mutation_finds_nothing_new(seed):
    assert evolve(seed, select=True, mutate=False) == pytest.approx(0.39, abs=0.005)


def test_mutation_without_selection_gets_there_later():
    def mean(select):
        return sum(evolve(seed, select, mutate=True) for seed in range(10)) / 10

    assert 1.1 < mean(select=False) < mean(select=True)


def test_a_seed_gives_one_result():
    assert evolve(3, select=True, mutate=True) == evolve(3, select=True, mutate=True)
