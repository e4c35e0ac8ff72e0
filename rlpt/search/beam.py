"""Beam search over reasoning steps: of the steps sampled after each partial solution those stay that a judge of partial
solutions likes best (Yao et al. 2305.10601, breadth first; Snell et al. 2408.03314, section 5)."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from rlpt.errors import ConfigError
from rlpt.registry import register
from rlpt.search.base import NOTHING, Call, Draft, Search, is_over, is_stopped_at, join, step_params
from rlpt.tasks.base import keyed_hash
from rlpt.types import Completion


@dataclass
class _Beam:
    """A row's partial and finished solutions, best first. Mutable: rounds replace them."""

    held: list[tuple[float, Completion, int]]  # its value, and in how many rounds no step made it better
    latest: Completion = NOTHING  # the best of the last round
    round: int = 0

    def holds(self, ids: tuple[int, ...]) -> bool:
        """Whether this solution is one of them."""
        return any(tuple(one.token_ids.tolist()) == ids for _, one, _ in self.held)


@register("search", "beam")
@dataclass(frozen=True)
class Beam(Search):
    """`width` solutions are kept, of `expansions` steps sampled after each of those that are not finished.

    A step ends at whitespace, at the answer mark, where the completion ends, or after `max_step` tokens (0: no limit).
    After a round, a solution gives way to its continuations; with `retries` it stays for so many rounds more and is
    continued again, where none of them is better: a verifier tells a dead end from one that was only unlucky.
    Equal solutions count once; ties go to the first. A finished solution stays while it is among the best, and the
    search ends when all that are kept are finished. Returned is the best finished one; the best of all where the budget
    left none; the plain completion where it does not even do for the first steps. With a width and expansions of 1
    there is nothing to choose, and it is the plain completion.
    """

    judge: dict[str, Any] = field(default_factory=lambda: {"name": "steps"})
    width: int = 4
    expansions: int = 4
    max_step: int = 0
    retries: int = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        for key, least in {"width": 1, "expansions": 1, "max_step": 0, "retries": 0}.items():
            if getattr(self, key) < least:
                raise ConfigError(f"{key}={getattr(self, key)}: must be at least {least}")

    def run(self, call: Call) -> list[Completion]:
        """A round asks for a step after every unfinished solution of every row."""
        if self.width == self.expansions == 1:
            return call.sample([call.plain(row) for row in range(len(call.prompts))])
        rows = range(len(call.prompts))
        opening = call.judged(rows, [NOTHING for _ in rows]) if self.retries else [0.0 for _ in rows]
        beams = [_Beam([(value, NOTHING, 0)]) for value in opening]
        while drafts := [draft for row in range(len(beams)) for draft in self._round(call, row, beams[row])]:
            fresh: list[dict[tuple[int, ...], Completion]] = [{} for _ in beams]
            parents = [_parents(call, row, beam) for row, beam in enumerate(beams)]
            for draft, piece in zip(drafts, call.sample(drafts), strict=True):
                ids = (*draft.after, *piece.token_ids.tolist())
                if ids not in fresh[draft.row] and not beams[draft.row].holds(ids):
                    reason = "stop" if is_stopped_at(piece, call.params[draft.row]) else "length"
                    fresh[draft.row][ids] = join([parents[draft.row][draft.after], piece], reason)
            self._keep(call, beams, fresh)
        return [self._best(call, row, beam) for row, beam in enumerate(beams)]

    def _round(self, call: Call, row: int, beam: _Beam) -> list[Draft]:
        params, live = call.params[row], _parents(call, row, beam)
        drafts = [
            Draft(
                row,
                after,
                step_params(params, len(after), self.max_step, call.tokenizer),
                keyed_hash("beam", call.keys[row], beam.round, place, number) >> 1,
            )
            for place, after in enumerate(live)
            for number in range(self.expansions if beam.round else self.width * self.expansions)
        ]
        most = sum(draft.params.max_new_tokens for draft in drafts)
        if 0 < self.tokens < call.generated[row] + most:
            return [] if beam.round else [call.plain(row)]
        return drafts

    def _keep(self, call: Call, beams: list[_Beam], fresh: list[dict[tuple[int, ...], Completion]]) -> None:
        rows = [row for row, solutions in enumerate(fresh) for _ in solutions]
        values = iter(call.judged(rows, [one for solutions in fresh for one in solutions.values()]))
        for row, (beam, solutions) in enumerate(zip(beams, fresh, strict=True)):
            if not solutions:
                continue
            stay = [
                (value, one, tries if is_over(one, call.params[row]) else tries + 1)
                for value, one, tries in beam.held
                if is_over(one, call.params[row]) or tries < self.retries
            ]
            judged = [(value, one, 0) for one, value in zip(solutions.values(), values)]
            best = sorted([*stay, *judged], key=lambda held: -held[0])
            beam.latest = max(judged, key=lambda held: held[0])[1]
            beam.held, beam.round = best[: self.width], beam.round + 1

    def _best(self, call: Call, row: int, beam: _Beam) -> Completion:
        finished = [one for _, one, _ in beam.held if is_over(one, call.params[row])]
        best = finished[0] if finished else beam.held[0][1]
        return best if len(best.token_ids) else beam.latest


def _parents(call: Call, row: int, beam: _Beam) -> dict[tuple[int, ...], Completion]:
    """What is not finished yet, by its tokens, best first."""
    live = [one for _, one, _ in beam.held if not is_over(one, call.params[row])]
    return {tuple(one.token_ids.tolist()): one for one in live}
