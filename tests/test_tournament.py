"""TournamentSelection: who gets children."""

import itertools
import math
from collections import Counter

import numpy as np
import pytest
import torch
from common import flat, learn, make_agent, same, tensors

from tinyevo.tournament import TournamentSelection


class Stub:
    """The least that selection needs of an agent."""

    def __init__(self, id, fitness):
        self.id, self.parent_id = id, None
        self.mutation_kind, self.mutation = "parameters", "parameters 7 weights"
        self.fitness = [fitness]

    def is_finite(self):
        return True

    def clone(self):
        clone = Stub(self.id, self.fitness[-1])
        vars(clone).update(vars(self))
        return clone


def stubs(*fitnesses):
    return [Stub(id, fitness) for id, fitness in enumerate(fitnesses)]


def parents(selection, population, rounds=1, seed=0):
    """How often each id became a parent."""
    rng = np.random.default_rng(seed)
    return Counter(
        child.parent_id for _ in range(rounds) for child in selection.select(population, rng)[1]
    )


def test_the_best_parents_everybody_if_all_take_part_in_each_tournament():
    for best in range(4):
        population = stubs(*[1.0 if id == best else 0.0 for id in range(4)])
        assert parents(TournamentSelection(4, elitism=False), population, rounds=50) == {best: 200}


def test_a_tournament_larger_than_the_population_is_one_of_all():
    assert parents(TournamentSelection(9, elitism=False), stubs(1, 3, 2), rounds=50) == {1: 200}


def test_tournaments_of_one_are_pure_chance():
    count = parents(TournamentSelection(1, elitism=False), stubs(5, -300, 0, 200), rounds=5000)
    assert [count[id] for id in range(4)] == pytest.approx([5000] * 4, rel=0.05)


def test_the_worked_example_of_two_rivals_among_two():
    # Both are drawn, always: the better one wins, always.
    assert parents(TournamentSelection(2, elitism=False), stubs(-120.0, 35.0), rounds=50) == {
        1: 200
    }


def test_win_frequencies_for_two_rivals_of_four_match_theory():
    # Of the 6 pairs, the best is in 3 and wins all, the second wins 2, the third 1, the last none.
    count = parents(TournamentSelection(2, elitism=False), stubs(10, 40, 30, 20), rounds=6000)
    assert [count[id] for id in (1, 2, 3)] == pytest.approx([12_000, 8_000, 4_000], rel=0.05)
    assert count[0] == 0


def test_with_elitism_the_best_of_four_has_five_eighths_of_the_places():
    population = stubs(10, 40, 30, 20)
    rng = np.random.default_rng(0)
    count = Counter()
    for _ in range(3000):
        _, (elite, *children) = TournamentSelection(2, True, 4).select(population, rng)
        count.update([elite.id, *(child.parent_id for child in children)])
    assert [count[id] / 12_000 for id in (1, 2, 3, 0)] == pytest.approx(
        [5 / 8, 1 / 4, 1 / 8, 0], abs=0.02
    )


def test_the_last_fitness_counts():
    population = stubs(0, 1)
    population[0].fitness = [-50.0, 7.0]
    assert parents(TournamentSelection(2, elitism=False), population) == {0: 4}


@pytest.mark.parametrize("elitism", [True, False])
def test_a_great_past_helps_neither_the_elite_nor_a_parent(elitism):
    population = stubs(0, 0)
    population[0].fitness, population[1].fitness = [900.0, 1.0], [-900.0, 2.0]
    selection = TournamentSelection(2, elitism)
    elite, offspring = selection.select(population, np.random.default_rng(0))
    assert elite.id == selection.elite(population).id == 1
    assert [child.parent_id for child in offspring[elitism:]] == [1] * (4 - elitism)


@pytest.mark.parametrize("elitism", [True, False])
@pytest.mark.parametrize("size", [1, 2, 4, 7])
def test_the_next_generation_has_its_size_unique_ids_and_living_parents(size, elitism):
    population = stubs(1, 4, 2, 3)
    seen = {agent.id for agent in population}
    rng = np.random.default_rng(0)
    for _ in range(20):
        ids = {agent.id for agent in population}
        _, offspring = TournamentSelection(2, elitism, size).select(population, rng)
        assert len(offspring) == size and len({agent.id for agent in offspring}) == size
        for child in offspring[1:] if elitism else offspring:
            assert child.parent_id in ids
            assert child.id not in seen, "an id was given twice"
            assert child.mutation_kind == child.mutation == "none"
            seen.add(child.id)
        population = offspring


