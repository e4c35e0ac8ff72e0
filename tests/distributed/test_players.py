"""A run's policy at the board: the arena and the terminal."""

import json
import re
import subprocess
import sys

import pytest

from rlpt.__main__ import main
from rlpt.selfplay.propose import Propose


def rlpt(*arguments, said=""):
    """What `rlpt ...` prints, with these lines on its standard input; its exit code and errors."""
    return subprocess.run(
        [sys.executable, "-m", "rlpt", *map(str, arguments)], input=said, capture_output=True, text=True, timeout=300
    )


@pytest.fixture(scope="module")
def standings(unbroken):
    done = rlpt("arena", unbroken, "random", "solver", "--games", 11, "--search", 4, "--leaf", "value")
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_arena_ranks_a_run_and_bots(standings, unbroken):
    assert "12 games a pair" in standings
    rows = [line for line in standings.splitlines() if re.search(r"│ +[0-9]\. |│ [0-9]\.", line)]
    assert len(rows) == 3
    assert "solver" in rows[0]
    ratings = [int(re.search(r"│ +([0-9]+) │ ± +[0-9]+ │", row)[1]) for row in rows]
    assert ratings == sorted(ratings, reverse=True)
    assert abs(sum(ratings) - 3000) <= 3


def test_the_arena_is_the_same_again(standings, unbroken):
    again = rlpt("arena", unbroken, "random", "solver", "--games", 11, "--search", 4)
    assert again.stdout == standings


def test_a_person_plays_at_the_terminal(unbroken):
    """An illegal move, a hint, a move taken back, and moves until the game is over."""
    moves = "\n".join(["x", "?", "5", "u", *"123456789123456789"])
    done = rlpt("play", unbroken, "--search", 5, said=moves)
    assert done.returncode == 0, done.stderr
    assert "no legal move: 'x'" in done.stdout
    assert re.search(r"move +┃ policy ┃ visits ┃ mean return", done.stdout)
    assert "value head: " in done.stdout
    assert "best line: " in done.stdout
    assert re.search(r"search tree\n[├└]── [1-9]  [0-9]+ visits, [+-]", done.stdout)
    assert "the policy plays " in done.stdout
    assert re.search(r"you win|you lose|a draw", done.stdout)


def test_the_end_of_the_input_ends_the_game(unbroken):
    done = rlpt("play", unbroken, "--seat", 1, said="q\n")
    assert done.returncode == 0, done.stderr
    assert "the policy plays" in done.stdout


def test_a_buffer_of_proposals_leaves_a_run_as_a_file(unbroken, tmp_path, capsys):
    """And another form of self-play begins with it."""
    main_arguments = ["proposals", str(unbroken), str(tmp_path / "proposals.jsonl")]
    with pytest.raises(SystemExit) as stopped:
        main(main_arguments)
    assert stopped.value.code == 0
    rows = [json.loads(line) for line in (tmp_path / "proposals.jsonl").read_text().splitlines()]
    assert f"{len(rows)} proposals of 'proposals'" in capsys.readouterr().out
    assert {row["mode"] for row in rows} <= {"deduction/stack", "abduction/stack"}
    begun = Propose(initial=str(tmp_path / "proposals.jsonl")).memory()
    assert sum(map(len, begun.triplets.values())) == len(rows) > 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["arena", "random"], "needs two players"),
        (["arena", "random", "random"], "'random' is named twice"),
        (["arena", "random", "slver"], "unknown opponent 'slver'; did you mean 'solver'"),
        (["arena", "random", "runs/none"], "runs/none: no run's folder"),
        (["arena", "random", "solver", "--game", "sort"], "--game: 'sort' is no game"),
        (["arena", "random", "solver", "--search", "3", "--leaf", "guess"], "--search.leaf"),
    ],
)
def test_who_cannot_play_is_told_why(arguments, message, capsys):
    with pytest.raises(SystemExit) as stopped:
        main(arguments)
    assert stopped.value.code == 2
    assert message in capsys.readouterr().err
