"""What a run keeps for the film of its evolution: the policies of a few generations.

However long a run is, it keeps no more than `SCENES` generations and its last one, which it thins
as it goes.

Mirrors the tutorial's section "Saving test episodes as a GIF".
"""

import warnings

from tinyevo import checkpoint
from tinyevo.td3 import TD3

SCENES = 5  # generations that are kept, at most, beside the last one
MEMBERS = 8  # of each that are kept, at most: the fittest


def keep_scenes(scenes, run):
    """The scenes of a run after one more generation: those so far, thinned, and one of its own.

    Which ones are kept depends on the numbers of the generations alone. A scene is plain data: the
    `generation`, a `caption` about its elite, and its `policies`, that of the elite first.
    """
    last, spacing = run.generation - 1, 1
    while last >= SCENES * spacing:
        spacing *= 2
    earlier = [scene for scene in scenes if scene["generation"] < last]
    kept = [scene for scene in earlier if scene["generation"] % spacing == 0]
    fittest = sorted(run.population, key=lambda agent: -agent.fitness[-1])[:MEMBERS]
    elite = fittest[0]
    caption = f"generation {last}    fitness {elite.fitness[-1]:.0f}\nmutation: {elite.mutation}"
    policies = [policy_state(agent) for agent in fittest]
    return [*kept, {"generation": last, "caption": caption, "policies": policies}]


def policy_state(agent):
    """The state of an agent without what it needs to learn: critics, targets and moments."""
    state = agent.state()
    actor = state["networks"]["actor"]
    state["networks"] = {"actor": actor | {"target": actor["weights"], "moments": []}}
    return state


def film_scenes(scenes):
    """The scenes as `record_evolution` takes them: (caption, agents) each."""
    return [(scene["caption"], list(map(TD3.from_state, scene["policies"]))) for scene in scenes]


def load_scenes(path):
    """The scenes in a file; none if there is no such file.

    No run is refused for the sake of its film: of a file that cannot be loaded it only warns.
    """
    try:
        return checkpoint.load(path, checked_scenes)
    except FileNotFoundError:  # of a run that a version without films began
        return []
    except ValueError as error:
        warnings.warn(f"{error}; the film of the evolution begins anew", stacklevel=2)
        return []


def checked_scenes(scenes):
    """The scenes, if a film can be made of them; else it raises some error."""
    film_scenes(scenes)
    return sorted(scenes, key=lambda scene: scene["generation"])
