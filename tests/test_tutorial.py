"""tutorial.md cannot drift: what it quotes is the source, what it runs runs, what it names exists.

A code block says in its first line's words what it is:

- `python quote=tinyevo.td3:TD3.learn` is that symbol's source, character by character (less its docstring with
  `nodoc`);
- `python run` is executed as at a Python prompt, those of a section (`##`) in one namespace of their own, in order, in
  an empty folder: so each section can be entered alone;
- `python script` is executed as a file of its own;
- `text output` after one of these is what it prints;
- `text recorded` after one of these is what it printed once: its numbers may differ, its format may not;
- any other `text recorded` is a table of the run in `tests/recorded`;
- `python copy=noise.py` runs in an empty folder that holds only the files it names;
- a diagram that begins with `%% import arrows` is that of the imports, one that begins with `%% family tree` that of
  the run in `tests/recorded`;
- anything else is for reading.

`python tests/test_tutorial.py` writes the quotes, the outputs and the recorded tables anew.
"""

import ast
import builtins
import codeop
import contextlib
import csv
import functools
import importlib
import io
import os
import re
import subprocess
import sys
import tempfile
import warnings
from dataclasses import fields
from pathlib import Path
from types import SimpleNamespace

import pytest

from tinyevo.app.report import population_table
from tinyevo.mutation import RLParameter
from tinyevo.td3 import HyperParams

ROOT = Path(__file__).parent.parent
sys.path.append(str(ROOT / "course"))  # for this file as a script; pytest finds it by itself
from sources import BLOCK, blocks, quote, requoted  # noqa: E402

IDEA = {path.stem: path for path in (ROOT / "tinyevo").glob("[!_]*.py")}
APP = {path.stem: path for path in (ROOT / "tinyevo" / "app").glob("[!_]*.py")}
TUTORIAL = ROOT / "tutorial.md"
RECORDED = ROOT / "tests" / "recorded"  # the run `python train_lunar.py --seed 0`
source = functools.partial(quote, ROOT)


def sections(text):
    """The sections of a text as (title, text)."""
    parts = re.split(r"^## (.*)\n", text, flags=re.M)
    return list(zip(parts[1::2], parts[2::2]))


def wrong_quotes(text):
    """The quotes in a text that are not what the source says."""
    wrong = []
    for kind, body in blocks(text):
        for word in kind:
            if (
                word.startswith("quote=")
                and source(word.removeprefix("quote="), "nodoc" in kind) != body
            ):
                wrong.append(word)
    return wrong


def run_blocks(text, folder):
    """Execute the blocks marked to run, in one namespace.

    Yields (block, what it printed, what is said to be printed). What is recorded counts as said if
    it differs in its numbers alone.
    """
    found, namespace, before = blocks(text), {"__name__": "tutorial"}, Path.cwd()
    os.chdir(folder)
    try:
        for (kind, body), (next_kind, said) in zip(found, [*found[1:], ([], "")]):
            if kind[:2] in (["python", "run"], ["python", "script"]):
                printed = io.StringIO()
                with contextlib.redirect_stdout(printed), warnings.catch_warnings(action="ignore"):
                    if kind[1] == "run":
                        run_at_the_prompt(body, namespace)
                    else:
                        exec(compile(body, "script.py", "exec"), {"__name__": "__main__"})
                printed = printed.getvalue()
                if next_kind == ["text", "recorded"] and shape(said) == shape(printed):
                    said = printed  # another machine's numbers
                yield body, printed, said if next_kind[:1] == ["text"] else ""
    finally:
        os.chdir(before)


def run_at_the_prompt(body, namespace):
    """Execute a block line by line, as if pasted into a Python prompt.

    An indented part needs a blank line after it there, and the value of an expression is printed.
    """
    lines = []
    for line in [*body.splitlines(), ""]:
        lines.append(line)
        if (code := codeop.compile_command("\n".join(lines), "tutorial.md", "single")) is not None:
            exec(code, namespace)
            lines = []
    assert not any(lines), lines


def shape(text):
    """The format of a text: every number becomes 0, every run of blanks one."""
    numbers = re.sub(r"-?\d[\d,]*(\.\d+)?(e[-+]\d+)?", "0", text)
    return "\n".join(" ".join(line.split()) for line in numbers.splitlines())


