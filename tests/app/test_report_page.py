"""report.html: one file that holds all of a run, opens anywhere and asks for nothing else."""

import html
import io
import json
import re
import shutil
import subprocess
import tomllib
from pathlib import Path

import imageio.v3 as imageio
import numpy as np
import pytest
from common import MUTATIONS, run

from tinyevo.app import report
from tinyevo.app.plots import KINDS

ROOT = Path(__file__).parents[2]
CHROMIUM = next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None
)
EVIL = (
    "</script><script>document.title = 'broken'</script><img src=x onerror=alert(1)> & 'x' \u2028"
)


@pytest.fixture(scope="module")
def history():
    return run(mutations=MUTATIONS).history


def page(history, *files):
    """The page of a history, as text."""
    file = io.BytesIO()
    report.write_report(history, files, file)
    return file.getvalue().decode()


def data(text):
    """What the script of a page is given."""
    start = text.index("= {", text.index("<script>")) + 2
    return json.JSONDecoder().raw_decode(text[start:])[0]


def test_the_page_holds_every_row_and_the_kinds_of_mutation(history):
    held = data(page(history))
    assert held["history"] == [pytest.approx(row, nan_ok=True) for row in history]
    assert held["kinds"] == {kind: list(look) for kind, look in KINDS.items()}
    assert held["film"] is None


def test_the_film_is_a_part_of_the_page(history, tmp_path):
    film = tmp_path / "evolution.gif"
    film.write_bytes(b"GIF89a")
    files = tmp_path / "elite.pt", film
    assert data(page(history, *files))["film"] == "data:image/gif;base64,R0lGODlh"


def test_the_film_of_the_evolution_is_on_the_page_and_not_that_of_the_lander(history, tmp_path):
    files = [tmp_path / name for name in ("evolution.gif", "lander.gif")]
    for path, data_of in zip(files, (b"GIF89a", b"GIF87a")):
        path.write_bytes(data_of)
    assert data(page(history, *files))["film"] == "data:image/gif;base64,R0lGODlh"


def test_no_text_of_a_run_can_end_the_script(history):
    evil = [row | {"mutation": EVIL} for row in history]
    text = page(evil)
    assert text.count("</script>") == 1 and text.count("<script>") == 1
    assert data(text)["history"][0]["mutation"] == EVIL


def test_the_page_names_no_other_file_and_forbids_every_request(history):
    text = page(history)
    assert "default-src 'none'" in text
    assert set(re.findall(r"\w+://[^\"'\s]*", text)) == {"http://www.w3.org/2000/svg"}  # a name
    assert not re.search(r"<(script|img|link)[^>]*(src|href)=\"(?!data:)", text)


def test_the_page_is_installed_with_the_package():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    assert project["tool"]["setuptools"]["package-data"] == {"tinyevo.app": ["report.html"]}


# In a browser

PROBE = """
<script>
"use strict";
const seen = {errors: []};
addEventListener("error", event => seen.errors.push(String(event.message)));
addEventListener("securitypolicyviolation", event => seen.errors.push(event.blockedURI));
addEventListener("load", () => {
  const text = id => document.getElementById(id).textContent;
  const look = () => ({name: text("name"), facts: text("facts"),
    lines: [...document.querySelectorAll("#fitness polyline[stroke='#0072B2']")].map(
      line => line.getAttribute("points").trim().split(" ").length),
    curve: document.querySelectorAll("#curve circle").length,
    pressed: [...document.querySelectorAll("[aria-pressed=true]")].map(node => node.dataset.member),
    reachable: [...document.querySelectorAll("[role=button][tabindex='0']")].map(node => node.dataset.member)});
  const press = key => document.activeElement.dispatchEvent(new KeyboardEvent("keydown", {key, bubbles: true}));
  seen.title = document.title;
  seen.summary = text("summary");
  seen.first = look();
  seen.members = [...document.querySelectorAll("[data-member]")].map(node => node.dataset.member);
  document.querySelector("[data-member='CHOSEN']").dispatchEvent(new MouseEvent("click", {bubbles: true}));
  seen.clicked = look();
  document.querySelector("[data-member='CHOSEN']").focus();
  press("ArrowLeft");
  seen.parent = look();
  press("ArrowRight");
  seen.back = look();
  document.querySelector("#facts button")?.click();
  seen.linked = look();
  seen.overflow = document.documentElement.scrollWidth - innerWidth;
  seen.film = document.querySelector("img").naturalWidth;
  seen.requests = performance.getEntriesByType("resource").map(entry => entry.name)
    .filter(name => !name.startsWith("data:"));
  const place = document.createElement("pre");
  place.id = "seen";
  place.textContent = JSON.stringify(seen);
  document.body.append(place);
});
</script>
"""


