"""Torch-free nouns of the project and the protocols across its border."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

import numpy as np


@dataclass(frozen=True)
class Problem:
    """One task instance, rebuilt from `(task, seed, level)` alone."""

    task: str
    seed: int
    level: int
    prompt: str
    answer: str
    meta: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class SamplingParams:
    """How a Generator samples. `legal_ids` limits every sampled token to these ids (None: the whole vocabulary).

    Where `top_k`/`top_p` or a legal set is on, the recorded log-probs are those of the renormalised sampler.
    `temperature` 0 is greedy (its log-probs are then those at temperature 1 within the kept set).
    """

    max_new_tokens: int = 16
    temperature: float = 1.0
    top_k: int = 0  # 0: off
    top_p: float = 1.0  # 1: off
    stop: tuple[int, ...] = ()  # token ids that end a completion (kept as its last token)
    legal_ids: tuple[int, ...] | None = None
    seed: int = 0


@dataclass(frozen=True)
class Completion:
    """What a Generator returns for one prompt; the stop token, when sampled, is the last of `token_ids`."""

    token_ids: np.ndarray  # [n] int64
    logprobs: np.ndarray  # [n] float32, of the sampler at its temperature
    finish_reason: str  # "stop" | "length"
    kept_ids: tuple[np.ndarray, ...] | None = None  # n sorted id arrays: the set that each token was drawn from
    certainty: np.ndarray | None = None  # [n] f32: KL(uniform || sampler) over the set that each token was drawn from
    context: np.ndarray | None = None  # [m] i64: what a search let the policy read between the prompt and these tokens


@dataclass
class Trajectory:
    """One role's view of one episode. `peers` is the id of the set that it is compared with."""

    role: str
    peers: int
    token_ids: np.ndarray  # [L] int64, prompt and completion
    action_mask: np.ndarray  # [L] bool, True where the policy chose the token
    logprobs: np.ndarray  # [L] float32, the sampler's; 0 off the action mask
    temperature: float = 1.0
    kept_ids: tuple[np.ndarray | None, ...] | None = None  # L entries; None: the whole vocabulary was open
    windows: tuple[tuple[int, int], ...] | None = None  # (start, stop): the actions up to `stop` (and after the window
    # before) were chosen from tokens [start, ...); None: from all that stood before them
    evidence_mask: np.ndarray | None = None  # [L] bool: given text that a thought before it is judged by; no actions
    well_formed: float = 1.0  # share of its turns that had the shape asked for
    truncated: bool = False
    cut: str = ""  # the budget that cut it short: "tokens" | "calls" | "time"; it is truncated then
    policy_step: int = 0  # optimizer steps that the weights which sampled it had done: those of its last action
    policy_steps: np.ndarray | None = (
        None  # [L] int64, 0 off the action mask, where its turns were sampled by different
    )
    # weights
    candidates: tuple[np.ndarray | None, ...] | None = None  # L entries: ids that a search weighed up in place of the
    # token; None: nothing was searched there
    candidate_weights: tuple[np.ndarray | None, ...] | None = None  # L entries of f32, of the same shapes
    outcome: float | None = None  # the verifier's score of this one alone, where several of an episode share a role
    reward: float = 0.0  # of the whole trajectory, whatever `token_rewards` says of where it falls
    rewards: dict[str, float] = field(default_factory=dict)  # the rubric's parts, unweighted
    token_rewards: np.ndarray | None = (
        None  # [L] f64: parts of `reward` that fall on certain actions; the rest falls on
    )
    # the last action
    ref_logprobs: np.ndarray | None = None  # [L] f32 of a snapshot, 0 off the action mask
    values: np.ndarray | None = None  # [L] f32, the value head's, of the state before each action; 0 off the mask
    advantage: float = 0.0  # of every action, where `token_advantages` does not say otherwise
    token_advantages: np.ndarray | None = None  # [L] f32
    returns: np.ndarray | None = None  # [L] f32: what the value head should have said


@dataclass
class Episode:
    """One play of one problem by one or more roles."""

    problem: Problem
    trajectories: list[Trajectory]  # none: the problem goes on in a later play, and `note` says how far it is
    outcome: dict[str, float] = field(default_factory=dict)  # role -> verifier's score in [0, 1]
    text: str = ""  # the completion, decoded (for logs)
    is_measured: bool = True  # whether its outcome says how hard the problem was: not where one policy held all seats
    note: Any = None  # JSON-able: what the form's memory takes in of it
    searched: tuple[int, int] = (0, 0)  # tokens that a search had generated, and read before them, for this episode
    # beyond those of its trajectories

    def outcome_of(self, trajectory: Trajectory) -> float:
        """The verifier's score of the trajectory: its own, or else its role's. Raises KeyError where there is none."""
        return self.outcome[trajectory.role] if trajectory.outcome is None else trajectory.outcome


@runtime_checkable
class Generator(Protocol):
    """Prompts in, completions out. The policy, search and scripted test players all are one.

    `keys[i]` (any 64-bit integer) names row i's noise: the same key and seed give the same draws at any batch size.
    """

    def __call__(
        self, prompts: Sequence[Sequence[int]], params: Sequence[SamplingParams], keys: Sequence[int]
    ) -> list[Completion]: ...


@runtime_checkable
class SessionGenerator(Protocol):
    """A Generator that can keep what it computed of a call's texts for the next call, whose prompts go on from them.

    The weights must stay as they are in the session; what it draws is what the generator itself would draw.
    """

    def session(self) -> AbstractContextManager[Generator]: ...


@runtime_checkable
class Scorer(Protocol):
    """N texts (ids [L]) and the masks [L] of the tokens to score -> N arrays [L] f32 of log-probs at temperature 1 over
    the whole vocabulary, 0 off the mask; what a reward that needs the model asks. The first token can't be scored."""

    def __call__(self, token_ids: Sequence[np.ndarray], masks: Sequence[np.ndarray]) -> list[np.ndarray]: ...


@runtime_checkable
class Chooser(Protocol):
    """N texts (ids [L]) and the ids [K] that may come after each -> N arrays [K] f32 of their log-probs, renormalised
    over them, and the value head's word [N] f32 on the states there (None without a head)."""

    def __call__(
        self, texts: Sequence[Sequence[int]], candidates: Sequence[Sequence[int]]
    ) -> tuple[list[np.ndarray], np.ndarray | None]: ...


@runtime_checkable
class Tokenizer(Protocol):
    """Text <-> ids. `encode` never yields a template mark, whatever the text holds; marks come from `mark_id`."""

    vocab_size: int
    pad_id: int
    eos_id: int

    def encode(self, text: str) -> list[int]: ...

    def encode_characters(self, text: str) -> list[int]:
        """One token a character (byte pieces where a character has none)."""
        ...

    def decode(self, ids: Sequence[int]) -> str: ...

    def decode_bytes(self, ids: Sequence[int]) -> bytes:
        """The bytes that the ids stand for, marks left out: what `decode` shows, even where it ends inside a
        character."""
        ...

    def mark_id(self, mark: str) -> int: ...

    def __hash__(self) -> int: ...
