"""Evaluations as files and as a table: `evaluation.json` (all of a run, by step) and `summary.json` (start and end).

An evaluation is {"step", "text_tokens", "bits_per_byte", "unigram", "tasks": {NAME: figures}}, as JSON.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rlpt.errors import ConfigError, DataError
from rlpt.registry import suggest

if TYPE_CHECKING:
    from rich.console import Group
    from rich.table import Table

Evaluation = dict[str, Any]


def new_evaluation(
    step: int,
    text_tokens: int,
    tasks: Mapping[str, Mapping[str, Any]],
    bits_per_byte: float | None = None,
    unigram: float | None = None,
    games: Mapping[str, Mapping[str, Any]] | None = None,
) -> Evaluation:
    """One evaluation's record; None where no text is evaluated, and where a figure is not finite."""
    record = {"step": step, "text_tokens": text_tokens, "bits_per_byte": bits_per_byte, "unigram": unigram}
    played = {"games": {name: dict(figures) for name, figures in games.items()}} if games else {}
    finite: Evaluation = _finite(record | {"tasks": {name: dict(figures) for name, figures in tasks.items()}} | played)
    return finite


def add_evaluation(evaluations: Sequence[Evaluation], evaluation: Evaluation) -> list[Evaluation]:
    """The list in step order with `evaluation` put in; one of the same step is replaced."""
    others = [one for one in evaluations if one["step"] != evaluation["step"]]
    return sorted([*others, evaluation], key=lambda one: one["step"])


def figure(evaluation: Evaluation, path: str) -> float | None:
    """The number at a dotted path such as `tasks.sort.pass@1`. Raises ConfigError that lists what there is."""
    known = dict(_leaves(evaluation, ""))
    if path not in known:
        raise ConfigError(f"checkpoint.keep_best: no evaluation figure '{path}'{suggest(path, sorted(known))}")
    return known[path]


def write_json(path: Path, value: Any) -> None:
    """Valid JSON, in one piece: a reader sees the old file or the new one. Raises ValueError for NaN."""
    temporary = path.with_name(f".{path.name}.tmp")
    with open(temporary, "w", encoding="utf-8") as file:
        json.dump(value, file, indent=2, allow_nan=False)
        file.write("\n")
        file.flush()
        os.fsync(file.fileno())
    os.replace(temporary, path)


def write_evaluations(run_dir: Path, evaluations: Sequence[Evaluation]) -> Path:
    """Writes `evaluation.json`: the list of all evaluations of the run."""
    path = run_dir / "evaluation.json"
    write_json(path, list(evaluations))
    return path


def read_evaluations(run_dir: Path) -> list[Evaluation]:
    """What `evaluation.json` holds; an empty list without one. Raises DataError for a file that is no such list."""
    path = run_dir / "evaluation.json"
    if not path.exists():
        return []
    try:
        evaluations = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path}: not valid JSON ({error}); delete it and evaluate again") from None
    if not isinstance(evaluations, list) or not all(isinstance(one, dict) and "step" in one for one in evaluations):
        raise DataError(f"{path}: must be a list of evaluations, each with a step; delete it and evaluate again")
    return evaluations


def summarise(
    evaluations: Sequence[Evaluation],
    *,
    steps: int,
    text_tokens: int,
    rollout_tokens: int,
    episodes: int,
    seconds: float,
) -> dict[str, Any]:
    """A finished run: the first and last evaluation side by side (None where there was none), and what it took."""
    first: Evaluation = evaluations[0] if evaluations else new_evaluation(0, 0, {})
    last: Evaluation = evaluations[-1] if evaluations else first
    tasks = {}
    for name, end in last["tasks"].items():
        start = first["tasks"].get(name)
        pass_at_1 = {"start": start["pass@1"] if start else None, "end": end["pass@1"], "interval": end["interval"]}
        tasks[name] = {"level": end["level"], "pass@1": pass_at_1} | _thoughts(start, end)
    return {
        "bits_per_byte": {"start": first["bits_per_byte"], "end": last["bits_per_byte"], "unigram": last["unigram"]},
        "tasks": tasks,
        **({"games": _games(first, last)} if last.get("games") else {}),
        "steps": steps,
        "text_tokens": text_tokens,
        "rollout_tokens": rollout_tokens,
        "episodes": episodes,
        "seconds": seconds,
    }


def _games(first: Evaluation, last: Evaluation) -> dict[str, Any]:
    """Label -> {"no_loss", "worst_seat", "win": {"start", "end"}}, the first with its interval."""
    games = {}
    for label, end in last.get("games", {}).items():
        start = first.get("games", {}).get(label)
        pairs = {key: {"start": _at(start, key), "end": end[key]} for key in ("no_loss", "worst_seat", "win")}
        pairs["no_loss"]["interval"] = end["interval"]
        games[label] = pairs
    return games


def _thoughts(start: Mapping[str, Any] | None, end: Mapping[str, Any]) -> dict[str, Any]:
    """{"length", "behaviours": {NAME: {"share", "right"}}} with start and end; nothing where there are no thoughts."""
    if "behaviours" not in end:
        return {}

    def pair(*path: str) -> dict[str, float | None]:
        return {"start": _at(start, "behaviours", *path), "end": _at(end, "behaviours", *path)}

    marks = {name: {key: pair("marks", name, key) for key in ("share", "right")} for name in end["behaviours"]["marks"]}
    return {"length": pair("length"), "behaviours": marks}


