"""Generators that need no model: one answers by a script, one at random within the legal set."""

import random
from collections.abc import Callable, Sequence

import numpy as np

from rlpt.template import encode_marked
from rlpt.types import Completion, SamplingParams


def completed(ids: Sequence[int], params: SamplingParams, logprob: float = -1.0) -> Completion:
    """`ids` cut at the first stop token or the length limit, each with the same log-prob and the legal set kept."""
    kept: list[int] = []
    reason = "length"
    for token in ids[: params.max_new_tokens]:
        kept.append(int(token))
        if token in params.stop:
            reason = "stop"
            break
    sets = None if params.legal_ids is None else tuple(np.array(params.legal_ids) for _ in kept)
    return Completion(np.array(kept, np.int64), np.full(len(kept), logprob, np.float32), reason, sets)


class ScriptedGenerator:
    """Answers row i with the marked text `script(prompt text, i)`; remembers the calls it got."""

    def __init__(self, tokenizer, script: Callable[[str, int], str]) -> None:
        self.tokenizer, self.script = tokenizer, script
        self.calls: list[tuple[list[list[int]], list[SamplingParams], list[int]]] = []

    def __call__(self, prompts, params, keys) -> list[Completion]:
        self.calls.append(([list(p) for p in prompts], list(params), list(keys)))
        return [
            completed(encode_marked(self.tokenizer, self.script(self.tokenizer.decode(prompt), row)), sampling)
            for row, (prompt, sampling) in enumerate(zip(prompts, params, strict=True))
        ]


class RandomGenerator:
    """Uniform over the legal set at every token, each row's draws keyed by its key alone."""

    def __call__(self, prompts, params, keys) -> list[Completion]:
        completions = []
        for _, sampling, key in zip(prompts, params, keys, strict=True):
            rng = random.Random(key)
            ids = [rng.choice(sampling.legal_ids) for _ in range(sampling.max_new_tokens)]
            completions.append(completed(ids, sampling, -float(np.log(len(sampling.legal_ids)))))
        return completions
