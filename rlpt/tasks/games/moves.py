"""Moves as tokens: which token may come next, so that what a policy writes is one of a position's moves.

A move is encoded one token a character. Where one move's text begins another's (`1` and `12`), an end mark closes each;
elsewhere the text says by itself where it ends.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise

from rlpt.tasks.games.base import Game, GameState
from rlpt.template import ANSWER, END, PROMPT, encode_marked
from rlpt.types import Tokenizer


@dataclass(frozen=True)
class MoveTokens:
    """The legal moves of a position as sequences of ids, none of which begins another."""

    moves: tuple[str, ...]
    ids: tuple[tuple[int, ...], ...]

    def following(self, prefix: Sequence[int]) -> tuple[int, ...]:
        """Ids that may come after these, sorted; none where they are a whole move."""
        return _following(self, tuple(prefix))

    def move(self, ids: Sequence[int]) -> str | None:
        """The move that these ids are; None where they are none."""
        found = tuple(ids)
        return self.moves[self.ids.index(found)] if found in self.ids else None

    def indices(self, prefix: Sequence[int]) -> list[int]:
        """Of the moves that begin with these ids."""
        begin = tuple(prefix)
        return [at for at, ids in enumerate(self.ids) if ids[: len(begin)] == begin]


@lru_cache(maxsize=1 << 16)
def _following(tokens: MoveTokens, prefix: tuple[int, ...]) -> tuple[int, ...]:
    depth = len(prefix)
    return tuple(sorted({ids[depth] for ids in tokens.ids if ids[:depth] == prefix and len(ids) > depth}))


@lru_cache(maxsize=1 << 14)
def move_tokens(moves: tuple[str, ...], tokenizer: Tokenizer) -> MoveTokens:
    """The moves of a position, in their order."""
    ids = [tuple(tokenizer.encode_characters(move)) for move in moves]
    ordered = sorted(ids)
    if any(later[: len(first)] == first for first, later in pairwise(ordered)):
        ids = [(*one, tokenizer.mark_id(END)) for one in ids]
    return MoveTokens(moves, tuple(ids))


def legal_tokens(game: Game, state: GameState, tokenizer: Tokenizer) -> MoveTokens:
    """The legal moves of `state`."""
    return move_tokens(tuple(game.legal_moves(state)), tokenizer)


def position_ids(game: Game, state: GameState, tokenizer: Tokenizer) -> list[int]:
    """What the policy reads before it writes a move: what the seat sees and the answer mark, as in a problem."""
    return encode_marked(tokenizer, f"{PROMPT}{game.prompt(state)}{ANSWER}")