def write_summary(run_dir: Path, summary: Mapping[str, Any]) -> Path:
    """Writes `summary.json`."""
    path = run_dir / "summary.json"
    write_json(path, dict(summary))
    return path


def summarised_steps(run_dir: Path) -> int | None:
    """Steps of the run that `summary.json` sums up; None where there is none that can be read."""
    try:
        return int(json.loads((run_dir / "summary.json").read_text(encoding="utf-8"))["steps"])
    except (OSError, ValueError, KeyError, TypeError):
        return None


def evaluation_table(evaluations: Sequence[Evaluation]) -> Group:
    """Rich tables of the last evaluation beside the first one: text, then a line a task; and, where there are thoughts,
    what these look like."""
    from rich.console import Group

    last = evaluations[-1]
    thinks = any("behaviours" in figures for figures in last["tasks"].values())
    more = [_behaviour_table(evaluations)] if thinks else []
    more += [_game_table(evaluations)] if last.get("games") else []
    return Group(_figure_table(evaluations), *more)


def _figure_table(evaluations: Sequence[Evaluation]) -> Table:
    from rich.table import Table

    first, last = evaluations[0], evaluations[-1]
    table = Table(title=f"Evaluation at step {last['step']}", title_justify="left")
    table.add_column("figure")
    table.add_column("level", justify="right")
    columns = (f"step {first['step']}", f"step {last['step']}", "95 % interval", "pass@k", "mean score")
    for heading in columns:
        table.add_column(heading, justify="right")
    if last["bits_per_byte"] is not None:
        start, end, unigram = first["bits_per_byte"], last["bits_per_byte"], last["unigram"]
        beside = "" if unigram is None else f"unigram {unigram:.3f}"
        table.add_row("text, bits per byte", "", _number(start), _number(end), "", beside, "")
    for name, figures in last["tasks"].items():
        start = first["tasks"].get(name, {}).get("pass@1")
        low, high = figures["interval"]
        more = " ".join(f"{k}: {_number(v)}" for k, v in figures.items() if k.startswith("pass@") and k != "pass@1")
        row = (_number(start), _number(figures["pass@1"]), f"{low:.3f} to {high:.3f}", more)
        table.add_row(f"{name}, pass@1", str(figures["level"]), *row, _number(figures["mean_score"]))
    return table


def _behaviour_table(evaluations: Sequence[Evaluation]) -> Table:
    """A line for length, right steps and repetition of each task's thoughts, then one for each behaviour: the share of
    thoughts that show it, how much of it is right, and pass@1 of thoughts with it and without it."""
    from rich.table import Table

    first, last = evaluations[0], evaluations[-1]
    table = Table(title=f"Thoughts at step {last['step']}", title_justify="left")
    table.add_column("task")
    table.add_column("thoughts")
    for heading in (f"step {first['step']}", f"step {last['step']}", "right", "with", "without"):
        table.add_column(heading, justify="right")
    for name, figures in last["tasks"].items():
        if "behaviours" not in figures:
            continue
        start, end = _at(first["tasks"], name, "behaviours"), figures["behaviours"]
        for key, heading in (("length", "characters"), ("right_steps", "right steps"), ("repetition", "repetition")):
            table.add_row("" if key != "length" else name, heading, _number(_at(start, key)), _number(end[key]))
        for behaviour, mark in end["marks"].items():
            keys = ("share", "right", "accuracy_with", "accuracy_without")
            before = _at(start, "marks", behaviour, "share")
            table.add_row("", behaviour, _number(before), *(_number(mark[key]) for key in keys))
    return table


def _game_table(evaluations: Sequence[Evaluation]) -> Table:
    """A line a contest: no losses at first and now, with its interval and the worst seat's; what became of games."""
    from rich.table import Table

    first, last = evaluations[0], evaluations[-1]
    table = Table(title=f"Games at step {last['step']}", title_justify="left")
    table.add_column("games")
    steps = (f"no loss, step {first['step']}", f"step {last['step']}")
    for heading in (*steps, "95 % interval", "worst seat", "won", "drawn", "lost"):
        table.add_column(heading, justify="right")
    for label, figures in last["games"].items():
        low, high = figures["interval"]
        start = _at(first.get("games", {}).get(label), "no_loss")
        shares = (_number(figures[key]) for key in ("worst_seat", "win", "draw", "loss"))
        table.add_row(label, _number(start), _number(figures["no_loss"]), f"{low:.3f} to {high:.3f}", *shares)
    return table


def print_evaluation(evaluations: Sequence[Evaluation]) -> None:
    """Prints `evaluation_table`, and on a terminal in colour; nothing where nothing is evaluated."""
    from rich.console import Console

    last = evaluations[-1]
    if last["bits_per_byte"] is None and not last["tasks"] and not last.get("games"):
        return
    Console().print(evaluation_table(evaluations))


def _at(node: Any, *path: str) -> Any:
    """What stands at a path; None where there is no such thing, as in an evaluation of an older kind."""
    for key in path:
        node = None if node is None else node.get(key)
    return node


def _number(value: float | None) -> str:
    return "n/a" if value is None else f"{value:.3f}"


def _finite(value: Any) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, Mapping):
        return {key: _finite(item) for key, item in value.items()}
    return [_finite(item) for item in value] if isinstance(value, (list, tuple)) else value


def _leaves(value: Any, prefix: str) -> list[tuple[str, float | None]]:
    if isinstance(value, Mapping):
        return [leaf for key, item in value.items() for leaf in _leaves(item, f"{prefix}.{key}" if prefix else key)]
    return [] if isinstance(value, (list, str)) else [(prefix, value)]
