"""Where a run's figures go: metrics.jsonl (always, and the truth), Weights & Biases (never stops a run), the terminal.

A row is one dict with `step`, `tokens` (of text), `episodes` and figures named PART/FIGURE. What Weights & Biases
records beside it: host name, command line, installed packages. A key of its service is never written by us.
"""

from __future__ import annotations

import json
import logging
import math
import os
import secrets
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Protocol

from rlpt.config import Config, TrackingConfig
from rlpt.errors import PREEMPTED_EXIT_CODE, TrainingError
from rlpt.training.throughput import duration

log = logging.getLogger(__name__)
Row = Mapping[str, Any]
MAX_TABLE_ROWS, MAX_CELL_CHARACTERS = 64, 2000


class Tracker(Protocol):
    """Takes a run's figures."""

    def log(self, row: Row) -> None:
        """One row; its `step` doesn't fall within an attempt."""
        ...

    def table(self, name: str, columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
        """A table, for instance of episodes; long ones are cut."""
        ...

    def summary(self, values: Row) -> None:
        """The run's final figures."""
        ...

    def alert(self, title: str, text: str) -> None:
        """Something that a person should look at."""
        ...

    def rewind(self, step: int) -> None:
        """The run goes on from `step` again; rows of later ones are made anew."""
        ...

    def close(self, exit_code: int = 0) -> None:
        """The end of this attempt, as its process will tell it."""
        ...


class TrackerGroup:
    """Passes everything on to each of `trackers`; with none it is the tracker of the ranks that log nothing."""

    def __init__(self, trackers: Sequence[Tracker] = ()) -> None:
        self._trackers = tuple(trackers)

    def log(self, row: Row) -> None:
        for tracker in self._trackers:
            tracker.log(row)

    def table(self, name: str, columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
        for tracker in self._trackers:
            tracker.table(name, columns, rows)

    def summary(self, values: Row) -> None:
        for tracker in self._trackers:
            tracker.summary(values)

    def alert(self, title: str, text: str) -> None:
        for tracker in self._trackers:
            tracker.alert(title, text)

    def rewind(self, step: int) -> None:
        for tracker in self._trackers:
            tracker.rewind(step)

    def close(self, exit_code: int = 0) -> None:
        for tracker in self._trackers:
            tracker.close(exit_code)


class JsonlTracker:
    """`metrics.jsonl`: one JSON object a line, on disk as soon as it is logged. Tables go to `NAME.jsonl`.

    A value that isn't finite is null, and the row's `nonfinite` says which and what: {"text/loss": "nan"}.
    On resume, rows after `resumed_step` and a summary at it are taken out, as the run makes them again, and of that
    step itself those with the key `again`; a run that starts afresh (None) sets older files aside. Raises TrainingError
    where a file can't be written.
    """

    def __init__(self, run_dir: Path, resumed_step: int | None = None, again: str = "") -> None:
        self._run_dir, self._resumed_step, self._step = run_dir, resumed_step, resumed_step or 0
        self._again = again
        self._files: dict[str, int] = {}
        self._open("metrics")

    def log(self, row: Row) -> None:
        self._step = row["step"]
        self._write("metrics", row)

    def table(self, name: str, columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
        for row in _capped(rows):
            self._write(name, {"step": self._step} | dict(zip(columns, row, strict=True)))

    def summary(self, values: Row) -> None:
        self._write("metrics", {"step": self._step, "summary": dict(values)})

    def alert(self, title: str, text: str) -> None:
        self._write("metrics", {"step": self._step, "alert": title, "text": text})

    def rewind(self, step: int) -> None:
        self.close()
        self._resumed_step = self._step = step
        self._open("metrics")

    def close(self, exit_code: int = 0) -> None:
        for file in self._files.values():
            os.fsync(file)
            os.close(file)
        self._files = {}

    def _open(self, name: str) -> int:
        path = self._run_dir / f"{name}.jsonl"
        try:
            if path.exists() and self._resumed_step is None:
                _set_aside(path)
            elif path.exists():
                _truncate(path, self._resumed_step or 0, self._again)
            self._files[name] = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        except OSError as error:
            raise TrainingError(f"{path}: can't be opened: {error}; make the run folder writable") from error
        return self._files[name]

    def _write(self, name: str, row: Row) -> None:
        file = self._files[name] if name in self._files else self._open(name)
        nonfinite: dict[str, str] = {}
        values = _finite(row, "", nonfinite)
        line = json.dumps(values | {"nonfinite": nonfinite} if nonfinite else values, allow_nan=False) + "\n"
        data = line.encode()
        try:
            while data:
                data = data[os.write(file, data) :]
        except OSError as error:
            raise TrainingError(
                f"{self._run_dir / name}.jsonl: can't be written: {error}; free space, then start again"
            ) from error


class WandbTracker:
    """A Weights & Biases run. Whatever goes wrong in there is warned of once and the training goes on.

    `modes` are tried in turn ("online", "offline"). After three failed calls in a row no more are made.
    """

    def __init__(
        self, config: Config, run_dir: Path, run_id: str, modes: Sequence[str], on_failure: Callable[[str], None]
    ) -> None:
        self._on_failure = on_failure
        self._warned = False
        self._failures = 0  # in a row
        self._run: Any = None
        for mode in modes:
            self._run = self._guard(partial(_open_wandb, config, run_dir, run_id, mode))
            if self._run is not None:
                break

    def log(self, row: Row) -> None:
        self._call(lambda run: run.log(dict(row)))  # never step=: a smaller one is dropped

    def table(self, name: str, columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
        def send(run: Any) -> None:
            import wandb

            run.log({f"tables/{name}": wandb.Table(columns=list(columns), data=_capped(rows))})

        self._call(send)

    def summary(self, values: Row) -> None:
        self._call(lambda run: run.summary.update(dict(values)))

    def alert(self, title: str, text: str) -> None:
        self._call(lambda run: run.alert(title=title, text=text))

    def rewind(self, step: int) -> None:
        """Nothing: its rows stay, and `step` is a figure of them."""

    def close(self, exit_code: int = 0) -> None:
        if exit_code == PREEMPTED_EXIT_CODE:
            self._call(lambda run: run.mark_preempting())  # the run's state becomes "preempted", not "failed"
        self._call(lambda run: run.finish(exit_code=exit_code))
        self._run = None

    def _call(self, send: Callable[[Any], Any]) -> None:
        if self._run is not None:
            self._guard(lambda: send(self._run))
            if self._failures >= 3:
                self._run = None

    def _guard(self, call: Callable[[], Any]) -> Any:
        try:
            result = call()
        except Exception as error:  # a service beside the training: anything may break in it, nothing may get out
            self._failures += 1
            if not self._warned:
                self._warned = True
                reason = f"{type(error).__name__}: {error}"
                log.warning("wandb failed (%s); training goes on, metrics.jsonl has everything", reason)
                self._on_failure(reason)
            return None
        self._failures = 0
        return result


def open_trackers(
    config: Config,
    run_dir: Path,
    is_primary: bool,
    resumed_step: int | None = None,
    wandb_id: str = "",
    again: str = "",
) -> Tracker:
    """The run's tracker; on ranks that aren't primary one that does nothing. `wandb_id`: a resumed run's, if known;
    `again`: which rows of the resumed step will be made again."""
    if not is_primary:
        return TrackerGroup()
    jsonl = JsonlTracker(run_dir, resumed_step, again)
    modes = wandb_modes(config.tracking)
    if not modes:
        return jsonl
    run_id = wandb_run_id(run_dir, wandb_id)
    wandb = WandbTracker(config, run_dir, run_id, modes, lambda reason: jsonl.alert("wandb failed", reason))
    return TrackerGroup([jsonl, wandb])


def wandb_modes(options: TrackingConfig) -> list[str]:
    """Modes to try in turn: auto is online then offline with WANDB_API_KEY in the environment, else offline."""
    if options.wandb == "disabled":
        return []
    if options.wandb == "auto":
        return ["online", "offline"] if os.environ.get("WANDB_API_KEY") else ["offline"]
    return [options.wandb]


def wandb_run_id(run_dir: Path, known: str = "") -> str:
    """The run's id at Weights & Biases, kept in `<run>/wandb_id`; made once (`known` where a checkpoint has it)."""
    path = run_dir / "wandb_id"
    try:
        kept = path.read_text(encoding="utf-8").strip() if path.exists() else ""
        if not kept or (known and kept != known):
            kept = known or secrets.token_hex(4)
            path.write_text(kept + "\n", encoding="utf-8")
    except OSError as error:
        raise TrainingError(f"{path}: {error}; make the run folder writable") from error
    return kept


class ProgressPrinter:
    """A line each `interval` steps: plain ones off a terminal, on a terminal one that stays in place (rich)."""

    def __init__(self, num_steps: int, interval: int, console: Any = None) -> None:
        from rich.console import Console
        from rich.live import Live

        self._num_steps, self._interval = num_steps, interval
        self._console = console or Console()
        self._live = Live(console=self._console, auto_refresh=False) if self._console.is_terminal else None
        if self._live is not None:
            self._live.start()

    def update(self, row: Row) -> None:
        """Shows a logged row, when its step is due."""
        if row["step"] % self._interval and row["step"] != self._num_steps:
            return
        line = progress_line(row, self._num_steps)
        if self._live is None:
            self._console.print(line, markup=False, highlight=False, soft_wrap=True)
        else:
            from rich.text import Text

            self._live.update(Text(line), refresh=True)

    def close(self) -> None:
        """Leaves the terminal as it was, with the last line on it."""
        if self._live is not None:
            self._live.stop()


def progress_line(row: Row, num_steps: int) -> str:
    """`step 40/500 (8%) | text loss 3.210 | play reward 0.41 | sort L2 37% | 5,120 tok/s | 31 ep/s | ETA 3:04`.

    Shown where they are in the row: PART/loss (text first), PART/reward, PART/success/TASK with PART/level/TASK,
    and the figures of `Throughput.metrics`.
    """
    step = row["step"]
    parts = [f"step {step}/{num_steps} ({100 * step // num_steps}%)"]
    keys = [key.split("/") for key in row]
    for part, *rest in keys:
        if rest == ["loss"]:
            parts.append(f"{part} loss {row[f'{part}/loss']:.3f}")
        elif rest == ["reward"]:
            parts.append(f"{part} reward {row[f'{part}/reward']:.3f}")
        elif len(rest) == 2 and rest[0] == "success":
            level = row.get(f"{part}/level/{rest[1]}")
            shown = "" if level is None else f" L{level:.0f}"
            parts.append(f"{rest[1]}{shown} {100 * row[f'{part}/success/{rest[1]}']:.0f}%")
    for key, unit in (("tokens_per_second", "tok/s"), ("episodes_per_second", "ep/s")):
        if key in row:
            parts.append(f"{row[key]:,.0f} {unit}")
    if "eta_seconds" in row:
        parts.append(f"ETA {duration(row['eta_seconds'])}")
    return " | ".join(parts)


def _open_wandb(config: Config, run_dir: Path, run_id: str, mode: str) -> Any:
    import wandb

    settings = wandb.Settings(
        x_transaction_log_flush_interval=2,  # the default of 15 s loses a killed run's last rows
        console="off",
        disable_git=True,
        disable_code=True,
        silent=mode == "offline",
    )
    run = wandb.init(
        project=config.tracking.project,
        entity=config.tracking.entity or None,
        name=config.name,
        id=run_id,
        resume="allow",
        tags=list(config.tracking.tags) or None,
        dir=str(run_dir),
        mode=mode,  # type: ignore[arg-type]
        config=config.model_dump(mode="json"),
        settings=settings,
    )
    for axis in ("step", "tokens", "episodes"):
        run.define_metric(axis)
    for pattern, axis in (("*", "step"), ("text/*", "tokens"), ("play/*", "episodes")):
        run.define_metric(pattern, step_metric=axis)
    return run


def _capped(rows: Sequence[Sequence[Any]]) -> list[list[Any]]:
    cells = ([cell[:MAX_CELL_CHARACTERS] if isinstance(cell, str) else cell for cell in row] for row in rows)
    return [row for row, _ in zip(cells, range(MAX_TABLE_ROWS), strict=False)]


def _finite(value: Any, where: str, nonfinite: dict[str, str]) -> Any:
    """`value` with null for what isn't finite; each such place goes into `nonfinite`."""
    if isinstance(value, float) and not math.isfinite(value):
        nonfinite[where] = str(float(value))
        return None
    if isinstance(value, Mapping):
        prefix = f"{where}." if where else ""
        return {str(key): _finite(item, f"{prefix}{key}", nonfinite) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(item, f"{where}.{index}", nonfinite) for index, item in enumerate(value)]
    return value


def _set_aside(path: Path) -> None:
    number = 1
    while (aside := path.with_name(f"{path.stem}.{number}{path.suffix}")).exists():
        number += 1
    path.rename(aside)


def _truncate(path: Path, step: int, again: str = "") -> None:
    """Rewrites a .jsonl file, in one piece, without rows after `step`, a summary at it, those of `step` that have the
    key `again`, and lines that aren't whole."""
    temporary = path.with_name(f".{path.name}.tmp")
    with open(path, "rb") as source, open(temporary, "wb") as kept:
        for number, line in enumerate(source, start=1):
            try:
                row = json.loads(line)
                made_again = "summary" in row or (again and again in row)
                wanted = row["step"] < step or (row["step"] == step and not made_again)
                wanted = wanted and line.endswith(b"\n")
            except (ValueError, TypeError, KeyError):
                log.warning("%s:%d: not a whole row (the run was killed while writing it); dropped", path, number)
                continue
            if wanted:
                kept.write(line)
        kept.flush()
        os.fsync(kept.fileno())
    os.replace(temporary, path)
