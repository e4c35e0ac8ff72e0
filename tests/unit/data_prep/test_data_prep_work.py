"""Units of work: markers, several processes, errors, and processes that are killed."""

import os
import signal
import time
from functools import partial
from pathlib import Path

import pytest

from data_prep.pipeline import Share
from data_prep.work import Markers, Unit, Workers
from data_prep.work import run_units as run_units_with
from rlpt.errors import ConfigError, DataError


def run_units(markers, units, keys, count):
    with Workers(count) as workers:
        return run_units_with(markers, units, keys, workers)


def write(path, text):
    path.write_text(text)
    return {"documents": len(text)}


def fail(message):
    raise DataError(message)


def fail_late(message):
    time.sleep(0.5)
    raise DataError(message)


def slow():
    time.sleep(2)
    return {}


def die():
    os.kill(os.getpid(), signal.SIGKILL)


def unit(folder, name, run=None):
    path = Path(folder) / f"{name}.txt"
    return Unit(name, run or partial(write, path, name), (path,) if run is None else ())


@pytest.mark.parametrize("workers", [1, 3])
def test_what_is_finished_is_not_done_again(tmp_path, workers):
    units, markers = [unit(tmp_path, name) for name in "abcde"], Markers(tmp_path, "stage")
    keys = dict.fromkeys("abcde", "key")
    assert run_units(markers, units, keys, workers) == 5
    assert [markers.figures(name) for name in "abcde"] == [{"documents": 1}] * 5
    assert run_units(markers, units, keys, workers) == 0
    (tmp_path / "b.txt").write_text("longer")  # of another size than it was marked with
    (tmp_path / "c.txt").unlink()
    markers.path("d").write_text("not JSON")
    assert run_units(markers, units, keys | {"e": "another key"}, workers) == 4
    assert (tmp_path / "b.txt").read_text() == "b"


@pytest.mark.parametrize("workers", [1, 2])
def test_an_error_keeps_what_is_finished_and_begins_nothing_new(tmp_path, workers):
    markers = Markers(tmp_path, "stage")
    units = [
        unit(tmp_path, "a"),
        unit(tmp_path, "b", partial(fail_late, "bad line")),
        *(unit(tmp_path, n) for n in "cd"),
    ]
    units.append(unit(tmp_path, "e", slow))
    units += [unit(tmp_path, f"f{index}") for index in range(20)]
    with pytest.raises(DataError, match="bad line"):
        run_units(markers, units, {one.name: "key" for one in units}, workers)
    done = {one.name for one in units if markers.path(one.name).exists()}
    assert {"a"} <= done
    assert "b" not in done
    assert len(done) < 10
    units[1] = unit(tmp_path, "b")
    assert run_units(markers, units, {one.name: "key" for one in units}, workers) == len(units) - len(done)


def test_a_process_that_is_killed_is_told_of(tmp_path):
    units = [unit(tmp_path, "a"), unit(tmp_path, "b", die), unit(tmp_path, "c")]
    with pytest.raises(DataError, match=r"killed while it worked on stage of .*b.*run it again, with fewer"):
        run_units(Markers(tmp_path, "stage"), units, dict.fromkeys("abc", "key"), 2)


def test_a_stage_without_units_is_silent(tmp_path, capsys):
    assert run_units(Markers(tmp_path, "stage"), [], {}, 2) == 0
    assert capsys.readouterr().err == ""


def test_progress_says_what_is_left(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(time, "monotonic", iter(range(0, 1000, 3)).__next__)
    run_units(Markers(tmp_path, "stage"), [unit(tmp_path, name) for name in "abc"], dict.fromkeys("abc", "key"), 1)
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == "stage: 3 parts"
    assert lines[1] == "stage: 1 of 3 parts, 1 documents, 6 s left"
    assert lines[-1].startswith("stage: done, 3 documents in")


@pytest.mark.parametrize("text", ["3", "4/4", "-1/4", "a/b", "1/", "/4"])
def test_shares_are_written_index_of_count(text):
    with pytest.raises(ConfigError, match="INDEX/COUNT"):
        Share.parse(text)
    assert Share.parse("3/16") == Share(3, 16)
