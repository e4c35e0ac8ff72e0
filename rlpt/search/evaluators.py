"""What judges positions: the policy with its value head, random play-outs, what an earlier search was told."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from rlpt.errors import ConfigError
from rlpt.search.tree import Leaf, Space
from rlpt.tasks.base import keyed_random
from rlpt.tasks.games.base import OVER, Game, GameState
from rlpt.tasks.games.moves import MoveTokens, legal_tokens, position_ids
from rlpt.types import Chooser, Tokenizer


@dataclass(frozen=True)
class Rollouts:
    """Uniform priors; values are the mean returns of `count` games played on at random."""

    count: int = 1

    def __post_init__(self) -> None:
        if self.count < 1:
            raise ConfigError(f"count={self.count}: must be at least 1")

    def __call__(self, space: Space, states: Sequence[Any], keys: Sequence[int]) -> list[Leaf]:
        """See `Evaluator`."""
        counts = [len(space.legal_moves(state)) for state in states]
        values = [self.values(space, state, key) for state, key in zip(states, keys, strict=True)]
        return [Leaf(np.full(count, 1 / count), value) for count, value in zip(counts, values)]

    def values(self, space: Space, state: Any, key: int) -> tuple[float, ...]:
        """Each seat's mean return."""
        rng = keyed_random("rollouts", key, 0)
        returns = np.zeros(space.num_players)
        for _ in range(self.count):
            at = state
            while space.player(at) != OVER:
                at = space.apply(at, rng.choice(space.legal_moves(at)))
            returns += space.returns(at)
        return tuple((returns / self.count).tolist())


@dataclass(frozen=True)
class PolicyEvaluator:
    """Priors are the policy's own: what it would write, among the legal moves. Values are the value head's, for games
    of two seats with returns that add up to 0, or the mean returns of `rollouts`.

    The head is taken to say the return that the seat to move may expect, in [-1, 1]: it must have been trained on that
    (reward `game_return`).
    """

    chooser: Chooser
    tokenizer: Tokenizer
    rollouts: Rollouts | None = None  # None: the value head

    def __call__(self, space: Space, states: Sequence[Any], keys: Sequence[int]) -> list[Leaf]:
        """See `Evaluator`: one call of the chooser for all positions (more where moves have several tokens)."""
        assert isinstance(space, Game), "the policy reads positions of games"
        priors, heads = move_priors(self.chooser, space, states, self.tokenizer)
        leaves = []
        for at, (state, key) in enumerate(zip(states, keys, strict=True)):
            if self.rollouts is not None:
                values = self.rollouts.values(space, state, key)
            else:
                values = _seats(space, state, None if heads is None else float(heads[at]))
            leaves.append(Leaf(priors[at][0], values, priors[at][1]))
        return leaves


def move_priors(
    chooser: Chooser, game: Game, states: Sequence[GameState], tokenizer: Tokenizer
) -> tuple[list[tuple[np.ndarray, int]], np.ndarray | None]:
    """(the policy's probability of each legal move [A] f64, tokens read for it) of each position, and the value head's
    word [N] on them (None without one)."""
    prompts = [position_ids(game, state, tokenizer) for state in states]
    tokens = [legal_tokens(game, state, tokenizer) for state in states]
    logprobs = [np.zeros(len(one.moves)) for one in tokens]
    read, heads = [0] * len(states), None
    asked: list[tuple[int, tuple[int, ...]]] = [(at, ()) for at in range(len(states))]
    while asked:
        texts = [[*prompts[at], *prefix] for at, prefix in asked]
        following = [tokens[at].following(prefix) for at, prefix in asked]
        found, values = chooser(texts, following)
        heads = values if heads is None else heads
        deeper = []
        for (at, prefix), text, ids, said in zip(asked, texts, following, found, strict=True):
            read[at] += len(text)
            for token, logprob in zip(ids, said, strict=True):
                begun = (*prefix, token)
                logprobs[at][tokens[at].indices(begun)] += logprob
                deeper += [(at, forced)] if (forced := _forced(tokens[at], begun)) else []
        asked = deeper
    priors = [np.exp(one) / np.exp(one).sum() for one in logprobs]
    return list(zip(priors, read)), heads


def _forced(tokens: MoveTokens, prefix: tuple[int, ...]) -> tuple[int, ...]:
    """`prefix` with what can only follow it, up to where there is a choice; () where it is a whole move by then."""
    while len(following := tokens.following(prefix)) == 1:
        prefix = (*prefix, following[0])
    return prefix if following else ()


def _seats(game: Game, state: GameState, value: float | None) -> tuple[float, ...]:
    if value is None:
        raise ConfigError(
            "search.leaf=value: the model has no value head; train one (alpha_zero, ppo), or use rollouts"
        )
    if game.num_players != 2 or not game.zero_sum:
        raise ConfigError(
            f"search.leaf=value: a value head says one number, and {game.name} is no two-player zero-sum game; use "
            "leaf=rollouts"
        )
    value = min(1.0, max(-1.0, value))
    return (value, -value) if game.player(state) == 0 else (-value, value)


class Recorded:
    """Says what was said in a search that was dumped, so that the same rule and budget grow the same tree again.

    States must hold the moves since the opening (`GameState.moves`). Raises LookupError for a position that is not in
    the dump: the rule, the budget or the code is not the one that made it.
    """

    def __init__(self, dump: Mapping[str, Any], root: Any) -> None:
        before = tuple(root.moves)
        self.leaves = {
            (*before, *node["moves"]): Leaf(
                np.array(node["leaf"]["priors"]),
                tuple(node["leaf"]["values"]),
                node["leaf"]["tokens"],
                tuple(node["leaf"]["moves"]) if "moves" in node["leaf"] else None,
            )
            for node in dump["nodes"]
            if "leaf" in node
        }

    def __call__(self, space: Space, states: Sequence[Any], keys: Sequence[int]) -> list[Leaf]:
        """See `Evaluator`."""
        for state in states:
            if tuple(state.moves) not in self.leaves:
                raise LookupError(f"the dump has no judgement of the position after {' '.join(state.moves) or 'none'}")
        return [self.leaves[tuple(state.moves)] for state in states]
