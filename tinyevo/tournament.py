"""Tournament selection: who gets children.

To fill one place of the next generation, k members are drawn and the fittest of them becomes the
parent. k sets the pressure: k = 1 is pure chance, and with k as large as the population the best
member parents everybody. Only the order of the fitnesses matters, not their size (Goldberg & Deb
1991), which suits returns of -300 beside +250.

If members are judged by the mean of several fitnesses, a newcomer, which mutation may make
(`Mutations.restart`), has too few of them at first: it is spared until it has enough.

Mirrors the tutorial's section "Tournament selection and mutation".
Leaves out: crossover; two networks that learned apart do not mix well by averaging.
Needs: nothing else. An agent here is anything with `fitness`, `is_finite()`, `clone()`, `id`,
`parent_id`, `mutation_kind` and `mutation`.
"""

import math
from dataclasses import dataclass
from statistics import fmean


def mean_fitness(agent, generations=1):
    """The mean of an agent's fitnesses in its last generations, or in all if there are fewer."""
    return fmean(agent.fitness[-generations:])


@dataclass(frozen=True)
class TournamentSelection:
    """Selection by tournaments of `tournament_size` rivals.

    `population_size` is the size of the generation that `select` makes. With `elitism` the best
    member is carried over into it unchanged. A member is judged by the mean of its last `judged_by`
    fitnesses; one with fewer is spared: it goes on, and has no children while anybody is judged.
    All three numbers are from 1 to 1000, else ValueError.
    """

    tournament_size: int = 2
    elitism: bool = True
    population_size: int = 4
    judged_by: int = 1

    def __post_init__(self):
        for name in ("tournament_size", "population_size", "judged_by"):
            value = getattr(self, name)
            if type(value) is not int or not 1 <= value <= 1000:
                raise ValueError(f"{name} must be a whole number from 1 to 1000, not {value!r}")

    def elite(self, population):
        """The fittest member itself, by its last fitness, of those with finite weights and fitness.

        Raises as `select` does.
        """
        return max(self._candidates(population), key=mean_fitness)

    def select(self, population, rng):
        """Return (elite, offspring), copies of members.

        The elite is the best of those that are judged. With elitism it is also the first of the
        offspring, as it was but marked as "elite" in its mutation. Then come the spared, as they
        were but marked as "spared". Every other one is a child of the winner of a tournament and
        gets the next id that no member has, its parent's id and the mutation "none". While nobody
        can be judged all are spared, the fittest as the elite, and the places of those that
        diverged go to children of the spared. `rng` is the `numpy.random.Generator` of the
        tournaments.

        Raises ValueError if `population` is empty or not evaluated yet, and FloatingPointError
        ("all members diverged") if no member has a finite fitness and finite weights.
        """
        sound = self._candidates(population)
        judged = [agent for agent in sound if len(agent.fitness) >= self.judged_by]
        spared = [agent for agent in sound if len(agent.fitness) < self.judged_by]
        candidates = judged or spared
        elite = max(candidates, key=self._score)
        going_on = spared
        if self.elitism:
            going_on = [elite, *(agent for agent in spared if agent is not elite)]
        offspring = [agent.clone() for agent in going_on[: self.population_size]]
        for place, agent in enumerate(offspring):
            mark = "elite" if self.elitism and place == 0 else "spared"
            agent.mutation_kind = agent.mutation = mark
        first_id = max(agent.id for agent in population) + 1
        for child_id in range(first_id, first_id + self.population_size - len(offspring)):
            parent = self._winner(candidates, rng)
            child = parent.clone()
            child.id, child.parent_id = child_id, parent.id
            child.mutation_kind = child.mutation = "none"
            offspring.append(child)
        return elite.clone(), offspring

    def _candidates(self, population):
        """The members that have not diverged."""
        if not population or not all(agent.fitness for agent in population):
            raise ValueError("selection needs agents with a fitness each: evaluate them first")
        sound = [
            agent
            for agent in population
            if math.isfinite(mean_fitness(agent)) and agent.is_finite()
        ]
        if not sound:
            what = "all members diverged: none has finite weights and fitness"
            raise FloatingPointError(f"{what}; try lower learning rates")
        return sound

    def _winner(self, candidates, rng):
        """The fittest of `tournament_size` distinct rivals, or of all if there are fewer."""
        size = min(self.tournament_size, len(candidates))
        rivals = rng.choice(len(candidates), size=size, replace=False)
        return max((candidates[index] for index in rivals), key=self._score)

    def _score(self, agent):
        """By what an agent is judged."""
        return mean_fitness(agent, self.judged_by)
