"""When a run saves, and from what: by steps, by the clock, at a new best, and in the background."""

import json
import shutil
import signal
import threading

import pytest
from helpers.runs import SMALL, metric_rows, steps, trainer, write_run

from rlpt.errors import PREEMPTED_EXIT_CODE, CheckpointError
from rlpt.training import checkpoint_weights
from rlpt.training.checkpoint import find_latest
from rlpt.training.checkpoint_files import fault

RUN = [*SMALL, "schedule.steps=5"]
BEST = ["checkpoint.keep_best=tasks.sort.pass@1", "evaluation.tasks=[{task: {name: sort}, level: 0}]"]


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    return write_run(tmp_path_factory.mktemp("tiny"))


@pytest.fixture(scope="module")
def plain(tiny):
    """The folder of a run that saves at its end alone."""
    with trainer(tiny, "plain", *RUN, "checkpoint.interval=100") as made:
        made.fit()
    return tiny.parent / "plain"


def saved_steps(run):
    return sorted(int(path.name[-8:]) for path in (run / "checkpoints").glob("step-????????"))


def contents(run, step):
    """The tensors' files and the state of a checkpoint, timings left out."""
    folder = run / "checkpoints" / f"step-{step:08d}"
    assert fault(folder) is None
    state = json.loads((folder / "state.json").read_text())
    del state["seconds"], state["wandb_id"]
    return {path.name: path.read_bytes() for path in (folder / "weights").glob("__*")}, state


@pytest.mark.parametrize(("seconds", "expected"), [(1e-6, [1, 2, 3, 4, 5]), (0, [5]), (1e6, [5])])
def test_saves_by_the_clock_change_nothing_else(tiny, plain, seconds, expected):
    name = f"clock-{seconds}"
    options = ["checkpoint.interval=100", "checkpoint.keep_last=9", f"checkpoint.every_seconds={seconds}"]
    with trainer(tiny, name, *RUN, *options) as made:
        made.fit()
    run = tiny.parent / name
    assert saved_steps(run) == expected
    assert metric_rows(run) == metric_rows(plain)
    assert contents(run, 5) == contents(plain, 5)


def test_the_clock_counts_from_the_last_save_of_any_kind(tiny, monkeypatch):
    """A clock of ten seconds a step: a save after steps 3 and 6, by the clock after 5."""
    with trainer(tiny, "counts", *SMALL, "schedule.steps=7", "checkpoint.interval=3", "checkpoint.keep_last=9") as made:
        now = [0.0]
        monkeypatch.setattr("rlpt.training.loop.time.monotonic", lambda: now[0])
        made.folder.saved_at = 0.0
        made.config.checkpoint.__dict__["every_seconds"] = 20
        take = made._take

        def later(plan):
            now[0] += 10
            return take(plan)

        made._take = later
        made.fit()
    assert saved_steps(tiny.parent / "counts") == [2, 3, 5, 6, 7]


@pytest.fixture
def lagging(monkeypatch):
    """Background writes that wait until the trainer, given to `watch`, has made one step more."""
    stepped, writers = threading.Event(), []
    write = checkpoint_weights._MegatronWriting.write

    def late(writing):
        if threading.current_thread() is not threading.main_thread():
            assert stepped.wait(60)
            writers.append(threading.current_thread().name)
        return write(writing)

    monkeypatch.setattr(checkpoint_weights._MegatronWriting, "write", late)

    def watch(made):
        step, save = made.train_step, made._save

        def step_and_tell(*arguments):
            result = step(*arguments)
            stepped.set()
            return result

        def clear_and_save(**options):
            stepped.clear()
            save(**options)

        made.train_step, made._save = step_and_tell, clear_and_save
        return writers

    return watch


BACKGROUND = ["checkpoint.asynchronous=true", "checkpoint.interval=2", "checkpoint.keep_last=9"]


def test_what_is_written_in_the_background_is_the_step_that_was_saved(tiny, lagging):
    """All bytes are those of the same run without a background, though weights and moments moved on meanwhile."""
    for name, asynchronous in (("sync", "false"), ("background", "true")):
        with trainer(tiny, name, *RUN, *BACKGROUND, f"checkpoint.asynchronous={asynchronous}") as made:
            writers = lagging(made)
            assert made.fit() == 0
        assert len(writers) == (2 if asynchronous == "true" else 0)
    runs = [tiny.parent / name for name in ("sync", "background")]
    assert saved_steps(runs[0]) == saved_steps(runs[1]) == [2, 4, 5]
    for step in (2, 4, 5):
        assert contents(runs[0], step) == contents(runs[1], step)
    assert metric_rows(runs[0]) == metric_rows(runs[1])


