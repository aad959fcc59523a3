"""scenes: a few generations' policies are kept, however long a run is, and fly as they did."""

from types import SimpleNamespace

import numpy as np
import pytest
from common import learn, make_agent, run

from tinyevo import checkpoint
from tinyevo.app.scenes import MEMBERS, SCENES, film_scenes, keep_scenes, load_scenes


def population(*fitnesses):
    agents = [learn(make_agent(seed), 2, seed) for seed in range(len(fitnesses))]
    for id, (agent, fitness) in enumerate(zip(agents, fitnesses)):
        agent.id, agent.fitness, agent.mutation = id, [fitness], f"mutation {id}"
    return agents


SMALL = population(1.0, -np.inf, 30.0)


def generation(number, agents=SMALL):
    """What is looked at of a run after its generation of this number."""
    return SimpleNamespace(generation=number + 1, population=agents)


def numbers(scenes):
    return [scene["generation"] for scene in scenes]


def test_kept_are_the_last_generation_and_a_bounded_number_of_evenly_spaced_ones_before_it():
    scenes, expected = [], {4: [0, 1, 2, 3, 4], 5: [0, 2, 4, 5], 9: [0, 2, 4, 6, 8, 9]}
    expected |= {10: [0, 4, 8, 10], 40: [0, 16, 32, 40]}
    for number in range(41):
        scenes = keep_scenes(scenes, generation(number))
        kept = numbers(scenes)
        assert kept[0] == 0 and kept[-1] == number and len(kept) <= SCENES + 1
        assert len({after - before for before, after in zip(kept, kept[1:-1])}) <= 1
        assert expected.get(number, kept) == kept


def test_a_generation_that_is_kept_twice_as_after_a_crash_is_kept_once():
    once = keep_scenes(keep_scenes([], generation(0)), generation(1))
    twice = keep_scenes(once, generation(1))
    assert numbers(twice) == [0, 1]
    assert checkpoint.dumps(once) == checkpoint.dumps(twice)


def test_the_fittest_come_first_and_no_more_than_can_be_told_apart():
    (scene,) = keep_scenes([], generation(0, population(*range(MEMBERS + 3))))
    assert [policy["record"]["id"] for policy in scene["policies"]] == list(range(10, 2, -1))
    (scene,) = keep_scenes([], generation(0))
    assert [policy["record"]["id"] for policy in scene["policies"]] == [2, 0, 1]
    assert scene["caption"] == "generation 0    fitness 30\nmutation: mutation 2"


def test_what_was_kept_flies_as_the_members_did_and_goes_on_so_when_they_learn():
    agents = population(3.0, 2.0)
    obs = np.random.default_rng(0).normal(size=(9, 3))
    before = [agent.get_action(obs) for agent in agents]
    scenes = keep_scenes([], generation(0, agents))
    for agent in agents:
        learn(agent, 20)
    scenes = checkpoint.loads(checkpoint.dumps(scenes))  # through a file
    ((_, flown),) = film_scenes(scenes)
    for agent, twin, action in zip(agents, flown, before):
        assert (twin.get_action(obs) == action).all()
        assert not (agent.get_action(obs) == action).all()


def test_a_policy_is_small_there_is_nothing_in_it_to_learn_with():
    (scene,) = keep_scenes([], generation(0))
    whole = checkpoint.dumps([agent.state() for agent in SMALL])
    assert len(checkpoint.dumps(scene)) < 0.6 * len(whole)
    for policy in scene["policies"]:
        assert list(policy["networks"]) == ["actor"] and not policy["networks"]["actor"]["moments"]


def test_a_run_keeps_the_elite_of_each_generation_first():
    scenes, elites = [], []

    def keep(run):
        nonlocal scenes
        scenes = keep_scenes(scenes, run)
        elites.append(next(row["id"] for row in run.history[-3:] if row["elite"]))

    run(options={"on_generation": keep})
    assert [scene["policies"][0]["record"]["id"] for scene in scenes] == elites


def test_scenes_are_loaded_as_they_were_saved_and_a_run_without_them_has_none(tmp_path):
    path = tmp_path / "scenes.pt"
    assert load_scenes(path) == []
    scenes = keep_scenes(keep_scenes([], generation(0)), generation(1))
    checkpoint.save(scenes, path)
    assert checkpoint.dumps(load_scenes(path)) == checkpoint.dumps(scenes)


@pytest.mark.parametrize("damage", [b"", b"something", "an agent", [{"generation": 1}]])
def test_of_a_file_that_holds_no_scenes_one_line_warns_and_the_film_begins_anew(tmp_path, damage):
    path = tmp_path / "scenes.pt"
    if isinstance(damage, bytes):
        path.write_bytes(damage)
    else:
        checkpoint.save(make_agent().state() if damage == "an agent" else damage, path)
    with pytest.warns(UserWarning, match=r"scenes.pt: .*; the film of the evolution begins anew"):
        assert load_scenes(path) == []


def test_who_is_fittest_is_up_to_the_last_fitness_and_not_to_a_great_past():
    agents = population(0.0, 0.0, 0.0)
    for agent, own in zip(agents, ([900.0, 1.0], [-900.0, 3.0], [0.0, 2.0])):
        agent.fitness = own
    (scene,) = keep_scenes([], generation(1, agents))
    assert [policy["record"]["id"] for policy in scene["policies"]] == [1, 2, 0]
    assert scene["caption"].startswith("generation 1    fitness 3\n")
