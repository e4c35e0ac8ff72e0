"""Tic-tac-toe: `tic_tac_toe x: x2o/4x6/78o` -> `6`, the free cell (1 to 9, row by row) to mark."""

from __future__ import annotations

import random
import re
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import ClassVar

from rlpt.registry import register
from rlpt.tasks.base import DIGITS
from rlpt.tasks.games.base import OVER, Game, GameState
from rlpt.types import Problem

CELLS = DIGITS[1:]
LINES = ("123", "456", "789", "147", "258", "369", "159", "357")
FREE = ((2,), (2, 3), (3,), (3,), (4,), (4,), (5,), (5,), (6,), (6, 7))  # free cells, by level
QUIET = (False, False, False, True, False, True, False, True, False, False)  # whether no move wins at once, by level
EMPTY = "." * 9
_SIGN = {1.0: "+", 0.0: "0", -1.0: "-"}
_STEP = re.compile(r"([1-9](?:>[1-9]){0,8})=([-+0])")


def mark(board: str) -> str:
    """The mark of the seat to move: x began."""
    return "x" if board.count("x") == board.count("o") else "o"


def winner(board: str) -> str:
    """The mark that fills a line, or ''."""
    for line in LINES:
        first = board[int(line[0]) - 1]
        if first != "." and all(board[int(cell) - 1] == first for cell in line[1:]):
            return first
    return ""


def free_cells(board: str) -> list[str]:
    """Cells that may be marked, in order; none once the game is won."""
    return [] if winner(board) else [cell for cell in CELLS if board[int(cell) - 1] == "."]


def marked(board: str, cell: str) -> str:
    """The board after the seat to move marked a free cell."""
    return board[: int(cell) - 1] + mark(board) + board[int(cell) :]


@cache  # 5,478 boards
def value(board: str) -> float:
    """What the board is worth to the seat to move: 1, 0 or -1, by minimax."""
    if winner(board):
        return -1.0
    return max((-value(marked(board, cell)) for cell in free_cells(board)), default=0.0)


@cache
def best_line(board: str) -> str:
    """`>7>9`: how the game goes on when both play the first of their best cells."""
    for cell in free_cells(board):
        if -value(after := marked(board, cell)) == value(board):
            return f">{cell}{best_line(after)}"
    return ""


@cache
def boards(free: int) -> tuple[str, ...]:
    """Boards on which the game goes on, with so many free cells, in order."""
    if free == 9:
        return (EMPTY,)
    after = {marked(board, cell) for board in boards(free + 1) for cell in free_cells(board)}
    return tuple(sorted(board for board in after if not winner(board)))


@cache
def positions(level: int) -> tuple[str, ...]:
    """Boards of a level: the moves differ in value, and at level 0 the free cells lie in the first row."""
    found = []
    for board in (board for free in FREE[level] for board in boards(free)):
        after = [marked(board, cell) for cell in free_cells(board)]
        matters = len({value(board) for board in after}) > 1
        loud = QUIET[level] and any(map(winner, after))
        if matters and not loud and (level or set(free_cells(board)) <= set("123")):
            found.append(board)
    return tuple(found)


@register("task", "tic_tac_toe")
@dataclass(frozen=True)
class TicTacToe(Game):
    """Level l: `FREE[l]` free cells, and with `QUIET[l]` no move that wins at once; never a position in which all moves
    are worth the same. Level 0 has 44 positions, the others 170 and more.

    At level 0 one of three cells and the end mark are guessed: 1 in 16.
    """

    name: ClassVar[str] = "tic_tac_toe"
    alphabet: ClassVar[str] = CELLS
    thought_alphabet: ClassVar[str] = CELLS + ">=+-0 "

    def legal_characters(self, level: int) -> str:
        """All cells, at level 0 those of the first row."""
        return CELLS if level else "123"

    def answer_limit(self, level: int) -> int:
        """A cell."""
        return 1

    def opening(self, seed: int, level: int) -> GameState:
        """The empty board."""
        return GameState((), seed, level, EMPTY)

    def draw(self, rng: random.Random, level: int) -> GameState:
        """Uniform among the level's boards, its marks made in the order of the cells."""
        board = rng.choice(positions(level))
        made = {side: [cell for cell, at in zip(CELLS, board) if at == side] for side in "xo"}
        count = len(made["x"]) + len(made["o"])
        moves = tuple(made["xo"[ply % 2]][ply // 2] for ply in range(count))
        return GameState(moves, 0, level, board)

    def apply(self, state: GameState, move: str) -> GameState:
        """The cell is marked."""
        if move not in free_cells(state.inner):
            raise self.illegal(state, move)
        return GameState((*state.moves, move), state.seed, state.level, marked(state.inner, move))

    def player(self, state: GameState) -> int:
        """0 is x, 1 is o."""
        return "xo".index(mark(state.inner)) if free_cells(state.inner) else OVER

    def same(self, state: GameState) -> Hashable:
        """The board: it tells who moves."""
        return state.inner

    def prompt(self, state: GameState) -> str:
        """`tic_tac_toe x: x2o/4x6/78o`: who moves, and the rows with each free cell's number."""
        cells = [cell if at == "." else at for cell, at in zip(CELLS, state.inner)]
        rows = "/".join("".join(cells[start : start + 3]) for start in (0, 3, 6))
        return f"tic_tac_toe {mark(state.inner)}: {rows}"

    def legal_moves(self, state: GameState) -> Sequence[str]:
        """The free cells."""
        return free_cells(state.inner)

    def returns(self, state: GameState) -> Sequence[float]:
        """1 and -1 for winner and loser, 0 for a draw."""
        won = winner(state.inner)
        return ((1.0, -1.0) if won == "x" else (-1.0, 1.0)) if won else (0.0, 0.0)

    def values(self, state: GameState) -> Mapping[str, float]:
        """By minimax to the end."""
        return {cell: -value(marked(state.inner, cell)) + 0.0 for cell in free_cells(state.inner)}

    def solution(self, problem: Problem) -> str:
        """`2>6=- 6=+`: how the game goes on after each move when both play their best, and its value (+ a win, 0 a
        draw, - a loss) to the seat that moves."""
        board = self.start(problem).inner
        values = problem.meta["values"]
        return " ".join(f"{cell}{best_line(marked(board, cell))}={_SIGN[worth]}" for cell, worth in values.items())

    def check_steps(self, problem: Problem, trace: str) -> list[float]:
        """A step is right when its first move is new and legal, all later ones are best ones, the game ends with the
        last, and the value is the move's."""
        start, values = self.start(problem).inner, dict(problem.meta["values"])
        scores = []
        for step in trace.split():
            match = _STEP.fullmatch(step) if step.isascii() else None
            first, *replies = match[1].split(">") if match else [""]
            if match is None or first not in values or _SIGN[values[first]] != match[2]:
                scores.append(0.0)
                continue
            board = marked(start, first)
            for cell in replies:
                is_best = cell in free_cells(board) and -value(marked(board, cell)) == value(board)
                board = marked(board, cell) if is_best else EMPTY
            right = not free_cells(board)
            if right:
                del values[first]
            scores.append(float(right))
        return scores
