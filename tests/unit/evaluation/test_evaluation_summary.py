"""evaluation.json and summary.json: their exact shape, whole files only, and the table."""

import io
import json
import math

import pytest
from rich.console import Console

from rlpt.errors import ConfigError, DataError
from rlpt.evaluation.summary import (
    add_evaluation,
    evaluation_table,
    figure,
    new_evaluation,
    read_evaluations,
    summarise,
    write_evaluations,
    write_json,
    write_summary,
)


def sort(pass_at_1):
    figures = {"level": 3, "pass@1": pass_at_1, "interval": [pass_at_1 - 0.1, pass_at_1 + 0.1], "pass@4": 0.99}
    return {"sort": figures | {"mean_score": 0.5, "problems": 8, "samples": 4}}


def thinking(length, share, right):
    """`sort` with thoughts of one behaviour."""
    mark = {"share": share, "per_thought": 1.25, "right": right, "accuracy_with": 0.625, "accuracy_without": None}
    behaviours = {"thoughts": 32, "length": length, "repetition": 0.0625, "right_steps": 0.375, "all_right": 0.0}
    return {"sort": sort(0.5)["sort"] | {"behaviours": behaviours | {"marks": {"backtracking": mark}}}}


START = new_evaluation(0, 0, sort(0.125), 5.5, 4.0)
END = new_evaluation(50, 1000, sort(0.875), 2.5, 4.0)


def test_summary_has_exactly_the_documented_shape(tmp_path):
    summary = summarise([START, END], steps=50, text_tokens=1000, rollout_tokens=70, episodes=9, seconds=1.5)
    assert json.loads(write_summary(tmp_path, summary).read_text()) == {
        "bits_per_byte": {"start": 5.5, "end": 2.5, "unigram": 4.0},
        "tasks": {"sort": {"level": 3, "pass@1": {"start": 0.125, "end": 0.875, "interval": [0.775, 0.975]}}},
        "steps": 50,
        "text_tokens": 1000,
        "rollout_tokens": 70,
        "episodes": 9,
        "seconds": 1.5,
    }


def test_summary_without_evaluations():
    summary = summarise([], steps=1, text_tokens=0, rollout_tokens=0, episodes=0, seconds=0.0)
    assert summary["bits_per_byte"] == {"start": None, "end": None, "unigram": None}
    assert summary["tasks"] == {}


def test_summary_of_thoughts():
    first, last = new_evaluation(0, 0, thinking(4.5, 0.0, None)), new_evaluation(9, 9, thinking(17.25, 0.75, 0.5))
    counts = {"steps": 9, "text_tokens": 9, "rollout_tokens": 9, "episodes": 9, "seconds": 1.0}
    task = summarise([first, last], **counts)["tasks"]["sort"]
    assert task["length"] == {"start": 4.5, "end": 17.25}
    assert task["behaviours"] == {
        "backtracking": {"share": {"start": 0.0, "end": 0.75}, "right": {"start": None, "end": 0.5}}
    }
    late = summarise([START, last], **counts)["tasks"]["sort"]
    assert late["length"] == {"start": None, "end": 17.25}
    assert late["behaviours"]["backtracking"]["share"] == {"start": None, "end": 0.75}
    assert "length" not in summarise([first, END], **counts)["tasks"]["sort"]
    assert figure(last, "tasks.sort.behaviours.marks.backtracking.share") == 0.75


def test_evaluations_are_in_step_order_and_replaced(tmp_path):
    again = new_evaluation(50, 1000, sort(0.5), 2.0)
    evaluations = add_evaluation(add_evaluation(add_evaluation([], END), START), again)
    assert evaluations == [START, again]
    write_evaluations(tmp_path, evaluations)
    assert read_evaluations(tmp_path) == evaluations
    assert [path.name for path in tmp_path.iterdir()] == ["evaluation.json"]


def test_a_figure_that_is_not_finite_is_null_in_valid_json(tmp_path):
    write_evaluations(tmp_path, [new_evaluation(0, 0, {}, math.inf, math.nan)])
    one = json.loads((tmp_path / "evaluation.json").read_text(), parse_constant=pytest.fail)[0]
    assert (one["bits_per_byte"], one["unigram"]) == (None, None)


def test_a_failed_write_leaves_the_old_file(tmp_path):
    write_json(tmp_path / "a.json", {"a": 1})
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_json(tmp_path / "a.json", {"a": math.nan})
    assert json.loads((tmp_path / "a.json").read_text()) == {"a": 1}


@pytest.mark.parametrize("text", ["{", "{}", "[1]", '[{"a": 1}]', "[" * 100_000])
def test_a_broken_file_is_named(tmp_path, text):
    assert read_evaluations(tmp_path) == []
    (tmp_path / "evaluation.json").write_text(text)
    with pytest.raises(DataError, match=r"evaluation\.json"):
        read_evaluations(tmp_path)


def test_figure_by_path():
    assert figure(END, "tasks.sort.pass@1") == 0.875
    assert figure(END, "bits_per_byte") == 2.5
    with pytest.raises(ConfigError, match=r"did you mean 'tasks\.sort\.pass@1'"):
        figure(END, "tasks.sort.pass@11")


def test_table_shows_text_and_tasks():
    console = Console(file=io.StringIO(), width=120)
    console.print(evaluation_table([START, END]))
    shown = console.file.getvalue()
    for text in ("5.500", "2.500", "unigram 4.000", "sort", "0.125", "0.875", "0.775 to 0.975", "pass@4: 0.990"):
        assert text in shown
    assert "Thoughts" not in shown


def test_table_shows_thoughts_where_there_are_some():
    console = Console(file=io.StringIO(), width=120)
    console.print(evaluation_table([START, new_evaluation(9, 9, thinking(17.25, 0.75, 0.5))]))
    shown = console.file.getvalue()
    assert "Thoughts at step 9" in shown
    lines = [line.split() for line in shown.replace("│", " ").splitlines()]
    assert ["sort", "characters", "n/a", "17.250"] in lines
    assert ["right", "steps", "n/a", "0.375"] in lines
    assert ["backtracking", "n/a", "0.750", "0.500", "0.625", "n/a"] in lines