def open_page(text, folder, width=1280):
    """What a browser makes of a page, as HTML, and what it writes to its console."""
    path = folder / "page.html"
    path.write_text(text)
    command = [CHROMIUM, "--headless=new", "--no-sandbox", "--disable-gpu", "--dump-dom"]
    command += [f"--window-size={width},720", f"--user-data-dir={folder / 'profile'}"]
    command += ["--enable-logging=stderr", path.as_uri()]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    return done.stdout, [line for line in done.stderr.splitlines() if "CONSOLE" in line]


def visit(text, folder, chosen, width=1280):
    """What is seen on a page on which the member `chosen` is clicked on; no error may happen."""
    probe = PROBE.replace("CHOSEN", chosen)
    dom, console = open_page(text.replace("<body>", f"{probe}<body>", 1), folder, width)
    seen = json.loads(html.unescape(re.search(r'<pre id="seen">(.*?)</pre>', dom, re.S)[1]))
    assert seen["errors"] == [] and console == [] and seen["requests"] == []
    return seen


def gif(path):
    """A film of one picture."""
    imageio.imwrite(path, np.zeros((4, 6, 3), np.uint8), extension=".gif")
    return path


def called(row):
    return f"member {row['id']}, generation {row['generation']}"


@pytest.mark.slow
@pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium")
class TestInABrowser:
    @pytest.mark.parametrize("width", [1280, 500])
    def test_a_click_on_a_member_and_keys_show_what_the_history_says_of_it(
        self, history, tmp_path, width
    ):
        child = next(row for row in reversed(history) if row["mutation_kind"] == "rl_hp")
        before = [row for row in history if row["generation"] == child["generation"] - 1]
        parent = next(row for row in before if row["id"] == child["parent_id"])
        key = f"{child['generation']}/{child['id']}"
        seen = visit(page(history, gif(tmp_path / "film.gif")), tmp_path, key, width)
        assert seen["film"] == 6, "the film is not shown"
        assert seen["overflow"] <= 0, "the page is wider than the window"
        keys = [f"{row['generation']}/{row['id']}" for row in history]
        assert sorted(seen["members"]) == sorted(keys)
        last = [row for row in history if row["elite"]][-1]
        assert seen["first"]["name"] == called(last)

        clicked = seen["clicked"]
        assert clicked["name"] == called(child)
        assert clicked["pressed"] == clicked["reachable"] == [key]
        assert clicked["lines"] == [child["generation"] + 1], "its line is not picked out"
        assert clicked["curve"] == child["generation"] + 1
        facts = clicked["facts"]
        assert f"mutation{child['mutation']}parent{parent['id']}children" in facts
        assert f"fitness{child['fitness']:.4g}" in facts
        name, old, _, new = child["mutation"].split(" ")  # such as "tau 0.1 -> 0.2"
        assert re.search(rf"{name}{old[:4]}\S* → {new[:4]}", facts)
        assert f"gamma{child['gamma']}" in facts and f"activation{child['activation']}" in facts
        assert seen["parent"]["name"] == called(parent)  # by the key to the left
        siblings = [row for row in history if row["generation"] == child["generation"]]
        siblings = [row for row in siblings if parent["id"] in (row["id"], row["parent_id"])]
        fittest = max(siblings, key=lambda row: row["fitness"])
        assert seen["back"]["name"] == called(fittest)  # by the key to the right
        assert seen["linked"]["name"] == called(parent)  # by the link to the parent

    def test_a_hostile_text_is_shown_and_not_run(self, history, tmp_path):
        evil = [row | {"mutation": EVIL, "activation": "<b>relu</b>"} for row in history]
        seen = visit(page(evil), tmp_path, "0/0")
        assert seen["title"] == "An evolution"
        assert EVIL in seen["clicked"]["facts"] and "<b>relu</b>" in seen["clicked"]["facts"]

    def test_a_member_that_diverged_and_a_single_generation_are_drawn(self, history, tmp_path):
        first = [dict(row) for row in history[:3]]
        lost = next(row for row in first if not row["elite"])
        lost |= {"fitness": -np.inf, "train_return": np.nan}
        seen = visit(page(first), tmp_path, f"0/{lost['id']}")
        assert "fitnessdiverged" in seen["clicked"]["facts"]
        assert "while trainingnone" in seen["clicked"]["facts"]

    def test_an_error_in_the_script_would_be_seen(self, history, tmp_path):
        broken = page(history).replace("choose(winner);", "nothing();")
        _, console = open_page(broken, tmp_path)
        assert len(console) == 1 and "nothing is not defined" in console[0]

    def test_a_request_would_be_seen_and_is_not_let_out(self, history, tmp_path):
        image = (
            "document.body.append(Object.assign(new Image(), {src: 'http://127.0.0.1:9/x.gif'}));"
        )
        asking = page(history).replace("choose(winner);", f"choose(winner); {image}")
        _, console = open_page(asking, tmp_path)
        assert any("Content Security Policy" in line for line in console)
