"""The table of OpenSpiel's games: levels, how moves and positions are written, and which solver judges them.

A row is data, so that the names are registered without OpenSpiel. To add a game, add a row; the contract in
tests/contracts/test_games.py then checks that its moves are short and unique and its levels rise.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from rlpt.tasks.base import DIGITS
from rlpt.tasks.games.best_response import best_response
from rlpt.tasks.games.expectiminimax import expectiminimax
from rlpt.tasks.games.value_iteration import value_iteration

Rewrites = tuple[tuple[str, str], ...]  # (regular expression, replacement), one after the other


@dataclass(frozen=True)
class Level:
    """Where a level's positions come from."""

    game: str  # OpenSpiel's name with parameters
    decisions: int  # before the end of a random play-out, at most


@dataclass(frozen=True)
class Rules:
    """One game."""

    levels: tuple[Level, ...]
    alphabet: str  # of the moves
    longest_move: int = 2  # characters
    moves: Rewrites = ()  # make OpenSpiel's text of an action short
    view: Rewrites = ()  # make OpenSpiel's text of a position short and ASCII
    shows_left: bool = False  # prompts say how many moves the game may still last
    shows_last: bool = False  # prompts say what the last move was
    prolongs: bool = False  # play-outs end the game only where every move does
    solver: Callable[[Any, int], tuple[Mapping[int, float], int]] = expectiminimax
    limit: int = 2_000  # positions that the solver may look at; those of the whole game where it solves that


def late(game: str, *decisions: int) -> tuple[Level, ...]:
    """Levels of one game, so many decisions before its end."""
    return tuple(Level(game, count) for count in decisions)


NO_SPACES = ((" +", ""),)
GRID = ((r"^ *[0-9]+ ?", ""), (r"\n +[A-Za-z ]+\n*\Z", ""))  # without the names of rows (left) and columns (below)
ROW_COLUMN = ((r".*\(([0-9]),([0-9])\)", r"\1\2"),)  # x(0,2) -> 02
BOXES = (
    *((f"[{corners}]", "+") for corners in "┌┐└┘├┤┬┴┼"),
    ("[─╴╶]", "-"),
    ("[│╵╷]", "|"),
)
CROSS = ((r"[\[\]a-e ]", ""), (r"^[0-9]+", ""), (r"\A\n", ""))  # rows of a tilted board