def test_the_elite_goes_on_as_it_was_in_the_first_place():
    population = [learn(make_agent(seed)) for seed in range(3)]
    for agent, fitness in zip(population, (1.0, 9.0, 5.0)):
        agent.parent_id, agent.steps, agent.fitness = 3, 800, [fitness]
        agent.mutation_kind, agent.mutation = "activation", "activation relu -> elu"
    for id, agent in enumerate(population, 20):
        agent.id = id
    before = [flat(agent.state()) for agent in population]
    elite, offspring = TournamentSelection(2).select(population, np.random.default_rng(0))
    assert same(elite, population[1])
    assert offspring[0].mutation_kind == offspring[0].mutation == "elite"
    offspring[0].mutation_kind, offspring[0].mutation = elite.mutation_kind, elite.mutation
    assert same(offspring[0], population[1])
    assert [flat(agent.state()) for agent in population] == before, "selection changed its input"


def test_nothing_is_shared_between_the_elite_the_offspring_and_their_parents():
    population = [learn(make_agent(seed)) for seed in range(2)]
    for id, agent in enumerate(population):
        agent.id, agent.fitness = id, [float(id)]
    elite, offspring = TournamentSelection(2).select(population, np.random.default_rng(0))
    everybody = [*population, elite, *offspring]
    pointers = [tensor.data_ptr() for agent in everybody for tensor in tensors(agent)]
    assert len(pointers) == len(set(pointers))
    assert not any(a.fitness is b.fitness for a, b in itertools.combinations(everybody, 2))
    offspring[0].fitness.append(99.0)
    learn(offspring[0])
    assert elite.fitness == population[1].fitness == [1.0]
    assert same(elite, population[1])


def test_without_elitism_everybody_is_a_child():
    elite, offspring = TournamentSelection(2, elitism=False).select(
        stubs(1, 4, 2, 3), np.random.default_rng(0)
    )
    assert elite.id == 1
    assert [child.id for child in offspring] == [4, 5, 6, 7]


def test_the_elite_is_the_fittest_member_itself_and_what_select_returns_is_a_copy():
    population = stubs(1, 4, math.inf, 2)
    selection = TournamentSelection(2)
    assert selection.elite(population) is population[1]
    elite, offspring = selection.select(population, np.random.default_rng(0))
    assert elite.id == offspring[0].id == 1
    assert len({id(agent) for agent in (population[1], elite, offspring[0])}) == 3


def test_a_population_of_one_goes_on_alone():
    elite, offspring = TournamentSelection(2, population_size=1).select(
        stubs(3), np.random.default_rng(0)
    )
    assert elite.id == 0 and [agent.id for agent in offspring] == [0]


@pytest.mark.parametrize("broken", [math.nan, math.inf, -math.inf])
def test_a_fitness_that_is_not_finite_never_wins(broken):
    population = stubs(broken, -500, broken, -400)
    for size in (1, 2, 4):
        selection = TournamentSelection(size)
        assert selection.select(population, np.random.default_rng(0))[0].id == 3
        assert set(parents(selection, population, rounds=100)) <= {1, 3, None}


@pytest.mark.parametrize("network", ["actor", "critic"])
@pytest.mark.parametrize("broken", [math.nan, math.inf])
def test_weights_that_are_not_finite_never_win(broken, network):
    population = [make_agent(seed) for seed in range(3)]
    for id, agent in enumerate(population):
        agent.id, agent.fitness = id, [float(id)]
    with torch.no_grad():
        population[2].networks[network].biases[1].view(-1)[3] = broken
    elite, offspring = TournamentSelection(1).select(population, np.random.default_rng(0))
    assert elite.id == 1
    assert {child.parent_id for child in offspring} <= {0, 1, None}


def test_the_id_of_a_member_that_diverged_is_not_given_again():
    _, offspring = TournamentSelection(2).select(stubs(1, 2, math.nan), np.random.default_rng(0))
    assert [agent.id for agent in offspring] == [1, 3, 4, 5]


@pytest.mark.parametrize("evaluated", [0, 2])
def test_a_population_that_is_empty_or_not_evaluated_yet_is_refused(evaluated):
    population = stubs(*range(evaluated))
    for agent in population[1:]:
        agent.fitness = []
    with pytest.raises(ValueError, match="evaluate them first"):
        TournamentSelection().elite(population)
    with pytest.raises(ValueError, match="evaluate them first"):
        TournamentSelection().select(population, np.random.default_rng(0))


