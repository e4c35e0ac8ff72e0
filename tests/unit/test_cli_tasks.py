"""`rlpt tasks`: the list, its JSON, one problem shown, and what is said of names that are wrong."""

import json
import os
import subprocess
import sys
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

import rlpt.tasks  # noqa: F401  (registers)
from rlpt import registry
from rlpt.__main__ import main
from rlpt.task_browser import measure, record
from rlpt.tasks.base import create_task
from rlpt.tasks.catalogue import Entry, find

ROOT = Path(__file__).parents[2]
FIGURES = ("problems_per_second", "random_success", "reference_success")


@pytest.fixture
def rlpt_tasks(capsys, monkeypatch):
    """Runs `rlpt tasks ...` here; (exit code, stdout, stderr)."""
    monkeypatch.setenv("COLUMNS", "140")

    def run(*arguments):
        code = 0
        try:
            main(["tasks", *arguments])
        except SystemExit as error:
            code = error.code or 0
        return code, *capsys.readouterr()

    return run


def first_of_kind(kind):
    return next(name for name in registry.names("task") if registry.lookup("task", name).kind == kind)


def section(text, heading):
    """Lines below a heading of `rlpt tasks show`, up to the next one."""
    lines = text.split(f"\n{heading}", 1)[1].splitlines()[1:]
    return [line for line in lines if line.strip()]


def test_json_is_one_list_with_all_figures_by_level(rlpt_tasks):
    code, out, err = rlpt_tasks("lists/*r*", "--json", "--problems", "8")
    assert code == 0
    rows = {row["name"]: row for row in json.loads(out)}
    assert {"reverse", "sort"} <= set(rows)
    for row in rows.values():
        assert (row["kind"], row["source"], row["field"]) == ("task", "native", "lists")
        assert row["unique_answer"] is True
        assert [level["level"] for level in row["levels"]] == list(range(10))
        assert all(level["num_problems"] == 8 for level in row["levels"])
        assert all(0 <= level["random_success"] <= 1 for level in row["levels"])
        mean_time = sum(1 / level["problems_per_second"] for level in row["levels"]) / 10
        assert row["throughput"] == pytest.approx(1 / mean_time)
    assert rows["reverse"]["levels"][0]["answer_limit"] == 1
    assert rows["reverse"]["levels"][0]["reference_success"] > rows["reverse"]["levels"][9]["reference_success"]
    assert f"uniform mixture of {len(rows)} native families" in err


def test_json_lists_options_and_fast_measures_nothing(rlpt_tasks):
    code, out, err = rlpt_tasks("addition", "--json", "--fast")
    [row] = json.loads(out)
    assert (code, err) == (0, "")
    assert row["options"] == [{"name": "reversed_answer", "type": "boolean", "default": False}]
    assert row["throughput"] is None
    assert row["levels"][3]["answer_limit"] > 0
    assert all(level[figure] is None for level in row["levels"] for figure in FIGURES)


def test_table_is_grouped_by_field_and_ends_with_the_mixture(rlpt_tasks):
    code, out, _ = rlpt_tasks("--kind", "task", "*/*r*", "--source", "native", "--problems", "2")
    lines = [line.strip() for line in out.splitlines()]
    assert code == 0
    heading = next(i for i, line in enumerate(lines) if line.startswith("lists") and line.endswith("task, native"))
    assert any(line.startswith("reverse") and "0-9" in line and "%" in line for line in lines[heading:])
    assert not any(line.startswith(("copy", "count ")) for line in lines)
    assert "problems/s over the uniform mixture" in [line for line in lines if line][-1]


def test_filters_by_word_glob_kind_and_source(rlpt_tasks):
    def names(*arguments):
        code, out, _ = rlpt_tasks("list", *arguments, "--fast", "--json")
        assert code == 0
        return {row["name"] for row in json.loads(out)}

    everything = set(registry.names("task"))
    assert everything <= names()
    assert names("s/rever") == names("lists/reverse") == names("re?erse") == {"reverse"}
    assert {"reverse", "sort"} <= names("lists")
    assert names("sort") == {"sort"}, "a whole name is only itself"
    games = {name for name in everything if registry.lookup("task", name).kind == "game"}
    assert names("--kind", "game") == games
    assert "sort" in names("--source", "native")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["show", "revers"], "unknown task 'revers'; did you mean 'reverse'"),
        (["show", "reverse", "--level", "10"], "task reverse: level 10 is outside 0..9"),
        (["show", "reverse", "--level", "-1"], "level -1 is outside 0..9"),
        (["show", "addition", "--option", "reversed=true"], "unknown key; did you mean 'reversed_answer'"),
        (["show", "addition", "--option", "reversed_answer"], "written key=value"),
        (["revesre"], "no task matches 'revesre'; did you mean 'reverse'"),
        (["--kind", "gmae"], "--kind: unknown kind 'gmae'; did you mean 'game'"),
        (["--source", "openspiel"], "did you mean 'open_spiel'"),
    ],
)
def test_what_is_not_there_is_one_line_with_the_near_name(rlpt_tasks, arguments, said):
    code, out, err = rlpt_tasks(*arguments)
    assert (code, out) == (2, "")
    assert err.startswith("error: ")
    assert said in err


