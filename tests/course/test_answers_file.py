"""A file of answers is read as far as it goes, and says which line is wrong."""

import tomllib

import pytest
from answers import Fault, faults, name_in, read_answers
from handout import answers_toml
from tasks import TASKS
from variants import constants, hunted

NAMES = ["𠮷田 太郎", 'Zoë "Z" O\'Brien\\', "", "Ada"]


def test_a_line_that_is_none_costs_that_line_alone(tmp_path):
    path = tmp_path / "answers.toml"
    path.write_text('student = "Ada"\n\n[task13]  # noise\nnoise = 0,198\n[task14]\nloss = 1.5\n')
    answers = read_answers(path)
    said = "line 4 of answers.toml cannot be read: noise = 0,198 (write a decimal point)"
    assert name_in(answers) == "Ada" and answers["task14"] == {"loss": 1.5}
    assert isinstance(answers["task13"]["noise"], Fault) and faults(answers) == [said]
    path.write_text("student = Ada\n[task14]\nloss = 1.5\n")
    assert name_in(read_answers(path)) == "" and len(faults(read_answers(path))) == 1


def test_a_value_that_has_the_name_of_a_task_gives_way_to_the_task(tmp_path):
    path = tmp_path / "answers.toml"
    path.write_text("task14 = 3\ntask13 = 0,1\n[task14]\nloss = 1.5\n[task13]\nnoise = 2\n")
    answers = read_answers(path)
    assert answers["task14"] == {"loss": 1.5} and answers["task13"] == {"noise": 2}


def test_a_file_that_is_not_there_or_no_text_is_one_line(tmp_path):
    (tmp_path / "x").write_bytes(b"\xff\xfe\x00")
    for name in ("none", "x"):
        with pytest.raises(ValueError, match="cannot read"):
            read_answers(tmp_path / name)


@pytest.mark.parametrize("name", NAMES)
def test_every_name_comes_back_from_the_file_that_is_made_for_it(name):
    text = answers_toml(name, TASKS)
    assert tomllib.loads(text)["student"] == name
    assert text.encode().decode() == text


def test_the_way_an_accent_is_encoded_does_not_matter():
    one, other = "Zo\u00eb", "Zoe\u0308"
    choices = {"x": range(1000), "y": range(1000)}
    assert constants(one, "a", choices) == constants(other, "a", choices)
    assert hunted(one) == hunted(other)


def test_the_file_says_how_exact_each_number_must_be():
    text = answers_toml("Ada", TASKS)
    assert "decimal point" in text and text.count("(off by at most") == 7
    assert text.count("(a whole number)") == 2 and "(off by at most 2.5 %)" in text
