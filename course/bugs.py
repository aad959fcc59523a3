"""The planted bugs of `tests/bugs`, and how a student's folder gets them unseen."""

import base64
import json
import re
import zlib
from pathlib import Path

from sources import only_tests

NAMES = {  # file and name of the test that catches each bug
    "1": "test_train:there_is_one_update_for_every_learn_step_steps",
    "2": "test_mutation:integers_are_rounded_and_move_by_one_at_least",
    "3": "test_td3:new_hyper_parameters_are_in_force_and_all_else_stays",
    "4": "test_tournament:a_great_past_helps_neither_the_elite_nor_a_parent",
    "5": "test_tournament:nothing_is_shared_between_the_elite_the_offspring_and_their_parents",
    "6": "test_train:no_stored_transition_crosses_an_episode",
    "7": "test_train:no_stored_transition_crosses_an_episode",
    "8": "test_td3:smoothing_noise_is_scaled_to_the_action_range_and_clipped",
    "9": "test_mutation:an_activation_mutation_always_picks_a_different_one_and_any_of_them",
    "10": "test_networks:a_new_layer_keeps_all_old_weights_and_is_the_identity",
    "11": "test_train:a_member_flies_on_copies_and_is_trained_and_evaluated_there",
    "12": "test_train:members_in_different_slots_train_apart_but_are_evaluated_alike",
}
CATCHES = {bug: "tests/{}.py::test_{}".format(*name.split(":")) for bug, name in NAMES.items()}


def read(root):
    """All bugs: dicts of the file, the line as it is and as the bug has it, and the test."""
    found = []
    for number, catch in CATCHES.items():
        text = Path(root, "tests", "bugs", f"{number}.patch").read_text(encoding="utf-8")
        file = re.search(r"^\+\+\+ b/(.*)$", text, re.M)[1]
        (old,) = re.findall(r"^-(?!--)(.*)$", text, re.M)
        (new,) = re.findall(r"^\+(?!\+\+)(.*)$", text, re.M)
        module, _, test = catch.partition("::")
        tests = only_tests(Path(root, module).read_text(encoding="utf-8"), {test})
        found.append({"file": file, "old": old, "new": new, "tests": tests})
    return found


def packed(root):
    """All bugs as text that tells a glance nothing."""
    data = zlib.compress(json.dumps(read(root)).encode(), 9)
    return base64.encodebytes(data).decode()
