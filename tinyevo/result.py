"""What a run has brought so far, in one object that a file can hold and from which the run goes on.

Nothing about randomness needs to be kept: every seed follows from the run's seed and the number of the generation. So a
run that was killed and resumed gives byte for byte what it would have given without.

Mirrors the tutorial's section "Resuming and reproducing".
Leaves out: the middle of a generation. What is kept is the end of the last one.
Needs: td3.py, networks.py, buffer.py, checkpoint.py.
"""

import math
from dataclasses import dataclass, field

from tinyevo import checkpoint
from tinyevo.buffer import ReplayBuffer
from tinyevo.td3 import TD3


@dataclass
class TrainResult:
    """A run after its last generation."""

    population: list  # as evaluated in that generation
    memory: ReplayBuffer
    settings: dict = field(
        default_factory=dict
    )  # plain data that is to be kept with it, such as its configuration
    steps: int = 0  # environment steps of each member
    elite: TD3 | None = None  # the best confirmed agent
    confirmed: float = -math.inf  # its mean return over the episodes that confirmed it
    fitnesses: list = field(default_factory=list)  # one list per generation, in the members' order
    history: list = field(default_factory=list)  # one dict per member and generation

    def save_checkpoint(self, path):
        """Write all of it to a file, whole or not at all."""
        state = vars(self) | {
            "memory": self.memory.state(),
            "elite": self.elite and self.elite.state(),
        }
        checkpoint.save(state | {"population": [agent.state() for agent in self.population]}, path)

    @classmethod
    def load_checkpoint(cls, path, device="cpu"):
        """The run in a file that `save_checkpoint` wrote. Raises ValueError if the file holds anything else."""

        def from_state(state):
            population = [TD3.from_state(agent, device) for agent in state["population"]]
            spaces = population[0].observation_space, population[0].action_space
            memory = ReplayBuffer.from_state(state["memory"], *spaces, device)
            elite = state["elite"] and TD3.from_state(state["elite"], device)
            return cls(**state | {"population": population, "memory": memory, "elite": elite})

        return checkpoint.load(path, from_state)
