"""Steps that are not finite: run again, left out, and, where too many follow each other, gone back from."""

import contextlib
import json

import pytest
import torch
from helpers.runs import SMALL, metric_rows, steps, trainer, weights, write_run

from rlpt.errors import CheckpointError, TrainingError
from rlpt.training.rollback import FILE, Rollback, add_rollback, read_rollbacks, rollbacks_until, with_cursors

STEPS = 8
RUN = [*SMALL, f"schedule.steps={STEPS}", "checkpoint.interval=2", "schedule.max_skipped_steps=1"]


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    return write_run(tmp_path_factory.mktemp("tiny"))


class Poison:
    """A gradient pass that makes one element of the gradient infinite when `is_due(step from 1, attempt from 1)`."""

    def __init__(self, made, is_due):
        self.made, self.is_due, self.calls = made, is_due, []

    def observe(self, batch, scores):
        pass

    def add(self, step, batches, plan, counts):
        self.calls.append(plan.step + 1)
        attempt = len(self.calls) - max(
            (index + 1 for index, one in enumerate(self.calls) if one != plan.step + 1), default=0
        )
        if self.is_due(plan.step + 1, attempt):
            step.optimizer.buffers()[0][0] = float("inf")
        return {}

    def update(self, plan):
        pass


def fit(tiny, name, is_due, *overrides, resume=None, stop_after=None):
    """(weights, state) of a run with that poison; it breaks off before the step after `stop_after` rows."""
    with trainer(tiny, name, *RUN, *overrides, resume=resume) as made:
        due = is_due(made) if is_due else lambda step, attempt: False
        made.train_step.passes = [Poison(made, due)]
        if stop_after is not None:
            break_off(made, stop_after)
        with contextlib.suppress(InterruptedError):
            made.fit()
        return weights(made), made.state


def break_off(made, rows):
    """The run ends, as a killed one does, when that many rows were logged."""
    log, seen = made._log, []

    def count(row):
        log(row)
        seen.append(row)
        if len(seen) == rows:
            raise InterruptedError

    made._log = count


def bad_rows(made):
    """Whatever the steps' numbers: the batches that begin with the rows that an unbroken run reads at steps 4 and 5."""
    source = made.streams["text"].source
    return lambda step, attempt: source._counter.counts[0] // 8 in (4, 5)


def fingerprints(run):
    return [row["text/fingerprint"] for row in steps(metric_rows(run)).values()]


@pytest.fixture(scope="module")
def unbroken(tiny):
    return fit(tiny, "unbroken", None)


@pytest.fixture(scope="module")
def gone_back(tiny):
    return fit(tiny, "gone_back", bad_rows)


def test_a_transient_fault_leaves_no_trace_in_the_weights(tiny, unbroken):
    found, state = fit(tiny, "transient", lambda made: lambda step, attempt: step in (3, 4, 5) and attempt == 1)
    assert all(torch.equal(found[name], one) for name, one in unbroken[0].items())
    assert (state.transient_steps, state.genuine_steps, state.rollbacks) == (3, 0, 0)
    rows = metric_rows(tiny.parent / "transient")
    assert [row["alert"] for row in rows if "alert" in row] == ["transient non-finite step"] * 3
    assert [row.get("faults/transient", 0) for row in steps(rows).values()] == [0, 0, 1, 2, 3, 3, 3, 3]
    assert not any("skipped" in row for row in rows)
    plain = [row for row in rows if "alert" not in row]
    for row in plain:
        row.pop("faults/transient", None)
    assert plain == metric_rows(tiny.parent / "unbroken")


def test_a_genuine_one_is_left_out_and_counted(tiny, unbroken):
    found, state = fit(tiny, "genuine", lambda made: lambda step, attempt: step == 3)
    assert (state.transient_steps, state.genuine_steps, state.rollbacks) == (0, 1, 0)
    rows = steps(metric_rows(tiny.parent / "genuine"))
    assert [at for at, row in rows.items() if row.get("skipped")] == [3]
    assert fingerprints(tiny.parent / "genuine")[:4] == fingerprints(tiny.parent / "unbroken")[:4]
    assert not all(torch.equal(found[name], one) for name, one in unbroken[0].items())


