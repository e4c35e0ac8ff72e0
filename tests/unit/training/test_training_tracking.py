"""metrics.jsonl is whole and valid whatever happens; Weights & Biases never stops a run."""

import importlib.util
import io
import json
import logging
import math
import sys
import time

import pytest
from rich.console import Console

from rlpt.config import Config
from rlpt.errors import PREEMPTED_EXIT_CODE, TrainingError
from rlpt.training.tracking import (
    JsonlTracker,
    ProgressPrinter,
    WandbTracker,
    open_trackers,
    progress_line,
    wandb_modes,
    wandb_run_id,
)


def config(**tracking):
    objective = {"algorithm": {"name": "next_token"}, "source": {"name": "corpus"}}
    return Config(tokenizer="tokenizer", objectives={"text": objective}, tracking={"wandb": "disabled"} | tracking)


def rows(path):
    return [json.loads(line, parse_constant=pytest.fail) for line in path.read_text().splitlines()]


def test_rows_are_on_disk_at_once_and_valid_json(tmp_path):
    tracker = JsonlTracker(tmp_path)
    tracker.log({"step": 1, "text/loss": math.nan, "evaluation": {"a": [1.0, -math.inf]}})
    assert rows(tmp_path / "metrics.jsonl") == [
        {
            "step": 1,
            "text/loss": None,
            "evaluation": {"a": [1.0, None]},
            "nonfinite": {"text/loss": "nan", "evaluation.a.1": "-inf"},
        }
    ]
    tracker.alert("loss", "not finite")
    tracker.summary({"steps": 1})
    tracker.table("episodes", ["text", "score"], [["x" * 5000, 0.5]] * 100)
    tracker.close()
    assert rows(tmp_path / "metrics.jsonl")[1:] == [
        {"step": 1, "alert": "loss", "text": "not finite"},
        {"step": 1, "summary": {"steps": 1}},
    ]
    table = rows(tmp_path / "episodes.jsonl")
    assert len(table) == 64
    assert table[0] == {"step": 1, "text": "x" * 2000, "score": 0.5}


def test_resume_takes_out_later_and_torn_rows(tmp_path, caplog):
    tracker = JsonlTracker(tmp_path)
    for step in range(1, 6):
        tracker.log({"step": step, "value": step / 3})
        tracker.table("episodes", ["text"], [["a"], ["b"]])
    tracker.close()
    path = tmp_path / "metrics.jsonl"
    path.write_text(path.read_text() + '{"step": 2}')  # killed before the end of the line
    resumed = JsonlTracker(tmp_path, resumed_step=3)
    resumed.log({"step": 4, "value": 0.0})
    resumed.table("episodes", ["text"], [["c"]])
    resumed.close()
    assert [row["step"] for row in rows(path)] == [1, 2, 3, 4]
    assert rows(path)[2]["value"] == 1.0
    assert rows(path)[3]["value"] == 0.0
    assert [(row["step"], row["text"]) for row in rows(tmp_path / "episodes.jsonl")][-3:] == [
        (3, "a"),
        (3, "b"),
        (4, "c"),
    ]
    path.write_text('{"step": 1}\n{"st\n{"step": 2}\n')
    with caplog.at_level(logging.WARNING):
        JsonlTracker(tmp_path, resumed_step=2).close()
    assert "metrics.jsonl:2" in caplog.text
    assert [row["step"] for row in rows(path)] == [1, 2]


def test_a_fresh_start_sets_old_rows_aside(tmp_path):
    for step in (1, 2):
        tracker = JsonlTracker(tmp_path)
        tracker.log({"step": step})
        tracker.close()
    assert rows(tmp_path / "metrics.1.jsonl") == [{"step": 1}]
    assert rows(tmp_path / "metrics.jsonl") == [{"step": 2}]


def test_a_file_that_cannot_be_opened_is_named(tmp_path):
    with pytest.raises(TrainingError, match=r"absent/metrics\.jsonl"):
        JsonlTracker(tmp_path / "absent")


def test_only_the_primary_rank_writes(tmp_path):
    tracker = open_trackers(config(), tmp_path, is_primary=False)
    tracker.log({"step": 1})
    tracker.table("episodes", ["a"], [[1]])
    tracker.close()
    assert list(tmp_path.iterdir()) == []


def test_modes(monkeypatch):
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    assert wandb_modes(config(wandb="auto").tracking) == ["offline"]
    monkeypatch.setenv("WANDB_API_KEY", "secret")
    assert wandb_modes(config(wandb="auto").tracking) == ["online", "offline"]
    assert wandb_modes(config(wandb="offline").tracking) == ["offline"]
    assert wandb_modes(config(wandb="disabled").tracking) == []


def test_run_id_is_made_once(tmp_path):
    first = wandb_run_id(tmp_path)
    assert wandb_run_id(tmp_path) == first
    assert wandb_run_id(tmp_path, "known") == "known"
    assert wandb_run_id(tmp_path) == "known"


def test_without_wandb_one_warning_and_every_row(tmp_path, monkeypatch, caplog):
    monkeypatch.setitem(sys.modules, "wandb", None)  # import wandb raises ImportError
    monkeypatch.setenv("WANDB_API_KEY", "secret-key")
    with caplog.at_level(logging.WARNING):
        tracker = open_trackers(config(wandb="auto"), tmp_path, is_primary=True)
        for step in range(5):
            tracker.log({"step": step})
        tracker.close()
    assert caplog.text.count("wandb failed") == 1
    written = rows(tmp_path / "metrics.jsonl")
    assert written[0]["alert"] == "wandb failed"
    assert [row["step"] for row in written[1:]] == list(range(5))
    assert all("secret-key" not in path.read_text() for path in tmp_path.iterdir())