def test_if_all_diverged_an_error_says_so():
    diverged = stubs(math.nan, math.inf)
    with pytest.raises(ArithmeticError, match=r"all members diverged.*lower learning rates"):
        TournamentSelection().elite(diverged)
    with pytest.raises(ArithmeticError, match=r"all members diverged.*lower learning rates"):
        TournamentSelection().select(diverged, np.random.default_rng(0))


def test_the_same_generator_selects_the_same():
    ids = [
        [
            child.parent_id
            for child in TournamentSelection(2).select(stubs(1, 4, 2, 3), np.random.default_rng(7))[
                1
            ]
        ]
        for _ in range(2)
    ]
    assert ids[0] == ids[1]


@pytest.mark.parametrize(
    "wrong",
    [
        {"tournament_size": 0},
        {"population_size": 0},
        {"tournament_size": 1.5},
        {"tournament_size": True},
        {"population_size": "4"},
        {"population_size": 1001},
        {"judged_by": 0},
    ],
)
def test_sizes_that_select_nobody_are_refused_by_name(wrong):
    ((name, value),) = wrong.items()
    rule = f"{name} must be a whole number from 1 to 1000, not {value!r}"
    with pytest.raises(ValueError, match=rule):
        TournamentSelection(**wrong)


def lineages(*fitnesses):
    """Members with these lists of fitnesses."""
    members = stubs(*range(len(fitnesses)))
    for member, own in zip(members, fitnesses):
        member.fitness = list(own)
    return members


def test_members_can_be_judged_by_the_mean_of_several_fitnesses():
    population = lineages([50, 60, 70], [0, 0, 150], [900, 0, 0, 60], [10, 20, 30])
    selection = TournamentSelection(4, True, 4, judged_by=3)
    elite, offspring = selection.select(population, np.random.default_rng(0))
    assert elite.id == 0
    assert [(child.id, child.parent_id) for child in offspring[1:]] == [(4, 0), (5, 0), (6, 0)]
    assert selection.elite(population).id == 1, "the fittest of a generation is of that generation"


def test_who_has_too_few_fitnesses_to_be_judged_goes_on_and_has_no_children():
    population = lineages([1, 1, 1], [900], [3, 3, 3], [800, 800])
    selection = TournamentSelection(4, True, 5, judged_by=3)
    elite, offspring = selection.select(population, np.random.default_rng(0))
    assert elite.id == 2
    marks = [(child.id, child.parent_id, child.mutation) for child in offspring]
    spared = [(1, None, "spared"), (3, None, "spared")]
    assert marks == [(2, None, "elite"), *spared, (4, 2, "none"), (5, 2, "none")]
    assert all(child.mutation_kind == child.mutation for child in offspring)
    assert offspring[1].fitness == [900]


@pytest.mark.parametrize("elitism", [True, False])
def test_agents_that_are_equal_are_not_taken_for_each_other(elitism):
    class Equal(Stub):
        def __eq__(self, other):
            return True

        __hash__ = None

    selection = TournamentSelection(2, elitism, judged_by=2)
    for lengths in ((2, 1, 2, 1), (1, 1, 1, 1)):
        population = [Equal(id, id) for id in range(4)]
        for agent, length in zip(population, lengths):
            agent.fitness = [agent.id] * length
        _, offspring = selection.select(population, np.random.default_rng(0))
        spared = {agent.id for agent in population if len(agent.fitness) == 1}
        assert spared <= {agent.id for agent in offspring}
        assert len({agent.id for agent in offspring}) == 4


@pytest.mark.parametrize("elitism", [True, False])
def test_while_nobody_can_be_judged_everybody_goes_on(elitism):
    selection = TournamentSelection(2, elitism, 4, judged_by=2)
    population = stubs(1, 4, 3, 2)
    elite, offspring = selection.select(population, np.random.default_rng(0))
    assert elite.id == 1
    assert sorted(child.id for child in offspring) == [0, 1, 2, 3]
    assert [child.id for child in offspring if child.mutation == "elite"] == [1] * elitism


def test_the_spared_that_diverged_are_replaced_and_they_never_fill_more_places_than_there_are():
    population = lineages([1], [math.nan], [3], [2])
    selection = TournamentSelection(4, True, 4, judged_by=2)
    _, offspring = selection.select(population, np.random.default_rng(0))
    assert [(child.id, child.parent_id) for child in offspring[-1:]] == [(4, 2)]
    assert {child.id for child in offspring} == {0, 2, 3, 4}
    few = TournamentSelection(4, True, 2, judged_by=2)
    assert len(few.select(population, np.random.default_rng(0))[1]) == 2
