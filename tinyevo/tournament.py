"""Tournament selection: who gets children.

To fill one place of the next generation, k members are drawn and the fittest of them becomes the parent. k sets the
pressure: k = 1 is pure chance, and with k as large as the population the best member parents everybody. Only the order
of the fitnesses matters, not their size (Goldberg & Deb 1991), which suits returns of -300 beside +250.

Mirrors the tutorial's section "Tournament selection and mutation".
Leaves out: crossover; two networks that learned apart do not mix well by averaging.
Needs: nothing else. An agent here is anything with `fitness`, `is_finite()`, `clone()`, `id`, `parent_id` and
`mutation`.
"""

import math
from dataclasses import dataclass


@dataclass(frozen=True)
class TournamentSelection:
    """Selection by tournaments of `tournament_size` rivals, with the elite carried over unchanged if `elitism`.

    `population_size` is the size of the generation that `select` makes.
    """

    tournament_size: int = 2
    elitism: bool = True
    population_size: int = 4

    def __post_init__(self):
        for name in ("tournament_size", "population_size"):
            value = getattr(self, name)
            if type(value) is not int or not 1 <= value <= 1000:
                raise ValueError(f"{name} must be a whole number from 1 to 1000, not {value!r}")

    def select(self, population, rng):
        """Return (elite, offspring) by the members' last fitness, drawing with the `numpy.random.Generator` `rng`.

        The elite is a copy of the best member. The offspring are copies too: with elitism the first is the elite as it
        was, but with the mutation "elite"; every other one gets the next id that no member of `population` has, its
        parent's id, and the mutation "none". Raises ValueError if `population` is empty or not evaluated yet, and
        ArithmeticError ("all members diverged") if no member has a finite fitness and finite weights.
        """
        if not population or not all(agent.fitness for agent in population):
            raise ValueError(
                "selection needs an agent or more, and the fitness of each: evaluate them first"
            )
        candidates = [
            agent for agent in population if math.isfinite(agent.fitness[-1]) and agent.is_finite()
        ]
        if not candidates:
            raise ArithmeticError(
                "all members diverged: none has finite weights and fitness; try lower learning rates"
            )
        best = max(candidates, key=lambda agent: agent.fitness[-1])

        offspring = []
        if self.elitism:
            offspring.append(best.clone())
            offspring[0].mutation = "elite"
        first_id = max(agent.id for agent in population) + 1
        for child_id in range(first_id, first_id + self.population_size - len(offspring)):
            parent = self._winner(candidates, rng)
            child = parent.clone()
            child.id, child.parent_id, child.mutation = child_id, parent.id, "none"
            offspring.append(child)
        return best.clone(), offspring

    def _winner(self, candidates, rng):
        """The fittest of `tournament_size` distinct rivals, or of all if there are fewer."""
        rivals = rng.choice(
            len(candidates), size=min(self.tournament_size, len(candidates)), replace=False
        )
        return max((candidates[index] for index in rivals), key=lambda agent: agent.fitness[-1])