def test_too_many_in_a_row_go_back_past_their_batches(tiny, unbroken, gone_back):
    """Steps 4 and 5 fail; the run goes on from step 2 with what would have been the batches of step 6."""
    _, state = gone_back
    assert (state.step, state.rollbacks, state.skipped_steps) == (STEPS, 1, 0)
    run = tiny.parent / "gone_back"
    prints, before = fingerprints(run), fingerprints(tiny.parent / "unbroken")
    assert prints[:2] == before[:2]
    assert prints[2:5] == before[5:8]
    assert list(steps(metric_rows(run))) == list(range(1, STEPS + 1))
    alerts = [(row["step"], row["alert"]) for row in metric_rows(run) if "alert" in row]
    assert alerts == [(2, "rolled back")]  # the rows of the steps that were left are not there any more
    (one,) = read_rollbacks(run)
    assert (one.step, one.to) == (5, 2)
    rows = steps(metric_rows(run))
    assert [row.get("faults/rollbacks", 0) for row in rows.values()] == [0, 0, 1, 1, 1, 1, 1, 1]
    kept = {path.name for path in (run / "checkpoints").glob("step-*")}
    assert kept == {"step-00000006", "step-00000008"}


@pytest.mark.parametrize("rows", [5, 6, 8])
def test_killed_after_a_rollback_the_run_goes_on_as_it_would_have(tiny, gone_back, rows):
    """Killed before the rollback, before the next checkpoint and after it."""
    name = f"killed_{rows}"
    fit(tiny, name, bad_rows, stop_after=rows)
    found, state = fit(tiny, name, bad_rows, resume=True)
    assert state.rollbacks == 1
    assert all(torch.equal(found[key], one) for key, one in gone_back[0].items())
    assert metric_rows(tiny.parent / name) == metric_rows(tiny.parent / "gone_back")


def test_after_too_many_rollbacks_it_stops(tiny):
    with pytest.raises(TrainingError, match=r"2 in a row .*after 2 rollbacks \(schedule.max_rollbacks=2\): lower"):
        fit(tiny, "always", lambda made: lambda step, attempt: step > 2)
    assert [(one.step, one.to) for one in read_rollbacks(tiny.parent / "always")] == [(4, 2), (4, 2)]


def test_without_a_checkpoint_or_leave_it_stops_at_once(tiny):
    with pytest.raises(TrainingError, match="no good checkpoint to go back to"):
        fit(tiny, "early", lambda made: lambda step, attempt: True)
    with pytest.raises(TrainingError, match=r"after no rollback \(schedule.max_rollbacks=0\): lower"):
        fit(tiny, "never", lambda made: lambda step, attempt: step > 2, "schedule.max_rollbacks=0")


def test_rollbacks_to_another_checkpoint_are_forgotten(tmp_path):
    first, second = Rollback(9, 5, {"text": {"rows": 3}}), Rollback(14, 10, {"text": {"rows": 4}})
    add_rollback(tmp_path, 0, first)
    add_rollback(tmp_path, 1, second)
    assert rollbacks_until(tmp_path, 10, 1) == [first, second]
    assert rollbacks_until(tmp_path, 12, 2) == [first, second]
    assert rollbacks_until(tmp_path, 5, 0) == [first] == read_rollbacks(tmp_path)
    assert rollbacks_until(tmp_path, 0, 0) == [] == json.loads((tmp_path / FILE).read_text())
    assert with_cursors({"text": {"rows": 1, "seed": 2}, "play": {"turns": 1}}, second) == {
        "text": {"rows": 4, "seed": 2},
        "play": {"turns": 1},
    }


def test_a_torn_list_is_refused(tmp_path):
    (tmp_path / FILE).write_text('[{"step": 1')
    with pytest.raises(CheckpointError, match=r"rollbacks.json: can't be read"):
        read_rollbacks(tmp_path)