def test_a_run_that_breaks_later_is_left_alone_after_three_failures(tmp_path):
    failures = []
    tracker = WandbTracker(config(), tmp_path, "id", [], failures.append)

    class Broken:
        calls = 0

        def log(self, row):
            self.calls += 1
            raise ConnectionResetError("core is gone")

    tracker._run = broken = Broken()
    for step in range(10):
        tracker.log({"step": step})
    tracker.close()
    assert broken.calls == 3
    assert failures == ["ConnectionResetError: core is gone"]


@pytest.mark.skipif(importlib.util.find_spec("wandb") is None, reason="wandb is not installed")
def test_online_without_a_key_is_one_warning(tmp_path, monkeypatch, caplog):
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    for name in ("WANDB_DATA_DIR", "WANDB_CACHE_DIR", "WANDB_CONFIG_DIR"):
        monkeypatch.setenv(name, str(tmp_path / "service"))
    with caplog.at_level(logging.WARNING):
        tracker = open_trackers(config(wandb="online"), tmp_path, is_primary=True)
        for step in range(5):
            tracker.log({"step": step})
        tracker.close()
    assert caplog.text.count("wandb failed") == 1
    written = rows(tmp_path / "metrics.jsonl")
    assert [row["step"] for row in written if "alert" not in row] == list(range(5))


@pytest.mark.skipif(importlib.util.find_spec("wandb") is None, reason="wandb is not installed")
def test_offline_run_leaves_a_file_and_keeps_its_id(tmp_path, monkeypatch):
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    for name in ("WANDB_DATA_DIR", "WANDB_CACHE_DIR", "WANDB_CONFIG_DIR"):
        monkeypatch.setenv(name, str(tmp_path / "service"))
    tracker = open_trackers(config(wandb="auto"), tmp_path, is_primary=True)
    tracker.log({"step": 1, "tokens": 10, "episodes": 0, "text/loss": 2.0})
    tracker.table("episodes", ["text"], [["a"]])
    tracker.close()
    kept = (tmp_path / "wandb_id").read_text().strip()
    [file] = tmp_path.glob("wandb/offline-run-*/*.wandb")
    assert kept in file.name
    content = file.read_bytes()
    until = time.monotonic() + 30
    while b"text/loss" not in content and time.monotonic() < until:  # wandb's service writes on after `finish`
        time.sleep(0.1)
        content = file.read_bytes()
    assert b"text/loss" in content
    assert b"text/*" in content
    assert "alert" not in (tmp_path / "metrics.jsonl").read_text()


def test_a_run_that_was_told_to_stop_is_preempted_not_failed(tmp_path, monkeypatch):
    from wandb.proto.wandb_internal_pb2 import Record

    monkeypatch.setenv("WANDB_DATA_DIR", str(tmp_path / "service"))
    tracker = open_trackers(config(wandb="offline"), tmp_path, is_primary=True)
    tracker.log({"step": 1, "tokens": 10, "episodes": 0, "text/loss": 2.0})
    tracker.close(PREEMPTED_EXIT_CODE)
    [file] = tmp_path.glob("wandb/offline-run-*/*.wandb")

    def records():  # of a file below 32 KiB: after a header of 7 bytes, each has a hash, its length and a kind
        data, position, found = file.read_bytes(), 7, []
        while position + 7 <= len(data):
            size = int.from_bytes(data[position + 4 : position + 6], "little")
            found.append(Record.FromString(data[position + 7 : position + 7 + size]))
            position += 7 + size
        return found

    until = time.monotonic() + 30
    while not any(one.HasField("exit") for one in records()) and time.monotonic() < until:
        time.sleep(0.1)
    kinds = [one.WhichOneof("record_type") for one in records()]
    assert kinds.count("preempting") == 1
    assert [one.exit.exit_code for one in records() if one.HasField("exit")] == [PREEMPTED_EXIT_CODE]


ROW = {
    "step": 40,
    "text/loss": 3.21,
    "play/reward": 0.414,
    "play/success/sort": 0.37,
    "play/level/sort": 2,
    "tokens_per_second": 5120.4,
    "episodes_per_second": 31.0,
    "eta_seconds": 184.0,
}


def test_progress_line():
    assert progress_line(ROW, 500) == (
        "step 40/500 (8%) | text loss 3.210 | play reward 0.414 | sort L2 37% | 5,120 tok/s | 31 ep/s | ETA 3:04"
    )
    assert progress_line({"step": 1}, 500) == "step 1/500 (0%)"


@pytest.mark.parametrize("terminal", [False, True])
def test_progress_printer(terminal):
    console = Console(file=io.StringIO(), width=60, force_terminal=terminal)
    printer = ProgressPrinter(25, 10, console)
    for step in range(1, 26):
        printer.update({"step": step})
    printer.close()
    shown = console.file.getvalue()
    assert "step 25/25 (100%)" in shown
    if not terminal:
        assert shown.splitlines() == ["step 10/25 (40%)", "step 20/25 (80%)", "step 25/25 (100%)"]