def names_in(text):
    """Every name that some code gives to something or uses, arguments and attributes among them."""
    names = set()
    for node in ast.walk(ast.parse(text)):
        for attribute in ("name", "id", "attr", "arg", "module"):
            value = getattr(node, attribute, None)
            names |= set(value.split(".")) if isinstance(value, str) else set()
    return names


@functools.cache
def known_names():
    """Every name that the code of the project knows, and every word of its short strings."""
    names = set(dir(builtins))
    code = [*IDEA.values(), *APP.values(), ROOT / "train_lunar.py"]
    for path in [*code, *ROOT.glob("tests/**/*.py"), *ROOT.glob("benchmarks/*.py")]:
        names |= {path.stem} | names_in(path.read_text())
    for path in code:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                names |= set(re.findall(r"\w+", node.value)) if len(node.value) < 40 else set()
    return names


def foreign_names(text):
    """What the section about the source's names lists: the first column of its tables."""
    section = dict(sections(text)).get("What the source calls it", "")
    cells = re.findall(r"^\| (`.*?`) \|", section, re.M)
    return {name for cell in cells for name in re.findall(r"`(\w+)`", cell)}


def unknown_names(text):
    """What a text names in code spans, outside of blocks, and what does not exist."""
    prose, names, unknown = BLOCK.sub("", text), known_names() | foreign_names(text), []
    for kind, body in blocks(text):
        names |= names_in(body) if kind[:2] in (["python", "run"], ["python", "script"]) else set()
    for span in re.findall(r"`([^`\n]+)`", prose):
        if re.fullmatch(r"[\w./-]+\.(py|md|csv|json|png|gif|pt|toml|patch)", span):
            files = {
                "elite.pt",
                "population.pt",
                "history.csv",
                "config.json",
                "lander.gif",
                "evolution.gif",
                "evolution.mp4",
                "scenes.pt",
                "fitness.png",
                "family.png",
                "hyper_params.png",
                "report.html",
            }
            places = (
                ROOT / span,
                ROOT / "tinyevo" / span,
                ROOT / "tests" / span,
                ROOT / "tests" / "app" / span,
                ROOT / "benchmarks" / span,
            )
            if Path(span).name not in files and not any(path.exists() for path in places):
                unknown.append(span)
        elif re.fullmatch(r"[A-Za-z_][\w.]*(\(.*\))?", span):
            parts = span.partition("(")[0].split(".")
            unknown += [span] if not all(part in names for part in parts) else []
    for link in re.findall(r"\]\((?!https?:)([^)#\s]+)", prose):
        unknown += [link] if not (ROOT / link).exists() else []
    return unknown


