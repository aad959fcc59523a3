"""plots: three pictures of a run show its numbers, its lineage and what mutated."""

import io
import sys
from types import ModuleType

import imageio.v3 as imageio
import matplotlib
import numpy as np
import pytest
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure

from tinyevo.app import plots
from tinyevo.app.plots import PICTURES, plot_evolution
from tinyevo.mutation import Mutations


def row(generation, id, parent_id, kind, mutation, fitness, elite=False, **changes):
    fixed = {
        "train_return": -50.0,
        "steps": 100 * (generation + 1),
        "hidden_size": "64x64",
        "activation": "relu",
    }
    numbers = {"lr_actor": 1e-3, "batch_size": 128, "learn_step": 1} | changes
    head = {
        "generation": generation,
        "id": id,
        "parent_id": parent_id,
        "mutation_kind": kind,
        "mutation": mutation,
        "fitness": fitness,
    }
    return {**head, **fixed, **numbers, "elite": elite}


HISTORY = [
    row(0, 0, None, "none", "none", -100.0),
    row(0, 1, None, "none", "none", -50.0, elite=True),
    row(1, 1, None, "elite", "elite", -40.0),
    row(1, 2, 0, "architecture", "architecture 64x64 -> 64x96", -20.0, elite=True),
    row(2, 2, 0, "elite", "elite", -float("inf")),
    row(2, 3, 2, "rl_hp", "learn_step 1 -> 2", 10.0, elite=True, learn_step=2),
]
NAMES = ("lr_actor", "learn_step")


def test_the_parent_of_a_row_is_one_generation_earlier_and_of_the_elite_it_is_itself():
    members = {(member["generation"], member["id"]): member for member in HISTORY}
    parents = [plots._parent(member, members) for member in HISTORY[2:]]
    assert [(parent["generation"], parent["id"]) for parent in parents] == [
        (0, 1),
        (0, 0),
        (1, 2),
        (1, 2),
    ]


def drawn(history, monkeypatch, picture, hyper_params=NAMES):
    """The figure that is drawn."""
    figures = []
    with monkeypatch.context() as context:
        context.setattr(Figure, "savefig", lambda figure, *_, **__: figures.append(figure))
        plot_evolution(history, io.BytesIO(), picture, hyper_params)
    return figures[0]


def family(history, monkeypatch):
    """The axes of the family tree."""
    return drawn(history, monkeypatch, "family").axes[0]


def points(line):
    """The points of a line, as tuples."""
    return tuple(map(tuple, line.get_xydata().tolist()))


@pytest.mark.parametrize(
    "hyper_params, panels",
    [
        (NAMES, ["learn_step"]),  # the learning rate never moved
        ({"learn_step": "a range", "batch_size": "another"}, ["learn_step"]),  # an `hp_space`
        (("batch_size",), []),  # `learn_step` moved, but was not asked for
        ((), []),
    ],
)
def test_of_the_named_hyper_parameters_those_that_moved_are_drawn(
    monkeypatch, hyper_params, panels
):
    axes = drawn(HISTORY, monkeypatch, "hyper_params", hyper_params).axes
    assert [panel.get_title() for panel in axes] == ["hidden nodes", *panels]


FAMILY = [
    row(0, 0, None, "none", "none", -100.0, train_return=-7.0, hidden_size="64"),
    row(0, 1, None, "none", "none", 50.0, elite=True, train_return=-8.0, hidden_size="8x4"),
    row(1, 1, None, "elite", "elite", -40.0, train_return=-9.0, hidden_size="8x4"),
    row(1, 2, 0, "rl_hp", "learn_step 1 -> 2", -20.0, elite=True, hidden_size="64", learn_step=2),
]


@pytest.mark.parametrize(
    "picture, panel, numbers",
    [
        ("fitness", "fitness", [-100.0, 50.0, -40.0, -20.0]),
        ("hyper_params", "hidden nodes", [64, 12, 12, 64]),
        ("hyper_params", "learn_step", [1, 1, 1, 2]),
    ],
)
def test_a_panel_shows_its_number_over_steps_and_joins_parents_to_children(
    monkeypatch, picture, panel, numbers
):
    figure = drawn(FAMILY, monkeypatch, picture)
    axes = next(axes for axes in figure.axes if axes.get_title() == panel)
    dots = [(member["steps"], number) for member, number in zip(FAMILY, numbers)]
    assert list(map(tuple, axes.collections[0].get_offsets().tolist())) == dots
    winner = [points(line) for line in axes.lines if line.get_label() == "the winner's line"]
    assert winner == [(dots[0], dots[3])]  # though 1 was fitter once
    births = [points(line) for line in axes.lines if line.get_color() == plots.BIRTH["color"]]
    assert births == [(dots[1], dots[2]), (dots[0], dots[3])]


