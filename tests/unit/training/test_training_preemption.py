"""Stop requests: which signals ask for one, what the loop does with it, and what a later start finds."""

import json
import os
import signal
import subprocess
import sys

import pytest
from helpers.runs import SMALL, metric_rows, steps, trainer, write_run

from rlpt.errors import PREEMPTED_EXIT_CODE
from rlpt.training import preemption
from rlpt.training.checkpoint import find_latest
from rlpt.training.preemption import SIGNALS, StopRequest

EVALUATED = ["evaluation.interval=2", "evaluation.tasks=[{task: {name: sort}, level: 0}]", "schedule.steps=4"]


@pytest.fixture
def request_of_ours():
    """An installed one; pytest's handlers come back."""
    before = {number: signal.getsignal(number) for number in SIGNALS}
    made = StopRequest()
    made.install()
    yield made
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.parametrize("number", SIGNALS)
def test_a_signal_is_noted_and_the_first_one_counts(request_of_ours, number):
    assert request_of_ours.signal == 0
    os.kill(os.getpid(), number)
    assert request_of_ours.signal == number
    os.kill(os.getpid(), signal.SIGTERM)
    os.kill(os.getpid(), signal.SIGINT)  # at once: the same Ctrl-C by another way
    assert request_of_ours.signal == number


def test_a_second_ctrl_c_does_not_wait(request_of_ours, monkeypatch):
    monkeypatch.setattr(preemption, "HURRY_SECONDS", 0.0)
    os.kill(os.getpid(), signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        os.kill(os.getpid(), signal.SIGINT)


def test_a_forked_child_leaves_its_end_to_its_parent(request_of_ours):
    child = os.fork()
    if child == 0:
        os.kill(os.getpid(), signal.SIGTERM)
        os._exit(request_of_ours.signal)
    assert os.waitpid(child, 0)[1] == 0


def test_nohup_stays_in_force():
    code = (
        "import os, signal; from rlpt.training.preemption import StopRequest; stop = StopRequest(); stop.install()\n"
        "os.kill(os.getpid(), signal.SIGHUP); assert stop.signal == 0"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], preexec_fn=lambda: signal.signal(signal.SIGHUP, signal.SIG_IGN), check=False
    )
    assert done.returncode == 0


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    return write_run(tmp_path_factory.mktemp("tiny"))


@pytest.fixture(scope="module")
def unbroken(tiny):
    with trainer(tiny, "unbroken", *SMALL, *EVALUATED) as made:
        assert made.fit() == 0
    return tiny.parent / "unbroken"


def stop_when(made, part, step):
    """The signal comes while the trainer is in `part` of `step`."""
    original = getattr(made, part)

    def interrupted(*arguments, **options):
        if made.state.step == step:
            made.stop.signal = int(signal.SIGTERM)
        return original(*arguments, **options)

    setattr(made, part, interrupted)


@pytest.mark.parametrize(
    ("part", "step", "saved"),
    [("_take", 1, 2), ("_evaluate", 2, 2), ("_save", 2, 2), ("_log", 2, 2)],
    ids=["rollout", "evaluation", "save", "metrics"],
)
def test_wherever_the_signal_comes_the_step_is_finished_and_saved_once(tiny, unbroken, part, step, saved):
    name = f"stopped-{part}"
    overrides = [*SMALL, *EVALUATED, "tracking.episode_interval=2", "checkpoint.interval=2"]
    with trainer(tiny, name, *overrides) as made:
        stop_when(made, part, step)
        assert made.fit() == PREEMPTED_EXIT_CODE
    run = tiny.parent / name
    assert find_latest(run).name == f"step-{saved:08d}"
    assert json.loads((run / "PREEMPTED").read_text())["step"] == saved
    with trainer(tiny, name, *overrides, resume=True) as made:
        assert made.fit() == 0
    assert not (run / "PREEMPTED").exists()
    assert metric_rows(run) == metric_rows(unbroken)
    assert (run / "evaluation.json").read_bytes() == (unbroken / "evaluation.json").read_bytes()


def test_an_evaluation_that_was_left_for_later_is_logged_once_whatever_happens(tiny, unbroken):
    """Stopped before it, then twice in it: its row of the attempt that never saved is taken out."""
    run, overrides = tiny.parent / "left", [*SMALL, *EVALUATED]
    with trainer(tiny, "left", *overrides) as made:
        stop_when(made, "_take", 1)
        assert made.fit() == PREEMPTED_EXIT_CODE
    assert [row["step"] for row in metric_rows(run) if "evaluation" in row] == [0]
    with trainer(tiny, "left", *overrides, resume=True) as made:
        stop_when(made, "_evaluate", 2)
        assert made.fit() == PREEMPTED_EXIT_CODE
    assert [row["step"] for row in metric_rows(run) if "evaluation" in row] == [0, 2]
    with trainer(tiny, "left", *overrides, resume=True) as made:
        assert made.fit() == 0
    assert metric_rows(run) == metric_rows(unbroken)


def test_a_run_that_is_stopped_before_its_first_step_starts_anew(tiny, unbroken):
    run, overrides = tiny.parent / "early", [*SMALL, *EVALUATED]
    with trainer(tiny, "early", *overrides) as made:
        stop_when(made, "_evaluate", 0)
        assert made.fit() == PREEMPTED_EXIT_CODE
    assert find_latest(run) is None
    assert json.loads((run / "PREEMPTED").read_text())["step"] == 0
    with trainer(tiny, "early", *overrides) as made:
        assert made.fit() == 0
    assert metric_rows(run) == metric_rows(unbroken)


def test_a_signal_in_the_last_step_changes_nothing(tiny, unbroken):
    run = tiny.parent / "last"
    with trainer(tiny, "last", *SMALL, *EVALUATED) as made:
        stop_when(made, "_take", 3)
        assert made.fit() == 0
    assert not (run / "PREEMPTED").exists()
    assert steps(metric_rows(run)) == steps(metric_rows(unbroken))
    assert (run / "summary.json").exists()