OPEN_SPIEL_GAMES: Mapping[str, Rules] = {
    "amazons": Rules(
        late("amazons(board_size=6)", 4, 6, 8),
        DIGITS[1:7],
        moves=((r".*\(([0-9]), ([0-9])\)", r"\1\2"),),
        shows_last=True,
    ),
    "breakthrough": Rules(
        late("breakthrough(rows=4,columns=3)", 1, 2, 3),
        "abc1234*",
        longest_move=5,
        view=GRID,
    ),
    "clobber": Rules(
        late("clobber(rows=3,columns=4)", 2, 3, 4) + late("clobber(rows=4,columns=5)", 4, 5),
        "abcde1234",
        longest_move=4,
        view=GRID,
    ),
    "connect_four": Rules(
        late("connect_four(rows=4,columns=4,x_in_row=3)", 2, 3, 4)
        + late("connect_four(rows=5,columns=5)", 4)
        + late("connect_four", 6, 8, 10),
        "0123456",
        longest_move=1,
        moves=(("[xo]", ""),),
        prolongs=True,
    ),
    "dots_and_boxes": Rules(
        late("dots_and_boxes", 2, 3, 4) + late("dots_and_boxes(num_rows=3,num_cols=3)", 5, 6, 7),
        "hv0123",
        longest_move=3,
        moves=((r"P.\((.),(.),(.)\)", r"\1\2\3"),),
        view=BOXES,
    ),
    "go_5x5": Rules(
        late("go(board_size=5,komi=0.5,max_game_length=20)", 1, 2)
        + late("go(board_size=5,komi=0.5,max_game_length=24)", 3)
        + late("go(board_size=5,komi=0.5,max_game_length=20)", 3)
        + late("go(board_size=5,komi=0.5,max_game_length=16)", 3),
        "abcdeps12345",
        longest_move=4,
        moves=(("^. ", ""), ("PASS", "pass")),
        view=((r"GoState.*\n\n", ""), *GRID),
        shows_left=True,
        shows_last=True,
        prolongs=True,
    ),
    "go_9x9": Rules(
        late("go(board_size=9,komi=0.5,max_game_length=60)", 1)
        + late("go(board_size=9,komi=0.5,max_game_length=40)", 1)
        + late("go(board_size=9,komi=0.5,max_game_length=60)", 2)
        + late("go(board_size=9,komi=0.5,max_game_length=40)", 2),
        "abcdefghjps123456789",
        longest_move=4,
        moves=(("^. ", ""), ("PASS", "pass")),
        view=((r"GoState.*\n\n", ""), *GRID),
        shows_left=True,
        shows_last=True,
        prolongs=True,
        limit=3_000,
    ),
    "gomoku": Rules(
        late("gomoku(size=4,connect=3)", 2, 3, 4) + late("gomoku(size=5,connect=4)", 4, 5, 6, 7),
        DIGITS[:5],
        moves=((",", ""),),
        view=((r"\A[BW]\n", ""),),
        prolongs=True,
    ),
    "havannah": Rules(
        late("havannah(board_size=3)", 2, 3, 4, 5, 6, 7),
        "abcde12345",
        view=CROSS,
        prolongs=True,
    ),
    "hex": Rules(
        late("hex(board_size=3)", 2, 3, 4) + late("hex(board_size=4)", 5, 6) + late("hex(board_size=5)", 7, 8),
        "abcde12345",
        view=NO_SPACES,
        prolongs=True,
    ),
    "kuhn_poker": Rules(
        late("kuhn_poker", 1, 2, 3),
        "pb",
        longest_move=1,
        moves=(("Pass", "p"), ("Bet", "b")),
        solver=best_response,
        limit=20_000,
    ),
    "leduc_poker": Rules(
        late("leduc_poker", 1, 3, 4),
        "fcr",
        longest_move=1,
        moves=(("Fold", "f"), ("Call", "c"), ("Raise", "r")),
        view=((r"\[(Observer|Player|Money)[^]]*\]", ""), (r"\]\[", ", "), (r"[][:]", "")),
        solver=best_response,
        limit=20_000,
    ),
    "liars_dice": Rules(
        late("liars_dice(numdice=1,dice_sides=3)", 1, 2) + late("liars_dice(numdice=1,dice_sides=4)", 3),
        "1234-L",
        longest_move=3,
        moves=(("Liar", "L"),),
        solver=best_response,
        limit=20_000,
    ),
    "mancala": Rules(
        late("mancala", 1, 3),
        DIGITS,
        view=(("-+", " "), (r"\nCurrent player.*\nMove number.*", ""), ("^ ", "")),
    ),
    "mnk": Rules(
        late("mnk(m=4,n=3,k=3)", 2, 3, 4) + late("mnk(m=4,n=4,k=4)", 4, 5, 6, 7),
        DIGITS[:4],
        moves=ROW_COLUMN,
        prolongs=True,
    ),
    "nim": Rules(
        late("nim(is_misere=False,pile_sizes=1;2)", 2)
        + late("nim(is_misere=False,pile_sizes=1;3;5)", 2, 3, 4)
        + late("nim(is_misere=False)", 5),
        DIGITS[1:8] + "-",
        longest_move=3,
        moves=((r"pile:([0-9]+), take:([0-9]+);", r"\1-\2"),),
        view=((r"\A.*: ", ""),),
    ),
    "othello": Rules(
        late("othello", 2, 3, 4, 5, 6, 7),
        "abcdefghps12345678",
        longest_move=4,
        view=((r"\A.*\n.*\n", ""), *GRID, (" [1-8]$", ""), *NO_SPACES),
    ),
    "pentago": Rules(
        late("pentago", 1, 2, 3),
        "abcdefstuvwxyz123456",
        longest_move=3,
        prolongs=True,
        view=((r"^.*[<>].*\n?", ""), (r"^ +a b.*\n", ""), (r"^...(.*)..$", r"\1"), *NO_SPACES),
    ),
    "pig": Rules(
        tuple(Level(f"pig(winscore={score})", 8) for score in (4, 6, 8, 10, 12, 16, 20)),
        "rolstp",
        longest_move=4,
        view=((r"Scores: ", ""), (r", Turn total:", " turn"), (r"\nCurrent player.*", "")),
        solver=value_iteration,
        limit=20_000,
    ),
    "tic_tac_toe": Rules(
        late("tic_tac_toe", 2, 3, 4, 5, 6, 7),
        DIGITS[:3],
        moves=ROW_COLUMN,
        prolongs=True,
    ),
    "ultimate_tic_tac_toe": Rules(
        late("ultimate_tic_tac_toe", 2, 4, 6),
        "b012345678",
        view=((r"\n+Current player.*\nForced board: ", "\nboard"), *NO_SPACES, ("board", "board "), (r"\n\n", "\n")),
        moves=(*ROW_COLUMN, (r"^\D+([0-9])$", r"b\1")),
        prolongs=True,
    ),
    "y": Rules(
        late("y(board_size=4)", 2, 3, 4) + late("y(board_size=5)", 5, 6, 7),
        "abcde12345",
        view=CROSS,
        prolongs=True,
    ),
}
