"""Rollouts against the size of a group, the length of a response and the turns of a conversation.

The weights are laid out for decoding before a run begins, so that time and memory are those of reading and drawing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from rlpt.bench.generation import Shape, random_prompts
from rlpt.bench.growth.curves import Axis, Way
from rlpt.bench.growth.laws import cache_bytes, kept_turns_flops, reread_turns_flops, rollout_flops
from rlpt.models.policy import Policy
from rlpt.rollout.generator import PolicyGenerator
from rlpt.types import Completion, Generator, SamplingParams

_OTHER_TEXT = [[0]]  # what no prompt begins with: `random_prompts` has no id 0


@dataclass(frozen=True)
class Sizes:
    """Lengths in tokens, and the sizes of each axis."""

    group_prompt: int = 256
    group_new: int = 32
    groups: Sequence[int] = (1, 4, 16, 64)
    rows: int = 8  # of responses and of conversations
    response_prompt: int = 16
    responses: Sequence[int] = (16, 64, 256, 1024)
    turn_given: int = 16
    turn_new: int = 16
    turns: Sequence[int] = (1, 2, 4, 8, 16)


@dataclass(frozen=True)
class Rollouts:
    """What is played."""

    policy: Policy
    shape: Shape
    sizes: Sizes

    def held(self, tokens: float) -> float:
        """Bytes of the keys and values of so many tokens."""
        return cache_bytes(self.shape, tokens, self.policy.device.dtype.itemsize)

    def prompts(self, count: int, length: int) -> list[list[int]]:
        """Random prompts of one length, no two alike."""
        return random_prompts(count, length, length, self.shape.vocab_size)

    def subject(self) -> str:
        """The model in words."""
        dtype = str(self.policy.device.dtype).removeprefix("torch.")
        return f"{self.shape.describe()}, {dtype}"


def group(play: Rollouts) -> Axis:
    """Samples of one prompt, which is read once; and of prompts of the same length that are all different."""
    prompt, new = play.sizes.group_prompt, play.sizes.group_new

    def way(name: str, is_shared: bool) -> Way:
        def prompts(size: int) -> list[list[int]]:
            return play.prompts(1, prompt) * size if is_shared else play.prompts(size, prompt)

        def readings(size: int) -> int:
            return 1 if is_shared else size

        return Way(
            name,
            lambda size: _rollout(play.policy, prompts(size), new),
            lambda size: rollout_flops(play.shape, prompt, new, readings(size), size),
            lambda size: play.held(size * (prompt + new) + readings(size) * prompt),
        )

    ways = (way("prompt read once", True), way("prompt read by each", False))
    return Axis(
        "group",
        "Group size",
        "samples of a prompt",
        f"{play.subject()}; prompt of {prompt} tokens, {new} new ones each",
        (
            "time: operations of P + G (N - 1) tokens, and of G (P + N - 1). memory: keys and values of a slot a "
            "sample, and of what is read.",
        ),
        ways,
        play.sizes.groups,
    )


def response(play: Rollouts) -> Axis:
    """Longer responses: tokens, and what each of them attends to."""
    prompt, rows = play.sizes.response_prompt, play.sizes.rows
    prompts = play.prompts(rows, prompt)
    way = Way(
        "rlpt",
        lambda size: _rollout(play.policy, prompts, size),
        lambda size: rollout_flops(play.shape, prompt, size, rows, rows),
        lambda size: play.held(rows * (prompt + size + prompt)),
    )
    return Axis(
        "response",
        "Response length",
        "new tokens",
        f"{play.subject()}; {rows} rows, prompts of {prompt} tokens",
        ("time: operations, linear in the tokens but for attention, which is quadratic. memory: keys and values.",),
        (way,),
        play.sizes.responses,
    )


def turns(play: Rollouts) -> Axis:
    """A conversation that goes on from its caches, and one that reads all before each turn."""
    given, new, rows = play.sizes.turn_given, play.sizes.turn_new, play.sizes.rows
    both = given + new

    def texts(size: int) -> list[list[list[int]]]:
        pieces = play.prompts(rows * size, given)
        return [pieces[turn * rows : (turn + 1) * rows] for turn in range(size)]

    def read(size: int) -> float:
        return play.held(rows * (2 * size * both - new))

    def kept(size: int) -> float:
        return read(size) + play.held(rows * (size - 1) * both)

    ways = (
        Way(
            "caches kept",
            lambda size: _conversation(play.policy, texts(size), new, forgets=False),
            lambda size: rows * kept_turns_flops(play.shape, size, given, new),
            kept,
        ),
        Way(
            "history read each turn",
            lambda size: _conversation(play.policy, texts(size), new, forgets=True),
            lambda size: rows * reread_turns_flops(play.shape, size, given, new),
            read,
        ),
    )
    return Axis(
        "turns",
        "Turns",
        "turns",
        f"{play.subject()}; {rows} conversations, turns of {given} tokens given and {new} new",
        (
            f"time: operations of {both} k - 1 tokens, and of {both} k (k + 1) / 2 - k. memory: keys and "
            "values of a slot a row, and of what is read; where they are kept, of the turn before, too.",
        ),
        ways,
        play.sizes.turns,
    )


def converse(
    generator: Generator, given: Sequence[Sequence[Sequence[int]]], new: int, forgets: bool
) -> list[list[int]]:
    """given [turns][rows] texts -> each row's whole text. With `forgets` another text takes the place of what the
    session keeps, before each turn."""
    texts: list[list[int]] = [[] for _ in given[0]]
    for pieces in given:
        if forgets:
            generator(_OTHER_TEXT, [SamplingParams(1)], [0])
        for text, piece in zip(texts, pieces, strict=True):
            text.extend(piece)
        for text, completion in zip(texts, _draw(generator, texts, new), strict=True):
            text.extend(completion.token_ids.tolist())
    return texts


def _draw(generator: Generator, prompts: Sequence[Sequence[int]], new: int) -> list[Completion]:
    return generator(prompts, [SamplingParams(new)] * len(prompts), range(len(prompts)))


@contextmanager
def _rollout(policy: Policy, prompts: list[list[int]], new: int) -> Iterator[Callable[[], Any]]:
    with _ready(policy, len(prompts)) as generator:
        yield lambda: _draw(generator, prompts, new)


@contextmanager
def _conversation(policy: Policy, given: list[list[list[int]]], new: int, forgets: bool) -> Iterator[Callable[[], Any]]:
    with _ready(policy, len(given[0])) as generator:
        yield lambda: converse(generator, given, new, forgets)


@contextmanager
def _ready(policy: Policy, rows: int) -> Iterator[Generator]:
    """A session whose weights are laid out, and which remembers nothing that a prompt begins with."""
    with PolicyGenerator(policy, rows).session() as generator:
        generator(_OTHER_TEXT, [SamplingParams(1)], [0])
        yield generator
