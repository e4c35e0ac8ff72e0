"""Texts as a space for tree search: a move is a token or a sampled step, one seat makes all of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from rlpt.errors import ConfigError
from rlpt.search.base import Call, Draft, join, step_params
from rlpt.search.tree import Leaf, Space
from rlpt.tasks.base import keyed_hash
from rlpt.tasks.games.base import OVER
from rlpt.types import Completion, SamplingParams


@dataclass(frozen=True)
class TextState:
    """What was written after the prompt of `row`, and the moves that wrote it: each the ids of its tokens in digits."""

    row: int
    moves: tuple[str, ...] = ()
    ids: tuple[int, ...] = ()
    is_over: bool = False


@dataclass
class TextSpace:
    """`params[row]` says where texts end; `worth(state)` what a finished one returns, in [-1, 1]. With `by_steps` an
    evaluator names the moves (`Leaf.moves`); else they are the legal tokens."""

    params: Sequence[SamplingParams]
    worth: Callable[[TextState], float]
    by_steps: bool = False
    num_players: int = 1

    def player(self, state: TextState) -> int:
        """The one seat, or `OVER`."""
        return OVER if state.is_over else 0

    def legal_moves(self, state: TextState) -> Sequence[str]:
        """Raises ConfigError where moves are tokens and no legal set bounds them."""
        if state.is_over or self.by_steps:
            return ()
        legal = self.params[state.row].legal_ids
        if legal is None:
            raise ConfigError("search mcts: moves: token needs the legal-token mask; set legal_mask: true")
        return tuple(map(str, legal))

    def apply(self, state: TextState, move: str) -> TextState:
        """The text with a move's tokens behind it."""
        params, ids = self.params[state.row], (*state.ids, *map(int, move.split()))
        ended = ids[-1] in params.stop or len(ids) >= params.max_new_tokens
        return TextState(state.row, (*state.moves, move), ids, ended)

    def returns(self, state: TextState) -> Sequence[float]:
        """The one seat's."""
        return (self.worth(state),)

    def same(self, state: TextState) -> None:
        """Each text is read by itself."""
        return None


