"""The buffer of proposals: what enters, what leaves, what is drawn, and its files."""

import json
from dataclasses import asdict

import pytest

from rlpt.errors import DataError
from rlpt.selfplay.proposals import Note, Proposals, Triplet, read_file
from rlpt.selfplay.propose import Propose

MODE = "deduction/stack"


def note(digits, fault="", mode=MODE, **options):
    """`digits` are pushed on a 1."""
    given = {"level": 4, "attempts": 4, "solved": 1} | options
    return asdict(Note(mode, fault, f"{digits}:1", digits, ["1"], [f"1{digits}"], **given))


def filled(count, capacity=100):
    buffer = Proposals(capacity)
    buffer.record([note(f"{number:03}") for number in range(count)], 5)
    return buffer


def test_valid_ones_enter_once_with_where_they_come_from():
    buffer = Proposals()
    buffer.record([note("1", parents=[3]), note("2", "limits"), note("1"), note("1", mode="abduction/stack")], 9)
    (one,) = buffer.triplets[MODE]
    assert (one.text, one.step, one.parents, one.attempts, one.solved, one.solve_rate) == ("1:1", 9, [3], 4, 1, 0.25)
    assert buffer.knows(MODE, "1:1")
    assert not buffer.knows(MODE, "2:1")
    assert [kept[0].number for kept in buffer.triplets.values()] == [0, 1]


def test_the_oldest_leave_and_may_come_back():
    buffer = filled(6, capacity=4)
    assert [one.program for one in buffer.triplets[MODE]] == ["002", "003", "004", "005"]
    assert not buffer.knows(MODE, "001:1")
    buffer.record([note("001")], 6)
    assert [one.number for one in buffer.triplets[MODE]] == [3, 4, 5, 6]


def test_draws_hang_on_key_and_contents_alone():
    buffer, seed = filled(50), Triplet("0+:3", "0+", ["3"], ["3"], 1)
    drawn = buffer.draw(MODE, 6, 3, 0.5, [seed])
    assert drawn == buffer.draw(MODE, 6, 3, 0.5, [seed])
    assert len({one.number for one in drawn}) == 6
    assert drawn != buffer.draw(MODE, 6, 4, 0.5, [seed])
    assert buffer.draw("abduction/stack", 6, 3, 0.5, [seed]) == [seed]
    everyone = {one.number for key in range(200) for one in buffer.draw(MODE, 6, key, 0.0, [seed])}
    assert everyone == set(range(-1, 50))


def test_draws_may_favour_the_newest():
    buffer = filled(1000, capacity=1000)
    newest = [one.number >= 1000 - 256 for key in range(100) for one in buffer.draw(MODE, 4, key, 1.0)]
    assert all(newest)
    either = [one.number >= 1000 - 256 for key in range(100) for one in buffer.draw(MODE, 4, key, 0.0)]
    assert 0.15 < sum(either) / 400 < 0.36


def test_figures_of_a_play():
    buffer = Proposals()
    assert buffer.metrics() == {"buffer": 0}
    buffer.record(
        [
            note("1"),
            note("22", solved=4),
            note("3", "known"),
            note("4", "limits"),
            note("5", "shape"),
            note("6", "shape", mode="abduction/stack"),
        ],
        0,
    )
    assert buffer.metrics() == {
        "valid": pytest.approx(2 / 6),
        "runs": pytest.approx(3 / 6),
        "well_formed": pytest.approx(4 / 6),
        "novel": pytest.approx(2 / 3),
        "solve_rate": pytest.approx(0.625),
        "learnable": 0.5,
        "program_length": 1.5,
        f"valid/{MODE}": pytest.approx(0.4),
        f"solve_rate/{MODE}": pytest.approx(0.625),
        "valid/abduction/stack": 0,
        "buffer": 2,
    }
    buffer.record([note("7", "shape")], 1)
    assert buffer.metrics() == {"valid": 0, "runs": 0, "well_formed": 0, f"valid/{MODE}": 0, "buffer": 2}


def test_attempts_at_replayed_ones_are_counted():
    buffer = filled(2)
    buffer.record([note("x", "shape", replayed=1, attempts=8, solved=3), note("x", "shape", replayed=77)], 6)
    assert [(one.attempts, one.solved) for one in buffer.triplets[MODE]] == [(4, 1), (12, 4)]


def test_resume_is_exact():
    buffer = filled(7, capacity=5)
    state = json.loads(json.dumps(buffer.state_dict()))
    other = Proposals(5)
    other.load_state_dict(state)
    assert other.state_dict() == buffer.state_dict()
    for one in (buffer, other):
        one.record([note("006"), note("900")], 8)
    assert other.state_dict() == buffer.state_dict()
    assert other.metrics() == buffer.metrics()
    smaller = Proposals(2)
    smaller.load_state_dict(state)
    assert [one.program for one in smaller.triplets[MODE]] == ["005", "006"]
    assert not smaller.knows(MODE, "004:1")


def test_files_hold_the_whole_buffer(tmp_path):
    buffer, path = filled(3), tmp_path / "buffer.jsonl"
    buffer.record([note("7", parents=[0, 2])], 6)
    assert buffer.export_file(path) == 4
    other = Proposals()
    assert other.import_file(path) == 4
    assert other.state_dict() == buffer.state_dict()
    assert other.import_file(path) == 0, "they are known"
    more = Proposals()
    more.record([note("5"), note("000")], 1)
    assert more.import_file(path) == 3
    newest = more.triplets[MODE][-1]
    assert (newest.program, newest.number, newest.parents) == ("7", 4, [3]), "numbers are the reader's; 000 was its own"
    assert Propose(initial=str(path)).memory().state_dict() == buffer.state_dict()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"level": None}, r"line 2: level: .*integer.*mend or delete the line"),
        ({"extra": 1}, r"line 2: extra: Extra inputs"),
        ({"outputs": ["99"]}, r"line 2: the program gives '1001' for '1', and not '99'"),
        ({"outputs": []}, r"line 2: outputs: "),
        ({"inputs": ["1", "2"]}, r"line 2: 2 inputs with 1 outputs"),
        ({"solved": 5}, r"line 2: 5 of 4 attempts solved it"),
        ({"mode": "deduction/stak"}, r"line 2: .*unknown language 'stak'; did you mean 'stack'"),
        ({"mode": "deduction"}, r"line 2: mode: "),
        ({"level": 10}, r"line 2: level 10 is outside 0\.\.9"),
        ({"number": "1"}, r"line 2: number: "),
    ],
)
def test_a_broken_line_is_named(tmp_path, change, message):
    path = tmp_path / "buffer.jsonl"
    filled(3).export_file(path)
    lines = path.read_text().splitlines()
    lines[1] = json.dumps(json.loads(lines[1]) | change)
    path.write_text("\n".join(lines) + "\n")
    with pytest.raises(DataError, match=rf"buffer\.jsonl, {message}"):
        read_file(path)


def test_a_file_that_is_no_buffer_is_named(tmp_path):
    with pytest.raises(DataError, match=r"nothing\.jsonl: can't be read"):
        read_file(tmp_path / "nothing.jsonl")
    (tmp_path / "text").write_text("hello\n")
    with pytest.raises(DataError, match=r"text, line 1: .*JSON"):
        Proposals().import_file(tmp_path / "text")