def test_what_mutations_multiply_is_drawn_on_a_scale_of_factors_with_the_values_that_occurred(
    monkeypatch,
):
    moving = [member | {"lr_actor": rate} for member, rate in zip(FAMILY, [5e-4, 4e-4, 4e-4, 2e-3])]
    axes = drawn(moving, monkeypatch, "hyper_params").axes
    assert [panel.get_yscale() for panel in axes] == ["log"] * 3
    texts = [[tick.get_text() for tick in panel.get_yticklabels()] for panel in axes]
    assert texts == [["12", "64"], ["0.0004", "0.0005", "0.002"], ["1", "2"]]
    assert drawn(FAMILY, monkeypatch, "fitness").axes[0].get_yscale() == "linear"


def test_a_hyper_parameter_that_can_be_0_has_a_scale_too(monkeypatch):
    moving = [member | {"learn_step": value} for member, value in zip(FAMILY, [0.0, 0.5, 1, 1])]
    axes = drawn(moving, monkeypatch, "hyper_params").axes[1]
    assert axes.get_yscale() == "linear"


def test_of_many_values_few_are_written(monkeypatch):
    moving = [row(0, number, None, "none", "none", 0.0, elite=True, learn_step=number + 1)
              for number in range(40)]  # fmt: skip
    axes = drawn(moving, monkeypatch, "hyper_params").axes[1]
    assert 3 <= len(axes.get_yticklabels()) <= 6


def test_only_mutations_of_the_winners_line_are_named(monkeypatch):
    history = [row(0, 0, None, "none", "none", 0.0, elite=True), row(0, 1, None, "none", "none", 0)]
    for generation in range(1, 30):
        # The elite of each generation is the child of the last; the other one has no offspring.
        id, parent = 2 * generation, 2 * generation - 2
        history.append(row(generation, id, parent, "rl_hp", "A", float(generation), elite=True))
        history.append(row(generation, id + 1, parent, "rl_hp", "B", 0.0))
    texts = [text.get_text() for text in family(history, monkeypatch).texts]
    named = {f"{2 * number}: A" for number in range(1, 30)}
    assert set(texts) == named | {str(2 * number) for number in range(30)}


@pytest.mark.parametrize("size, named", [(12, range(12)), (13, [0])])
def test_in_a_generation_of_many_only_the_winner_is_named(size, named, monkeypatch):
    history = [row(0, id, None, "none", "none", -id, elite=id == 0) for id in range(size)]
    texts = {text.get_text() for text in family(history, monkeypatch).texts}
    assert texts == set(map(str, named))


def test_every_kind_of_mutation_has_a_colour_and_a_name_of_its_own(monkeypatch):
    kinds = {kind for kind, *_ in Mutations(restart=1)._kinds()}
    assert set(plots.KINDS) == kinds | {"elite", "spared"}
    colours, names = map(set, zip(*plots.KINDS.values()))
    assert len(colours) == len(names) == len(plots.KINDS)
    figure = drawn(HISTORY, monkeypatch, "family")
    occurring = {plots.KINDS[row["mutation_kind"]][1] for row in HISTORY}
    assert {text.get_text() for text in figure.legends[0].get_texts()} == occurring < names


def seen(colour, matrix):
    """A colour as somebody without one kind of cones sees it (Machado et al. 2009, table 1)."""
    linear = np.array(to_rgb(colour)) ** 2.2
    return np.clip(np.array(matrix) @ linear, 0, 1) ** (1 / 2.2)


PROTANOPIA = [[0.152, 1.053, -0.205], [0.115, 0.786, 0.099], [-0.004, -0.048, 1.052]]
DEUTERANOPIA = [[0.367, 0.861, -0.228], [0.280, 0.673, 0.047], [-0.012, 0.043, 0.969]]


