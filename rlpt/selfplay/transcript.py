"""One episode of several turns under way, and the memory of problems whose episodes go on in a later play.

What waits is kept as the turns that were taken. The rest of a transcript is what the environment shows, and
environments are pure: the turns' texts, replayed, give the same observations and the same tokens.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from rlpt.selfplay import id_sets
from rlpt.selfplay.base import ROLE, Waiting
from rlpt.tasks.base import capped
from rlpt.tasks.environments.base import Environment, Observation, opening_text, shown_text
from rlpt.template import encode_marked
from rlpt.types import Completion, Episode, Problem, Tokenizer, Trajectory


@dataclass(frozen=True)
class Turn:
    """What the policy wrote in one turn, chosen from tokens [start, ...) of its transcript."""

    start: int
    completion: Completion
    policy_step: int  # of the weights that wrote it

    def state(self) -> dict[str, Any]:
        """JSON-able and exact."""
        completion = self.completion
        return {
            "start": self.start,
            "policy_step": self.policy_step,
            "token_ids": completion.token_ids.tolist(),
            "logprobs": completion.logprobs.tolist(),
            "finish_reason": completion.finish_reason,
            "kept": id_sets.encoded(completion.kept_ids),
        }

    @classmethod
    def from_state(cls, state: Mapping[str, Any]) -> Turn:
        """The turn that `state` was taken of."""
        kept: Any = id_sets.decoded(state["kept"])
        token_ids, logprobs = np.array(state["token_ids"], np.int64), np.array(state["logprobs"], np.float32)
        completion = Completion(token_ids, logprobs, state["finish_reason"], kept)
        return cls(state["start"], completion, state["policy_step"])


@dataclass
class Transcript:
    """One episode under way. Append-only, and never encoded again: each turn's tokens are those that were drawn."""

    environment: Environment
    problem: Problem
    key: int
    sample: int
    tokenizer: Tokenizer
    cut: str = ""  # the budget that ended it
    num_well_formed: int = 0
    turns: list[Turn] = field(default_factory=list)
    tokens: list[int] = field(default_factory=list)
    logprobs: list[float] = field(default_factory=list)
    is_action: list[bool] = field(default_factory=list)
    kept: list[np.ndarray | None] = field(default_factory=list)
    windows: list[tuple[int, int]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.observation: Observation = self.environment.begin(self.problem)
        self._show(encode_marked(self.tokenizer, opening_text(self.environment, self.observation)))

    def take_turn(self, turn: Turn) -> None:
        """Writes the turn, and what the environment shows after it; one that is ill-formed is used up."""
        completion = turn.completion
        drawn = completion.token_ids.tolist()
        ended = completion.finish_reason == "stop"
        text = self.tokenizer.decode(drawn[:-1] if ended else drawn)
        self.tokens += drawn
        self.logprobs += completion.logprobs.tolist()
        self.is_action += [True] * len(drawn)
        self.kept += [None] * len(drawn) if completion.kept_ids is None else completion.kept_ids
        if self.windows and self.windows[-1][0] == turn.start:
            self.windows.pop()
        self.windows.append((turn.start, len(self.tokens)))
        self.turns.append(turn)
        self.num_well_formed += ended and self.environment.is_well_formed(self.observation, text)
        self.observation = self.environment.act(self.observation, text if ended else "")
        if not self.observation.done:
            self._show(encode_marked(self.tokenizer, shown_text(self.observation)))

    def _show(self, ids: list[int]) -> None:
        self.tokens += ids
        self.logprobs += [0.0] * len(ids)
        self.is_action += [False] * len(ids)
        self.kept += [None] * len(ids)

    def episode(self, temperature: float, policy_step: int) -> Episode:
        """The role's outcome is the environment's score, 0 where a budget cut it short. `policy_step` is that of the
        play which ends it; it counts where no turn was taken."""
        length = self.windows[-1][1] if self.windows else len(self.tokens)  # nothing is learned from what came after
        actions = np.array(self.is_action[:length], bool)
        steps = {turn.policy_step for turn in self.turns}
        trajectory = Trajectory(
            role=ROLE,
            peers=self.key,
            token_ids=np.array(self.tokens[:length], np.int64),
            action_mask=actions,
            logprobs=np.array(self.logprobs[:length], np.float32),
            temperature=temperature,
            kept_ids=tuple(self.kept[:length]) if any(ids is not None for ids in self.kept) else None,
            windows=None if all(start == 0 for start, _ in self.windows) else tuple(self.windows),
            well_formed=self.num_well_formed / max(1, len(self.turns)),
            truncated=bool(self.cut),
            cut=self.cut,
            policy_step=self.turns[-1].policy_step if self.turns else policy_step,
            policy_steps=self._policy_steps(actions) if len(steps) > 1 else None,
        )
        score = capped(self.observation.score) if self.observation.done else 0.0
        return Episode(self.problem, [trajectory], {ROLE: score}, self.tokenizer.decode(self.tokens))

    def _policy_steps(self, actions: np.ndarray) -> np.ndarray:
        steps = np.zeros(len(actions), np.int64)
        steps[actions] = [turn.policy_step for turn in self.turns for _ in turn.completion.token_ids]
        return steps


@dataclass
class Unfinished:
    """A `Memory`: the problems that go on, with the turns of each of their episodes, oldest first."""

    notes: list[dict[str, Any]] = field(default_factory=list)

    def record(self, notes: Sequence[Any], policy_step: int) -> None:
        """Whatever waited was in the play, so what waits now is what it left."""
        self.notes = [note for note in notes if note is not None]

    def waiting(self) -> list[Waiting]:
        """The problems."""
        return [Waiting(note["key"], note["task"], note["seed"], note["level"]) for note in self.notes]

    def samples(self, key: int) -> list[list[Turn]] | None:
        """The turns of each episode of the problem; None for one that was not begun."""
        found = next((note["samples"] for note in self.notes if note["key"] == key), None)
        return None if found is None else [[Turn.from_state(turn) for turn in turns] for turns in found]

    def metrics(self) -> dict[str, float]:
        """How many problems wait."""
        return {"unfinished": float(len(self.notes))}

    def state_dict(self) -> dict[str, Any]:
        """JSON-able and exact."""
        return {"problems": list(self.notes)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Goes on where `state_dict` was taken."""
        self.notes = list(state["problems"])


def unfinished(group: Sequence[Transcript]) -> Episode:
    """What a play returns for a problem that goes on, given its transcripts."""
    first = group[0]
    note = {
        "key": first.key,
        "task": first.problem.task,
        "seed": first.problem.seed,
        "level": first.problem.level,
        "samples": [[turn.state() for turn in one.turns] for one in group],
    }
    return Episode(first.problem, [], note=note, is_measured=False)
