"""Killed at any point and started again, a run is the run without a break, bit for bit."""

import json
import signal

import pytest
from helpers.faults import ALONE, TOGETHER, remains
from helpers.runs import metric_rows


@pytest.mark.parametrize("ranks", [1, 2])
def test_the_short_run_has_what_the_proof_needs(killed, ranks):
    rows = metric_rows(killed[ranks] / "none")
    assert json.loads((killed[ranks] / "none.json").read_text())["ends"] == [[0] * ranks]
    assert [row["step"] for row in rows if "evaluation" in row] == [0, 3, 6]
    figures = {row["step"]: row for row in rows if "lr" in row}
    assert figures[2]["text/epoch/data/train"] < 1 < figures[3]["text/epoch/data/train"]
    assert figures[3]["play/episodes"] > 0


@pytest.mark.parametrize(
    ("ranks", "point"),
    [*((1, point) for point in ALONE), *((2, point) for point in TOGETHER)],
    ids=lambda one: str(one),
)
def test_killed_there_the_run_goes_on_bit_identical(killed, ranks, point):
    folder, name = killed[ranks], point.replace(" ", "_")
    ends = json.loads((folder / f"{name}.json").read_text())["ends"]
    logs = [path.read_text() for path in folder.glob(f"{name}.*.log")]
    assert len(ends) == (3 if point == "after resume" else 2), logs
    assert all(-signal.SIGKILL in end for end in ends[:-1]), logs
    assert ends[-1] == [0] * ranks, logs
    expected, found = remains(folder / "none"), remains(folder / name)
    for what, value in expected.items():
        assert found[what] == value, what
    assert expected["summary"]