@pytest.mark.parametrize("eyes", [np.eye(3), PROTANOPIA, DEUTERANOPIA])
def test_colour_blind_readers_tell_the_kinds_apart(eyes):
    colours = [seen(colour, eyes) for colour, _ in plots.KINDS.values()]
    apart = [np.abs(one - other).max() for one in colours for other in colours if one is not other]
    assert min(apart) > 0.15


def test_the_colour_of_an_edge_follows_from_the_kind_and_not_from_the_text(monkeypatch):
    told = [member | {"mutation": "in other words"} for member in HISTORY]
    first, second = (
        [line.get_color() for line in family(rows, monkeypatch).lines] for rows in (HISTORY, told)
    )
    assert first == second


def test_the_tree_has_an_edge_for_each_birth_in_the_colour_of_its_mutation_broad_for_the_winner(
    monkeypatch,
):
    tree = family(HISTORY, monkeypatch)
    places = {
        0: {0: -1, 1: 0},
        1: {1: -1, 2: 0},
        2: {2: -1, 3: 0},
    }  # by generation and id: the fittest on top
    lines = {points(line): (line.get_color(), line.get_linewidth()) for line in tree.lines}
    edges = {
        ((0, places[0][1]), (1, places[1][1])): ("elite", 2),
        ((0, places[0][0]), (1, places[1][2])): ("architecture", 6),
        ((1, places[1][2]), (2, places[2][2])): ("elite", 2),
        ((1, places[1][2]), (2, places[2][3])): ("rl_hp", 6),
    }
    for edge, (kind, width) in edges.items():
        assert lines[edge] == (plots.KINDS[kind][0], width)
    texts = [text.get_text() for text in tree.texts]
    ids = [str(member["id"]) for member in HISTORY]
    assert texts == [*ids, "2: architecture 64x64 -> 64x96", "3: learn_step 1 -> 2"]


def test_an_elite_carried_over_is_told_from_the_broad_line_without_colour(monkeypatch):
    lines = [line for line in family(HISTORY, monkeypatch).lines if len(line.get_xdata()) == 2]
    black = plots.KINDS["elite"][0]
    assert [line.get_linestyle() == "--" for line in lines] == [
        line.get_color() == black for line in lines
    ]


@pytest.mark.parametrize("picture", PICTURES)
@pytest.mark.parametrize("history", [HISTORY, HISTORY[:2]])
def test_each_picture_is_drawn_16_to_9_as_a_slide_is(history, picture):
    file = io.BytesIO()
    plot_evolution(history, file, picture, NAMES)
    image = imageio.imread(file)
    assert image.shape[:2] == (720, 1280)
    assert image.std() > 10


def test_without_matplotlib_one_line_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(ImportError, match=r"evolution needs matplotlib: pip install matplotlib"):
        plot_evolution(HISTORY, io.BytesIO())


def test_a_setting_that_matplotlib_refuses_is_told_as_if_it_were_missing(monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", Refusing("matplotlib.figure"))
    with pytest.raises(ImportError, match="matplotlib cannot be imported: backend 'foo'"):
        plot_evolution(HISTORY, io.BytesIO())


class Refusing(ModuleType):
    """As matplotlib is where MPLBACKEND names a backend that is not installed."""

    def __getattr__(self, name):
        raise ValueError("backend 'foo'")


def test_the_picture_is_the_same_whatever_settings_matplotlib_has():
    pictures = [io.BytesIO(), io.BytesIO()]
    plot_evolution(HISTORY, pictures[0])
    with matplotlib.rc_context({"text.usetex": True, "axes.facecolor": "red"}):  # there is no TeX
        before = dict(matplotlib.rcParams)
        plot_evolution(HISTORY, pictures[1])
        assert dict(matplotlib.rcParams) == before
    assert pictures[0].getvalue() == pictures[1].getvalue()


def test_an_elite_or_a_spared_one_in_the_winners_line_is_no_mutation_to_be_named(monkeypatch):
    history = [
        row(0, 0, None, "none", "none", 1.0, elite=True),
        row(1, 0, None, "spared", "spared", 2.0, elite=True),
        row(2, 0, None, "elite", "elite", 3.0, elite=True),
    ]
    texts = [text.get_text() for text in family(history, monkeypatch).texts]
    assert texts == ["0"] * 3
    dashed = [line.get_linestyle() for line in family(history, monkeypatch).lines[-2:]]
    assert dashed == ["--", "--"]