@dataclass
class TextEvaluator:
    """Judges unfinished texts by a model. Priors: its log-probs of the moves, at the sampler's temperature. Value: the
    judge's word, from [0, 1] (clipped) to [-1, 1], on a completion that was sampled from there (`rollouts`), or on the
    text as it stands. Mutable: keeps each move's log-probs and every finished completion with its value.
    """

    call: Call
    expansions: int  # sampled steps a text; 0: moves are tokens
    max_step: int
    rollouts: bool
    pieces: dict[tuple[int, tuple[int, ...]], Completion] = field(default_factory=dict)  # of the last move, by text
    found: dict[int, list[tuple[float, Completion]]] = field(default_factory=dict)  # by row, in the order of finding
    known: dict[tuple[int, tuple[int, ...]], float] = field(default_factory=dict)  # values of texts that are over

    def __call__(self, space: Space, states: Sequence[TextState], keys: Sequence[int]) -> list[Leaf]:
        """See `Evaluator`. One call of the generator, one of the chooser, and one of the judge."""
        rollouts, steps = self._drafts(states, keys)
        written = iter(self.call.sample([*rollouts.values(), *(draft for _, draft in steps)]))
        finished = {at: self._finished(states[at], draft, next(written)) for at, draft in rollouts.items()}
        sampled: list[list[Completion]] = [[] for _ in states]
        for at, _ in steps:
            sampled[at].append(next(written))
        values = self._values(states, finished)
        moves: list[tuple[np.ndarray, tuple[str, ...] | None]] = [(priors, None) for priors in self._tokens(states)]
        moves += [self._steps(state, found) for state, found in zip(states, sampled) if found]
        costs = [sum(map(len, (one.token_ids for one in found))) for found in sampled]
        for at in rollouts:
            costs[at] += len(finished[at].token_ids) - len(states[at].ids)
        return [
            Leaf(priors, (value,), cost, named)
            for (priors, named), value, cost in zip(moves, values, costs, strict=True)
        ]

    def worth(self, state: TextState) -> float:
        """Of a text that is over, in [-1, 1]; it counts as found."""
        at = (state.row, state.ids)
        if at not in self.known:
            reason = "stop" if state.ids[-1] in self.call.params[state.row].stop else "length"
            completion = join(self._written(state), reason)
            (value,) = self.call.judged([state.row], [completion])
            self.found.setdefault(state.row, []).append((value, completion))
            self.known[at] = _return(value)
        return self.known[at]

    def _drafts(
        self, states: Sequence[TextState], keys: Sequence[int]
    ) -> tuple[dict[int, Draft], list[tuple[int, Draft]]]:
        """Rollouts by state, and (state, step). The rollout from the prompt is the plain completion."""
        rollouts, steps = {}, []
        for at, (state, key) in enumerate(zip(states, keys, strict=True)):
            params, written = self.call.params[state.row], len(state.ids)
            if not state.moves:
                rollouts[at] = self.call.plain(state.row)
            elif self.rollouts:
                left = replace(params, max_new_tokens=params.max_new_tokens - written)
                rollouts[at] = Draft(state.row, state.ids, left, keyed_hash("rollout", key) >> 1)
            step = step_params(params, written, self.max_step, self.call.tokenizer)
            for number in range(self.expansions):
                steps.append((at, Draft(state.row, state.ids, step, keyed_hash("step", key, number) >> 1)))
        return rollouts, steps

    def _finished(self, state: TextState, draft: Draft, rest: Completion) -> Completion:
        return join([*self._written(state), rest], rest.finish_reason)

    def _values(self, states: Sequence[TextState], finished: dict[int, Completion]) -> list[float]:
        """[-1, 1] a state; what was finished counts as found."""
        rows, asked = [states[at].row for at in finished], list(finished.values())
        unfinished = [] if self.rollouts else [join(self._written(state), "length") for state in states]
        judged = self.call.judged([*rows, *(state.row for state in states if unfinished)], [*asked, *unfinished])
        for row, completion, value in zip(rows, asked, judged):
            self.found.setdefault(row, []).append((value, completion))
        return [_return(value) for value in (judged if self.rollouts else judged[len(asked) :])]

    def _steps(self, state: TextState, sampled: list[Completion]) -> tuple[np.ndarray, tuple[str, ...]]:
        """Distinct steps, each with its share of their probability."""
        distinct: dict[tuple[int, ...], Completion] = {}
        for piece in sampled:
            distinct.setdefault(tuple(piece.token_ids.tolist()), piece)
        for ids, piece in distinct.items():
            self.pieces.setdefault((state.row, (*state.ids, *ids)), piece)
        logprobs = np.array([piece.logprobs.sum(dtype=np.float64) for piece in distinct.values()])
        return _shares(logprobs), tuple(" ".join(map(str, ids)) for ids in distinct)

    def _tokens(self, states: Sequence[TextState]) -> list[np.ndarray]:
        """Of each state's legal tokens, by the chooser; nothing where moves are steps."""
        call = self.call
        if self.expansions:
            return []
        if call.chooser is None:
            raise ConfigError(
                "search mcts: moves: token asks the policy for log-probs of given tokens, which it can't be asked for "
                "here; use moves: step"
            )
        if any(params.top_k or params.top_p < 1 for params in call.params):
            raise ConfigError("search mcts: moves: token has no top_k and top_p; leave them off, or use moves: step")
        legal = [call.params[state.row].legal_ids or () for state in states]
        texts = [[*call.prompts[state.row], *state.ids] for state in states]
        priors = []
        for state, ids, given in zip(states, legal, call.chooser(texts, legal)[0], strict=True):
            shares = _shares(given.astype(np.float64) / (call.params[state.row].temperature or 1.0))
            with np.errstate(divide="ignore"):
                logprobs = np.log(shares).astype(np.float32)
            kept = (np.array(sorted(ids)),)
            for token, logprob in zip(ids, logprobs):
                piece = Completion(np.array([token], np.int64), np.array([logprob]), "length", kept)
                self.pieces.setdefault((state.row, (*state.ids, token)), piece)
            priors.append(shares)
        return priors

    def _written(self, state: TextState) -> list[Completion]:
        """The moves of a text as the pieces that they were sampled as."""
        pieces, ids = [], state.ids
        for move in reversed(state.moves):
            pieces.append(self.pieces[state.row, ids])
            ids = ids[: len(ids) - len(move.split())]
        return pieces[::-1]


def _shares(logprobs: np.ndarray) -> np.ndarray:
    weights = np.exp(logprobs - logprobs.max())
    return weights / weights.sum()


def _return(value: float) -> float:
    return 2 * min(max(value, 0.0), 1.0) - 1