def test_without_a_copy_the_bytes_would_be_others(tiny, lagging, monkeypatch):
    """The proof above can fail."""
    monkeypatch.setattr(checkpoint_weights, "_apart", lambda tensor, living: tensor)
    with trainer(tiny, "shared", *RUN, *BACKGROUND) as made:
        lagging(made)
        made.fit()
    assert contents(tiny.parent / "shared", 2) != contents(tiny.parent / "sync", 2)


def test_resumed_from_a_background_save_it_is_the_run_without_a_break(tiny, plain, lagging):
    with trainer(tiny, "resumed", *RUN, *BACKGROUND) as made:
        lagging(made)
        made.fit()
    run = tiny.parent / "resumed"
    for step in (4, 5):
        shutil.rmtree(run / "checkpoints" / f"step-{step:08d}")
    with trainer(tiny, "resumed", *RUN, *BACKGROUND, resume=True) as made:
        assert made.resumed_step == 2
        lagging(made)
        made.fit()
    assert metric_rows(run) == metric_rows(plain)
    assert contents(run, 5) == contents(plain, 5)


def test_a_run_that_is_told_to_stop_finishes_the_save_that_goes_on(tiny, lagging):
    with trainer(tiny, "told", *RUN, *BACKGROUND) as made:
        lagging(made)
        take = made._take

        def told(plan):
            if plan.step == 2:
                made.stop.signal = int(signal.SIGTERM)
            return take(plan)

        made._take = told
        assert made.fit() == PREEMPTED_EXIT_CODE
    assert saved_steps(tiny.parent / "told") == [2, 3]
    assert find_latest(tiny.parent / "told").name == "step-00000003"


def test_a_background_save_that_fails_ends_the_run_after_the_step_that_it_reached(tiny, lagging, monkeypatch):
    with trainer(tiny, "fails", *RUN, *BACKGROUND) as made:
        lagging(made)
        write_file = checkpoint_weights._MegatronWriting._write_file

        def full(writing, index):
            if made.state.step >= 3:
                return OSError(28, "No space left on device")
            return write_file(writing, index)

        monkeypatch.setattr(checkpoint_weights._MegatronWriting, "_write_file", full)
        made.config.checkpoint.__dict__["interval"] = 3
        with pytest.raises(CheckpointError, match=r"step-00000003\.tmp: can't be written .*No space left.* intact"):
            made.fit()
    run = tiny.parent / "fails"
    assert saved_steps(run) == []
    assert list(steps(metric_rows(run)))[-1] >= 4


SCORES = {0: 0.1, 1: 0.2, 2: 0.9, 3: 0.3, 4: 0.5, 5: 0.4}


@pytest.mark.parametrize("options", [[], ["checkpoint.asynchronous=true"], ["checkpoint.every_seconds=1e-6"]])
def test_the_best_stays_whatever_else_is_saved(tiny, options):
    """Evaluated after each step; the best, 2, is no multiple of the interval. Stopped at 4, resumed, and run on."""
    name = "best" + "".join(options)
    arguments = [*RUN, *BEST, "evaluation.interval=1", "checkpoint.interval=100", "checkpoint.keep_last=1", *options]
    for told in (3, None):
        with trainer(tiny, name, *arguments) as made:
            suite, take = made.suite, made._take

            def scored(step, tokens, suite=suite):
                evaluation = suite(step, tokens)
                evaluation["tasks"]["sort"]["pass@1"] = SCORES[step]
                return evaluation

            def take_told(plan, made=made, take=take, told=told):
                if plan.step == told:
                    made.stop.signal = int(signal.SIGUSR1)
                return take(plan)

            made.suite, made._take = scored, take_told
            assert made.fit() == (0 if told is None else PREEMPTED_EXIT_CODE)
        run = tiny.parent / name
        assert saved_steps(run) == [2, 5 if told is None else 4]
    assert json.loads((find_latest(run) / "state.json").read_text())["best"] == {"figure": 0.9, "step": 2}