def test_show_a_task(rlpt_tasks):
    code, out, _ = rlpt_tasks("show", "countdown", "--level", "4", "--seed", "7")
    assert code == 0
    assert "countdown, task, native: level 4, seed 7" in out
    steps = section(out, "worked solution")[2:5]
    assert all("=" in step and step.rstrip().endswith("right") for step in steps)
    assert section(out, "as the corpus holds it")[0].startswith("<|prompt|>countdown ")
    scores = [line.split() for line in section(out, "what answers are worth")[2:]]
    kinds = [" ".join(words[:2]) for words in scores]
    assert sum(kind == "random policy" for kind in kinds) == 3
    assert sum(words[0] == "junk" for words in scores) == 3
    assert {"one changed", "last missing", "last twice"} <= set(kinds)
    assert scores[0][0] == "oracle"
    assert scores[0][-1] == "1.000"
    assert ["empty", "0.000"] in scores


def test_show_is_the_same_again_and_takes_options(rlpt_tasks):
    plain = rlpt_tasks("show", "addition", "--level", "4")
    assert plain == rlpt_tasks("show", "addition", "--level", "4")
    turned = rlpt_tasks("show", "addition", "--level", "4", "--option", "reversed_answer=true")

    def answer(shown):
        return next(line.split()[-1] for line in shown[1].splitlines() if line.strip().startswith("answer "))

    assert answer(plain) == answer(turned)[::-1]


def test_show_a_game_with_the_value_of_each_move(rlpt_tasks):
    code, out, _ = rlpt_tasks("show", first_of_kind("game"), "--level", "2")
    assert code == 0
    moves = section(out, "legal moves of player")[2:]
    assert any(line.rstrip().endswith("best") for line in moves)
    assert "worked solution" in out


def test_show_an_environment_turn_by_turn(rlpt_tasks):
    code, out, _ = rlpt_tasks("show", first_of_kind("environment"), "--level", "1")
    assert code == 0
    turns = section(out, "the oracle's episode")
    assert turns[0].split() == ["turn", "seen", "then", "score", "turns", "left", "mark"]
    assert any("1.00" in line and line.rstrip().endswith("right") for line in turns)
    assert "<|turn|>" in out


def test_a_library_that_fails_costs_its_own_row_and_a_native_bug_stops(capsys):
    @dataclass(frozen=True)
    class Failing(type(create_task({"name": "sort"}))):
        def generate(self, rng, level):
            raise RuntimeError("the worker died")

    entry = Entry("gym.sort", "task", "reasoning_gym", "reasoning_gym", Failing)
    [(measured, levels), (other, _)] = measure([entry, find("sort")], 2)
    assert (record(measured, levels)["unavailable"], other.name) == ("failed here: the worker died", "sort")
    assert "error: task gym.sort: the worker died" in capsys.readouterr().err
    with pytest.raises(RuntimeError, match="the worker died"):
        measure([replace(entry, source="native")], 2)


def test_gallery_is_written_where_asked(rlpt_tasks, tmp_path):
    page = tmp_path / "below" / "page.html"
    code, out, _ = rlpt_tasks("gallery", "reverse", "--problems", "2", "--out", str(page))
    assert (code, out.strip()) == (0, str(page))
    assert "<h3>" in page.read_text()
    assert [path.name for path in page.parent.iterdir()] == ["page.html"]


def test_optional_packages_may_be_missing_and_heavy_ones_are_not_needed():
    hide = (
        "import sys, json\n"
        "for name in ('torch', 'megatron', 'transformers', 'matplotlib', 'pyspiel', 'reasoning_gym'):\n"
        "    sys.modules[name] = None\n"
        "from rlpt.__main__ import main\n"
        "main(['tasks', '--fast', '--json'])\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", hide], cwd=ROOT, capture_output=True, text=True, timeout=60, env={**os.environ}
    )
    assert done.returncode == 0, done.stderr
    rows = json.loads(done.stdout)
    assert {"reasoning_gym.gcd", "open_spiel.hex"} <= {row["name"] for row in rows if "unavailable" in row}
    assert "reasoning_gym.codeio" in {row["name"] for row in rows if "unusable" in row}
    assert any(row["name"] == "reverse" and len(row["levels"]) == 10 for row in rows)
    for row in rows:
        assert row["source"] == "native" or "levels" not in row