def dead_anchors(text):
    """The links into a text that lead to none of its titles."""
    titles = re.findall(r"^#+ (.*)$", BLOCK.sub("", text), re.M)
    anchors = {re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-") for title in titles}
    return [link for link in re.findall(r"\]\(#([^)]*)\)", text) if link not in anchors]


def arrows_of(modules):
    """What each of some modules imports from the package."""
    arrows = {}
    for name, path in modules.items():
        code = ast.parse(path.read_text())
        froms = [node for node in ast.walk(code) if isinstance(node, ast.ImportFrom)]
        parts = [node.module.split(".") for node in froms if node.module.startswith("tinyevo.")]
        arrows[name] = {part for _, part in parts}
        for node in froms:
            if node.module == "tinyevo":
                arrows[name] |= {alias.name for alias in node.names}
    return arrows


def diagram_arrows(text):
    """The arrows of the import diagram."""
    (body,) = [body for _, body in blocks(text) if body.startswith("%% import arrows\ngraph TD\n")]
    arrows = {name: set() for line in body.splitlines()[2:] for name in re.findall(r"\w+", line)}
    for one, other in re.findall(r"(\w+) --> (\w+)", body):
        arrows[one].add(other)
    return arrows


def wrong_settings(text):
    """Rows of the settings' tables that the code does not read so, and settings that no table has."""
    script = importlib.import_module("train_lunar")
    groups = [getattr(script.SETTINGS, group.name) for group in fields(script.SETTINGS)]
    objects = {type(group).__name__: group for group in groups}
    wrong, seen = [], set()
    for title, rows in re.findall(r"^\*\*`(\w+)`\*\*.*\n(?:.+\n)*\n((?:\|.*\n)+)", text, re.M):
        for name, value in re.findall(r"^\| `(\w+)` \| `?([^|`]*?)`? \|", rows, re.M):
            seen.add((title, name))
            actual = getattr(objects[title], name, "no such setting")
            if name == "hp_space":
                assert all(isinstance(space, RLParameter) for space in actual.values())
                actual = ", ".join(actual)
            if str(actual).replace("'", "") != value:
                wrong.append(f"{title}.{name} is {actual}, not {value}")
    every = {
        (title, field.name) for title, settings in objects.items() for field in fields(settings)
    }
    return wrong + [f"{title}.{name} is in no table" for title, name in sorted(every - seen)]


def history():
    """The rows of the recorded run."""
    return list(csv.DictReader((RECORDED / "history.csv").read_text().splitlines()))


def parent_of(row, rows):
    """The row, one generation earlier, of a member's parent; for the elite, of itself."""
    before = str(int(row["generation"]) - 1)
    members = {older["id"]: older for older in rows if older["generation"] == before}
    return members.get(row["id"]) or members[row["parent_id"]]


def lineage(row, rows):
    """A row and those of its line of parents, the oldest first."""
    older = lineage(parent_of(row, rows), rows) if row["generation"] != "0" else []
    return [*older, row]


def member(row, rows):
    """A recorded member, with what the table of a generation reads of an agent."""
    hp = {field.name: field.type(row[field.name]) for field in fields(HyperParams)}
    return SimpleNamespace(
        id=int(row["id"]),
        parent_id=int(row["parent_id"]) if row["parent_id"] else None,
        mutation_kind=row["mutation_kind"],
        mutation=row["mutation"],
        fitness=[float(older["fitness"]) for older in lineage(row, rows)],
        train_return=float(row["train_return"]),
        steps=int(row["steps"]),
        channels=(),
        hidden_size=row["hidden_size"].split("x"),
        activation=row["activation"],
        hp=HyperParams(**hp),
    )


def recorded_table(generation):
    """What the recorded run printed after a generation: its table from the history, and a line."""
    rows = history()
    members = [member(row, rows) for row in rows if row["generation"] == str(generation)]
    output = (RECORDED / "output.txt").read_text()
    confirmed = re.findall(r"^best confirmed: .*\n", output, re.M)[generation]
    return f"generation {generation}\n{population_table(members)}\n{confirmed}"


def family_tree():
    """The recorded winner's line, and the other children of its members that mutated.

    Two sets of (parent, mutation, child), and the fitness of each in its first generation.
    """
    rows = history()
    line = {
        row["id"] for row in lineage(next(r for r in reversed(rows) if r["elite"] == "True"), rows)
    }
    born = [row for row in rows if row["mutation_kind"] != "elite" and row["parent_id"] in line]
    edges = {
        (row["parent_id"], row["mutation"], row["id"]) for row in born if row["mutation"] != "none"
    }
    own = {edge for edge in edges if edge[2] in line}
    named = {id for parent, _, id in edges for id in (parent, id)}
    first = {row["id"]: row for row in reversed(rows)}
    return own, edges - own, {id: round(float(first[id]["fitness"])) for id in named}


def drawn_tree(text):
    """The same from the diagram in a text."""
    (body,) = [body for _, body in blocks(text) if body.startswith("%% family tree\n")]
    fitness = {id: int(value) for id, value in re.findall(r"(\d+)\[\"\1: (-?\d+)", body)}
    plain = re.sub(r"\[.*?\]", "", body)
    own = set(re.findall(r'(\d+) == "(.*)" ==> (\d+)', plain))
    return own, set(re.findall(r'(\d+) -- "(.*)" --> (\d+)', plain)), fitness


INIT_HP = """ALGO POP_SIZE BATCH_SIZE LR_ACTOR LR_CRITIC O_U_NOISE EXPL_NOISE MEAN_NOISE THETA DT GAMMA
MEMORY_SIZE POLICY_FREQ LEARN_STEP TAU CHANNELS_LAST EPISODES EVO_EPOCHS TARGET_SCORE EVO_LOOP MAX_STEPS
LEARNING_DELAY EVO_STEPS EVAL_STEPS EVAL_LOOP TOURN_SIZE ELITISM"""
MUT_P = """NO_MUT ARCH_MUT NEW_LAYER PARAMS_MUT ACT_MUT RL_HP_MUT RL_HP_SELECTION MUT_SD RAND_SEED MIN_LR
MAX_LR MIN_BATCH_SIZE MAX_BATCH_SIZE MIN_LEARN_STEP MAX_LEARN_STEP hp_config net_config num_envs"""
ARGUMENTS = """env env_name algo pop memory INIT_HP MUT_P init_hp mut_p swap_channels max_steps evo_steps
eval_steps eval_loop learning_delay eps_start eps_end eps_decay target n_step per n_step_memory tournament
selection_strategy mutation checkpoint checkpoint_path overwrite_checkpoints save_elite elite_path wb
tensorboard tensorboard_log_dir verbose accelerator wandb_api_key wandb_kwargs"""
CALLED = """get_action set_training_mode reset_action_noise learn test add sample select mutation
save_checkpoint load_checkpoint clone create_population population make_vect_envs"""
REMEMBERED = "index mut steps fitness scores"


TEXT = TUTORIAL.read_text() if TUTORIAL.exists() else ""
RUNNABLE = {
    title: body
    for title, body in sections(TEXT)
    if re.search(r"^```python (run|script)", body, re.M)
}


def test_every_quote_is_the_source():
    assert wrong_quotes(TEXT) == []


@pytest.mark.parametrize("title", RUNNABLE)
def test_the_blocks_of_a_section_run_alone_and_print_what_is_said(title, tmp_path):
    for body, printed, said in run_blocks(RUNNABLE[title], tmp_path):
        assert printed == said, body


def tables(text):
    """The tables of generations in the blocks of a text."""
    return [body for kind, body in blocks(text) if body.startswith("generation ")]


@pytest.mark.parametrize("name", ["tutorial.md", "README.md"])
def test_a_recorded_table_is_that_of_the_recorded_run(name):
    found = tables((ROOT / name).read_text())
    assert found
    for body in found:
        assert body == recorded_table(int(body.split()[1]))


def test_the_recorded_run_printed_the_tables_of_its_history():
    printed = "\n" + (RECORDED / "output.txt").read_text()
    assert all(f"\n{recorded_table(generation)}" in printed for generation in range(8))


def test_the_family_tree_is_that_of_the_recorded_run():
    assert drawn_tree(TEXT) == family_tree()


def test_every_name_of_the_source_is_in_the_table_and_no_other():
    assert foreign_names(TEXT) == set(
        f"{INIT_HP} {MUT_P} {ARGUMENTS} {CALLED} {REMEMBERED}".split()
    )


def test_every_link_into_the_text_leads_to_a_title():
    assert dead_anchors(TEXT) == []


def test_every_word_of_the_glossary_is_used_and_they_are_in_order():
    glossary = dict(sections(TEXT))["Glossary"]
    words = re.findall(r"^\| ([\w -]+?)(?:, \$.*?\$)? \|", glossary, re.M)[1:]
    rest = TEXT.replace(glossary, "").lower()
    assert words == sorted(words) and len(words) > 30
    assert [word for word in words if word.lower() not in rest] == []


def test_every_name_in_the_prose_exists():
    assert unknown_names(TEXT) == []


def test_the_import_diagram_is_the_imports_of_the_idea():
    assert diagram_arrows(TEXT) == arrows_of(IDEA)


@pytest.mark.parametrize("path", [*IDEA.values(), *APP.values()], ids=lambda path: path.stem)
def test_a_module_mirrors_sections_that_there_are(path):
    doc = " ".join(ast.get_docstring(ast.parse(path.read_text())).split())
    sections = re.search(r"Mirrors the tutorial's sections? (.*?)\.( |$)", doc)[1]
    titles = re.findall(r"^## (.*)$", TEXT, re.M)
    assert set(re.findall(r'"(.*?)"', sections)) <= set(titles) and '"' in sections


def test_the_sections_and_the_readme_follow_the_reading_order():
    order = ["networks", "td3", "noise", "environment", "buffer", "population", "tournament"]
    order += ["mutation", "evaluate", "train", "render", "checkpoint", "images"]
    ends = re.findall(r"^\*Modules?:\* \[(\w+)\.py\]\(tinyevo/\w+\.py\)", TEXT, re.M)
    assert set(order) == set(IDEA) and ends == order
    readme = (ROOT / "README.md").read_text()
    assert re.findall(r"^\| \[(\w+)\.py\]\(tinyevo/\w+\.py\) \|", readme, re.M) == order


def test_every_setting_is_in_a_table_with_the_value_that_the_script_has():
    assert wrong_settings(TEXT) == []


def copies():
    """The blocks that run on a copied module."""
    return [
        (kind, body) for kind, body in blocks(TEXT) if len(kind) > 1 and kind[1].startswith("copy=")
    ]


def python(folder, code):
    """What some code prints that runs in a folder, without the package of this repository."""
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=folder,
        capture_output=True,
        text=True,
        env={"PATH": os.environ["PATH"]},
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def lay_out(folder, kind, body):
    """Copy the files that a block names, and put the block beside them; True if it is one file."""
    files = kind[1].removeprefix("copy=").split(",")
    place = folder if len(files) == 1 else folder / "tinyevo"
    place.mkdir(parents=True)
    for name in files:
        (place / name).write_text((ROOT / "tinyevo" / name).read_text())
    (folder / "block.py").write_text(body)
    return len(files) == 1


def test_modules_that_need_no_other_work_when_they_are_copied(tmp_path):
    alone = [copy for copy in copies() if "," not in copy[0][1]]
    for number, (kind, body) in enumerate(alone):
        assert lay_out(tmp_path / str(number), kind, body)
    # In one process, because to import torch takes longer than all of them.
    code = f"""
import runpy, sys
sys.modules["tinyevo"] = None  # any import of it fails
for number in range({len(alone)}):
    print(number)
    sys.path.insert(0, str(number))
    runpy.run_path(f"{{number}}/block.py")
    del sys.path[0]
"""
    printed = python(tmp_path, code).splitlines()
    assert set(map(str, range(len(alone)))) < set(printed)


@pytest.mark.parametrize(
    "kind, body",
    [copy for copy in copies() if "," in copy[0][1]],
    ids=lambda value: value[1] if isinstance(value, list) else "",
)
def test_a_copied_module_works_with_the_files_that_are_named(tmp_path, kind, body):
    assert not lay_out(tmp_path / "copy", kind, body)
    python(tmp_path / "copy", body)


def test_every_module_is_copied():
    copied = {kind[1].removeprefix("copy=").split(",")[0] for kind, _ in copies()}
    assert copied == {f"{name}.py" for name in IDEA}


def test_every_module_and_its_tests_are_linked():
    for path in [*IDEA.values(), *APP.values()]:
        module = path.relative_to(ROOT)
        tests = Path("tests", *module.parts[1:-1], f"test_{module.name}")
        assert f"({module})" in TEXT
        assert f"({tests})" in TEXT or not (ROOT / tests).exists()


# Each of these checks can fail


def test_a_changed_quote_is_noticed():
    good = (
        f"```python quote=tinyevo.noise:GaussianNoise\n{source('tinyevo.noise:GaussianNoise')}```\n"
    )
    assert wrong_quotes(good) == []
    assert wrong_quotes(good.replace("sigma", "sgima")) == ["quote=tinyevo.noise:GaussianNoise"]
    with pytest.raises(ValueError, match="no PinkNoise"):
        wrong_quotes("```python quote=tinyevo.noise:PinkNoise\n```\n")


def test_a_wrong_output_is_noticed(tmp_path):
    text = "```python run\nprint(6 * 7)\n```\n\n```text output\n{}\n```\n"
    assert [printed == said for _, printed, said in run_blocks(text.format(42), tmp_path)] == [True]
    assert [printed == said for _, printed, said in run_blocks(text.format(43), tmp_path)] == [
        False
    ]
    with pytest.raises(ZeroDivisionError):
        list(run_blocks("```python run\n1 / 0\n```\n", tmp_path))


def test_what_cannot_be_pasted_into_a_prompt_is_noticed(tmp_path):
    text = "```python run\nfor number in range(2):\n    {}\n{}print(number)\n```\n\n```text output\n1\n```\n"
    assert [
        printed == said for _, printed, said in run_blocks(text.format("pass", "\n"), tmp_path)
    ] == [True]
    assert [
        printed == said for _, printed, said in run_blocks(text.format("number", "\n"), tmp_path)
    ] == [False]
    with pytest.raises(SyntaxError):
        list(run_blocks(text.format("pass", ""), tmp_path))


def test_another_format_of_recorded_output_is_noticed(tmp_path):
    assert shape("id  fitness\n 3   -7.5e-04") == shape("id fitness\n12 1,000.25")
    assert shape("id fitness") != shape("id return")
    text = "```python run\nprint('return', 6 * 7)\n```\n\n```text recorded\n{} 41\n```\n"
    ((_, printed, said),) = run_blocks(text.format("return"), tmp_path)
    assert printed == said
    ((_, printed, said),) = run_blocks(text.format("fitness"), tmp_path)
    assert printed != said


def test_a_section_that_needs_another_one_is_noticed(tmp_path):
    text = "## One\n\n```python run\nx = 1\n```\n\n## Two\n\n```python run\nprint(x)\n```\n"
    (_, one), (_, two) = sections(text)
    assert list(run_blocks(one, tmp_path)) == [("x = 1\n", "", "")]
    with pytest.raises(NameError):
        list(run_blocks(two, tmp_path))


def test_a_wrong_edge_and_a_wrong_fitness_of_the_family_tree_are_noticed():
    for old, new in (("7 ==", "6 =="), ('["10: 90"]', '["10: 91"]'), ("0.0008", "0.0009")):
        assert old in TEXT and drawn_tree(TEXT.replace(old, new)) != family_tree()


def test_a_dead_anchor_is_noticed():
    text = "[a](#a-word-of-it)\n[b](#a-word)\n# A word, of it\n"
    assert dead_anchors(text) == ["a-word"]


def test_a_name_that_does_not_exist_is_noticed():
    good = "`tinyevo/td3.py` `TD3.learn` `make_envs(env_id, 8)` `test_nothing_follows_a_termination` [x](README.md)"
    assert unknown_names(good) == []
    bad = "`tinyevo/td4.py` `TD3.lern` `make_enws(1)` [x](READYOU.md)"
    assert unknown_names(bad) == ["tinyevo/td4.py", "TD3.lern", "make_enws(1)", "READYOU.md"]


def test_a_wrong_arrow_is_noticed():
    text = "```mermaid\n%% import arrows\ngraph TD\n  a --> b\n  c\n```\n"
    assert diagram_arrows(text) == {"a": {"b"}, "b": set(), "c": set()}


def test_a_wrong_setting_is_noticed():
    found = wrong_settings(
        "**`HyperParams`**\n\n| name | value | what |\n|---|---|---|\n| `gamma` | `0.98` | x |\n"
    )
    assert (
        "HyperParams.gamma is 0.99, not 0.98" in found and "HyperParams.tau is in no table" in found
    )
    assert "HyperParams.gamma is in no table" not in found


def rewrite():
    """Write the quotes and the outputs of the tutorial anew."""
    text = requoted(TUTORIAL.read_text(), ROOT)
    for table in tables(text):
        text = text.replace(table, recorded_table(int(table.split()[1])))
    for _, section in sections(text):
        for body, printed, said in run_blocks(section, tempfile.mkdtemp()):
            if said == printed:
                continue
            after = re.escape(f"{body}```\n\n") + r"(```text (?:output|recorded)\n)(?:.*\n)*?(```)$"
            assert re.search(after, text, re.M), f"this prints, and no output follows:\n{body}"
            new = f"{body}```\n\n"
            text = re.sub(
                after,
                lambda match, new=new, out=printed: new + match[1] + out + match[2],
                text,
                flags=re.M,
            )
    TUTORIAL.write_text(text)


if __name__ == "__main__":
    rewrite()
