"""Plots from a run's files: what is read, and that any subset of figures draws."""

import json
import sys

import pytest

from rlpt.errors import ConfigError, DataError
from rlpt.report.arms import plot_arms
from rlpt.report.learning import plot_learning
from rlpt.report.metrics import read_metrics, smooth

TRAINING = {
    "text/loss": 3.0,
    "play/loss": 0.1,
    "play/reward": 0.5,
    "play/success": 0.4,
    "play/success/sort": 0.4,
    "play/level/sort": 1.0,
    "play/reward/format": 1.0,
    "tokens_per_second": 900.0,
}
EVALUATION = {
    "bits_per_byte": 2.5,
    "unigram": 4.0,
    "tasks": {"sort": {"level": 3, "pass@1": 0.5, "interval": [0.4, 0.6]}},
}


def write(folder, rows, tail=""):
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows) + tail)
    return folder


def rows(training=TRAINING, evaluation=EVALUATION):
    made = [{"step": step, **training} for step in range(1, 30)]
    return made + ([{"step": step, "evaluation": evaluation} for step in (0, 10, 29)] if evaluation else [])


def test_series_are_told_apart_by_their_names(tmp_path):
    metrics = read_metrics(write(tmp_path, rows()))
    assert set(metrics.below("success")) == {"sort"}
    assert set(metrics.of_objectives("reward")) == {"play"}
    assert metrics.evaluated("bits_per_byte") == [(0, 2.5), (10, 2.5), (29, 2.5)]
    assert metrics.evaluated_tasks() == {"sort": [(step, 0.5, (0.4, 0.6)) for step in (0, 10, 29)]}


def test_evaluation_repeated_after_a_resume_counts_once(tmp_path):
    again = {"step": 10, "evaluation": {**EVALUATION, "bits_per_byte": 2.0}}
    assert read_metrics(write(tmp_path, [*rows(), again])).evaluated("bits_per_byte")[1] == (10, 2.0)


def test_line_still_being_written_is_left_out_and_a_broken_one_is_named(tmp_path):
    assert len(read_metrics(write(tmp_path, rows(), tail='{"step": 30, "text/l')).series["text/loss"]) == 29
    with pytest.raises(DataError, match=r"metrics\.jsonl:1"):
        read_metrics(write(tmp_path, [{"loss": 3}]))
    with pytest.raises(DataError, match="no such file"):
        read_metrics(tmp_path / "none")


@pytest.mark.parametrize("left_out", [(), ("bits_per_byte",), ("unigram", "tasks")])
def test_any_subset_of_evaluated_figures_draws(tmp_path, left_out):
    kept = {key: EVALUATION[key] for key in EVALUATION if key not in left_out}
    path = plot_learning(write(tmp_path / "run", rows(evaluation=kept)))
    assert path == tmp_path / "run" / "learning.png"
    assert path.read_bytes().startswith(b"\x89PNG")
    assert sorted(file.name for file in path.parent.iterdir()) == ["learning.png", "metrics.jsonl"]


@pytest.mark.parametrize("prefix", ["text/", "play/"])
def test_run_with_one_kind_of_figures_draws(tmp_path, prefix):
    training = {key: value for key, value in TRAINING.items() if key.startswith(prefix)}
    assert plot_learning(write(tmp_path, rows(training, evaluation=None))).exists()


def test_missing_figures_are_null_and_still_draw(tmp_path):
    unmeasured = {"bits_per_byte": None, "unigram": None, "tasks": {"sort": {"pass@1": None, "interval": None}}}
    assert plot_learning(write(tmp_path, rows({"text/loss": 1.0, "play/reward": None}, unmeasured))).exists()


def test_nothing_to_draw_is_an_error(tmp_path):
    with pytest.raises(DataError, match="no figure to draw"):
        plot_learning(write(tmp_path, [{"step": 1, "lr": 0.1}]))


def test_without_matplotlib_the_remedy_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(ConfigError, match=r"pip install 'rlpt\[report\]'"):
        plot_learning(write(tmp_path, rows()))


def test_arms_draw_side_by_side(tmp_path):
    one, other = write(tmp_path / "one", rows()), write(tmp_path / "other", rows(evaluation={"bits_per_byte": 3.0}))
    assert plot_arms("both", {"one": [one, one], "other": [other]}, tmp_path / "arms.png").exists()
    bare = write(tmp_path / "bare", rows(evaluation=None))
    series = [{"step": step, "lr": 0.1, "play/success": step / 10} for step in range(1, 5)]
    trained = write(tmp_path / "trained", series)
    assert plot_arms("trained", {"arm": [trained]}, tmp_path / "trained.png", ["play/success"]).exists()
    with pytest.raises(DataError, match="no run was evaluated and no claim names"):
        plot_arms("none", {"bare": [bare]}, tmp_path / "none.png")


def test_smoothing_is_a_running_mean_of_what_has_been_seen():
    points = [(float(step), float(step)) for step in range(80)]
    assert smooth(points)[:3] == [(0.0, 0.0), (1.0, 0.5), (2.0, 1.5)]
    assert smooth(points[:5]) == points[:5]
