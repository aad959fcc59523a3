"""The pictures of the course: their numbers are true, and all of them are drawn for a slide."""

import xml.etree.ElementTree as ElementTree

import imageio.v3 as imageio
import numpy as np
import pictures
import pytest
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure


def test_one_critic_believes_too_much_and_the_smaller_of_two_does_not():
    one, two = pictures.overestimation_curves(updates=300, runs=100)
    assert one[-1] > 2 and abs(two[-1]) < 0.5
    assert (np.diff(one[::50]) > 0).all(), "the belief does not grow"


def test_shares_and_bursts_of_the_noises_are_those_of_the_tutorial_and_the_copied_one_never_fires():
    fires = [pictures.firing(pictures.noise_walks(name, walks=500)) for name in pictures.NOISES]
    assert fires[0] == pytest.approx((0.378, 3.2), rel=0.03)
    assert fires[1] == pytest.approx((0.381, 1.6), rel=0.03)
    assert fires[2][0] < 0.001


def test_new_nodes_are_random_columns_of_the_weights_in_and_zero_rows_of_those_out():
    figure = Figure()
    pictures.growth(figure)
    into, out = (axes.images[0].get_array() for axes in figure.axes[:2])
    assert into.shape == (8, 12) and out.shape == (12, 4)
    assert into[:, 8:].all() and not out[8:].any() and out[:8].all()


def test_few_children_have_no_median():
    figure = Figure()
    pictures.mutation_effects(figure)
    bars = [item for item in figure.axes[0].collections if isinstance(item, LineCollection)]
    many = [kind for kind, values in pictures.changes_by_kind(pictures.read(pictures.HISTORY)).items()
            if len(values) >= 5]  # fmt: skip
    assert len(bars) == len(many) == 2


def test_the_arms_have_the_names_that_the_tutorial_gives_them():
    figure = Figure()
    pictures.landings(figure)
    (axes,) = figure.axes
    text = (pictures.ROOT / "tutorial.md").read_text()
    names = [label.get_text().replace("\n", " ") for label in axes.texts]
    assert len(names) == len(axes.lines) == 4
    assert all(f"| {name} |" in text for name in names)
    assert "20 seeds" in axes.get_ylabel()


@pytest.mark.parametrize("rivals", [1, 2, 4])
def test_the_formula_of_selection_is_what_the_package_does(rivals):
    formula, counted = pictures.selection_probabilities(rivals=rivals)
    assert formula.sum() == pytest.approx(1)
    assert counted == pytest.approx(formula, abs=0.03)


def test_one_founder_takes_over_by_luck_and_sooner_if_it_is_better():
    luck, better = (pictures.founders_left(6, 100, heritable) for heritable in (False, True))
    for left in (luck, better):
        assert left[0] == 4 and (np.diff(left) <= 0).all() and left[-1] < 1.2
    assert better[2:4].sum() < luck[2:4].sum()


def test_changes_are_counted_from_the_parent_one_generation_before_or_from_oneself():
    names = ("generation", "id", "parent_id", "mutation_kind", "fitness")
    table = [
        ("0", "0", "", "none", "1"), ("0", "1", "", "none", "5"),
        ("1", "1", "", "elite", "4"), ("1", "2", "0", "rl_hp", "11"),
        ("2", "1", "", "elite", "7"), ("2", "3", "2", "activation", "-1"),
    ]  # fmt: skip
    changes = pictures.changes_by_kind([dict(zip(names, row)) for row in table])
    assert {kind: values for kind, values in changes.items() if values} == {
        "elite": [-1, 3],
        "rl_hp": [10],
        "activation": [-12],
    }


def test_the_share_that_landed_is_of_all_seeds_and_a_landing_counts_once():
    names = ("arm", "seed", "steps", "confirmed")
    table = [("a", "0", "10", "150"), ("a", "0", "20", "210"), ("a", "0", "30", "220"),
             ("a", "1", "10", ""), ("a", "1", "40", "199"), ("b", "0", "5", "200")]  # fmt: skip
    shares = pictures.landed_share([dict(zip(names, row)) for row in table])
    assert shares["a"] == ([0, 20, 40], [0, 0.5, 0.5])
    assert shares["b"] == ([0, 5, 5], [0, 1, 1])
    asked = [{"question": name, **row} for name in "GU" for row in [dict(zip(names, table[-1]))]]
    assert list(pictures.landed_share(asked)) == ["G b", "U b"]


@pytest.mark.slow
def test_every_picture_is_drawn_16_to_9_as_svg_and_png_and_twice_the_same(tmp_path):
    for folder in (tmp_path / "one", tmp_path / "two"):
        folder.mkdir()
        for picture in pictures.PICTURES:
            pictures.draw(picture, folder)
    names = {
        f"{picture.__name__}.{kind}" for picture in pictures.PICTURES for kind in ("svg", "png")
    }
    assert {path.name for path in (tmp_path / "one").iterdir()} == names
    for name in names:
        path = tmp_path / "one" / name
        assert path.read_bytes() == (tmp_path / "two" / name).read_bytes()
        if path.suffix == ".png":
            image = imageio.imread(path)
            assert image.shape[:2] == (720, 1280) and image.std() > 10
        else:
            root = ElementTree.parse(path).getroot()
            assert root.get("viewBox") == "0 0 921.6 518.4"
