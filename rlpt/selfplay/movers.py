"""Who moves in a match: the policy by itself, the policy with a tree search, a scripted bot."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace

import numpy as np

from rlpt.errors import ConfigError
from rlpt.search.evaluators import PolicyEvaluator
from rlpt.search.mcts import Budget, TreeRule, search
from rlpt.search.options import TreeSearch
from rlpt.selfplay.base import Actor, session
from rlpt.selfplay.match import ILLEGAL, Mover, Position, Turn
from rlpt.tasks.base import keyed_hash, keyed_random
from rlpt.tasks.games.base import Game
from rlpt.tasks.games.moves import MoveTokens, legal_tokens, position_ids
from rlpt.tasks.games.opponents import Player
from rlpt.template import END
from rlpt.types import Generator, SamplingParams, Tokenizer

LEAST_SHARE = 1e-9  # whose logarithm is recorded for a move that a search gave no share


@dataclass(frozen=True, eq=False)
class LegalMover:
    """The policy, token by token among those of legal moves: log-probs are renormalised over these."""

    generator: Generator
    tokenizer: Tokenizer
    sampling: SamplingParams

    def __call__(self, positions: Sequence[Position]) -> list[Turn]:
        """See `Mover`: one call of the generator a token of the longest move."""
        written = [_Written(position, self.tokenizer) for position in positions]
        goes_on = any(len(ids) > 1 for one in written for ids in one.tokens.ids)
        with session(self.generator) if goes_on else nullcontext(self.generator) as generator:
            while live := [one for one in written if one.write_forced()]:
                self._draw(live, generator)
        return [one.turn() for one in written]

    def _draw(self, live: Sequence[_Written], generator: Generator) -> None:
        """The next token of each."""
        following = [one.tokens.following(one.ids) for one in live]
        params = [replace(self.sampling, max_new_tokens=1, stop=(), legal_ids=ids) for ids in following]
        noise = [keyed_hash("token", one.position.key, len(one.ids)) >> 1 for one in live]
        drawn = generator([[*one.prompt, *one.ids] for one in live], params, noise)
        for one, completion in zip(live, drawn, strict=True):
            kept = completion.kept_ids[0] if completion.kept_ids else None
            one.write(int(completion.token_ids[0]), float(completion.logprobs[0]), kept)


class _Written:
    """A move that is being written."""

    def __init__(self, position: Position, tokenizer: Tokenizer) -> None:
        self.position = position
        self.prompt = [*position.before, *position_ids(position.game, position.state, tokenizer)]
        self.tokens: MoveTokens = legal_tokens(position.game, position.state, tokenizer)
        self.ids: list[int] = []
        self.logprobs: list[float] = []
        self.chosen: list[bool] = []
        self.kept: list[np.ndarray | None] = []
        self.read = 0

    def write_forced(self) -> bool:
        """Writes what can only follow. Whether there is a choice then."""
        while len(following := self.tokens.following(self.ids)) == 1:
            self.ids.append(following[0])
            self.logprobs.append(0.0)
            self.chosen.append(False)
            self.kept.append(None)
        return bool(following)

    def write(self, token: int, logprob: float, kept: np.ndarray | None) -> None:
        self.read += len(self.prompt) + len(self.ids)
        self.ids.append(token)
        self.logprobs.append(logprob)
        self.chosen.append(True)
        self.kept.append(kept)

    def turn(self) -> Turn:
        return Turn(
            self.tokens.move(self.ids) or ILLEGAL,  # of weights that are not finite, any token may be drawn
            tuple(self.prompt),
            len(self.position.before),
            np.array(self.ids, np.int64),
            np.array(self.logprobs, np.float32),
            np.array(self.chosen, bool),
            tuple(self.kept),
            tokens=self.read,
        )


@dataclass(frozen=True, eq=False)
class FreeMover:
    """The policy, writing what it likes (of `sampling.legal_ids`, where given) up to an end mark: what is no legal move
    is an illegal turn."""

    generator: Generator
    tokenizer: Tokenizer
    sampling: SamplingParams

    def __call__(self, positions: Sequence[Position]) -> list[Turn]:
        """See `Mover`."""
        end = self.tokenizer.mark_id(END)
        prompts = [[*one.before, *position_ids(one.game, one.state, self.tokenizer)] for one in positions]
        params = [
            replace(self.sampling, max_new_tokens=_longest(one.game, one.state.level) + 1, stop=(end,))
            for one in positions
        ]
        noise = [keyed_hash("token", one.key, 0) >> 1 for one in positions]
        turns = []
        for position, prompt, drawn in zip(positions, prompts, self.generator(prompts, params, noise), strict=True):
            text = self.tokenizer.decode(drawn.token_ids[:-1].tolist()) if drawn.finish_reason == "stop" else ILLEGAL
            is_legal = text in position.game.legal_moves(position.state)
            length = len(drawn.token_ids)
            turns.append(
                Turn(
                    text if is_legal else ILLEGAL,
                    tuple(prompt),
                    len(position.before),
                    drawn.token_ids.astype(np.int64),
                    drawn.logprobs.astype(np.float32),
                    np.ones(length, bool),
                    drawn.kept_ids or (None,) * length,
                    tokens=len(prompt) + length,
                )
            )
        return turns


def _longest(game: Game, level: int) -> int:
    """Characters of the longest move: of all levels, since games are played from their openings."""
    return max(game.answer_limit(level), game.answer_limit(game.max_level))


@dataclass(frozen=True, eq=False)
class SearchMover:
    """The policy with a tree search; a turn holds what the search would have the policy write, token by token."""

    evaluator: PolicyEvaluator
    rule: TreeRule
    budget: Budget

    def __call__(self, positions: Sequence[Position]) -> list[Turn]:
        """See `Mover`: the trees of all positions of one game grow together."""
        turns: dict[int, Turn] = {}
        for name in sorted({one.game.name for one in positions}):
            rows = [row for row, one in enumerate(positions) if one.game.name == name]
            game = positions[rows[0]].game
            states = [positions[row].state for row in rows]
            trees = search(game, states, [positions[row].key for row in rows], self.evaluator, self.rule, self.budget)
            for row, tree in zip(rows, trees, strict=True):
                index, target = self.rule.move(tree), self.rule.target(tree)
                turn = searched(positions[row], tree.root.moves[index], target, self.evaluator.tokenizer)
                turns[row] = replace(turn, tree=tree, tokens=tree.tokens)
        return [turns[row] for row in range(len(positions))]


def searched(position: Position, move: str, target: np.ndarray, tokenizer: Tokenizer) -> Turn:
    """A move as a turn with the shares `target` [A] of all moves as weights of candidate tokens: at each token, of the
    moves that begin as this one does so far. Log-probs are those of the shares."""
    written = _Written(position, tokenizer)
    wanted = written.tokens.ids[written.tokens.moves.index(move)]
    candidates: list[np.ndarray | None] = []
    weights: list[np.ndarray | None] = []
    while written.write_forced():
        ids = written.tokens.following(written.ids)
        shares = np.array([target[written.tokens.indices([*written.ids, token])].sum() for token in ids])
        shares = shares / shares.sum() if shares.sum() > 0 else np.full(len(ids), 1 / len(ids))
        candidates += [None] * (len(written.ids) - len(candidates))
        weights += [None] * (len(written.ids) - len(weights))
        token = wanted[len(written.ids)]
        candidates.append(np.array(ids, np.int64))
        weights.append(shares.astype(np.float32))
        written.write(token, float(np.log(max(shares[ids.index(token)], LEAST_SHARE))), np.array(ids, np.int64))
    rest = len(written.ids) - len(candidates)
    turn = written.turn()
    return replace(turn, candidates=(*candidates, *[None] * rest), weights=(*weights, *[None] * rest))


def policy_mover(actor: Actor, sampling: SamplingParams, search: TreeSearch | None) -> Mover:
    """The policy among legal moves, with a search or without. Raises ConfigError where a search has no model to ask."""
    if search is None:
        return LegalMover(actor.generator, actor.tokenizer, sampling)
    if actor.chooser is None:
        raise ConfigError("search: there is no model here that could be asked for moves' log-probs")
    return SearchMover(search.evaluator(actor.chooser, actor.tokenizer), search.tree_rule("search"), search.budget)


@dataclass(frozen=True, eq=False)
class BotMover:
    """A scripted opponent."""

    player: Player

    def __call__(self, positions: Sequence[Position]) -> list[Turn]:
        """See `Mover`."""
        return [
            Turn(self.player(one.game, one.state, keyed_random(one.game.name, one.key, one.state.level, "bot")))
            for one in positions
        ]
