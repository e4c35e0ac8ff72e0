"""The policy as a Generator: batched, KV-cached, in place. Every tensor rank runs it and draws the same tokens."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch

from rlpt.rollout.continuation import Texts
from rlpt.rollout.continuous_batching import ContinuousBatch, Meanwhile
from rlpt.rollout.requests import Requests
from rlpt.types import Completion, Generator, SamplingParams

LONG = 8  # tokens a completion may have from which on weights are laid out for decoding: that costs about two steps


class PolicyGenerator:
    """Samples completions from a `models.policy.Policy`.

    At most `max_rows` rows decode together and the others wait for their slots: the KV cache holds `max_rows` of the
    longest text, and once more the prompts that are being read, or in a session the texts of the call before.
    """

    def __init__(self, policy: Any, max_rows: int = 512) -> None:
        self.policy = policy
        self.max_rows = max_rows
        self.meanwhile: Meanwhile | None = None

    @torch.inference_mode()
    def __call__(
        self, prompts: Sequence[Sequence[int]], params: Sequence[SamplingParams], keys: Sequence[int]
    ) -> list[Completion]:
        """One completion a prompt; row i's noise is keyed by (params[i].seed, keys[i], position)."""
        if not prompts:
            return []
        requests = self.requests(prompts, params, keys)
        decoder = self.policy.decoder(requests.longest >= LONG)
        ContinuousBatch(decoder, requests, self.max_rows, meanwhile=self.meanwhile).run()
        return requests.completions()

    def requests(
        self, prompts: Sequence[Sequence[int]], params: Sequence[SamplingParams], keys: Sequence[int]
    ) -> Requests:
        """The tables of a call."""
        assert len(prompts) == len(params) == len(keys), "one SamplingParams and one key a prompt"
        return Requests(prompts, params, keys, self.policy.vocab_size, self.policy.device.torch_device)

    @contextmanager
    def beside(self, work: Callable[[], None], share: float) -> Iterator[None]:
        """Inside, `work` is called after each decode step that no more than `share` of a call's rows are left for.

        It must leave the weights as they are. All tensor-parallel ranks call it after the same steps.
        """
        self.meanwhile = Meanwhile(work, share)
        try:
            yield
        finally:
            self.meanwhile = None

    @contextmanager
    def session(self) -> Iterator[Generator]:
        """Calls each of which goes on from the texts of the call before (a `SessionGenerator`'s)."""
        session = _Session(self)
        yield session
        session.texts = Texts()


class _Session:
    """Runs only what a prompt has beyond a text of the last call, be it a prompt or what was drawn after it."""

    def __init__(self, generator: PolicyGenerator) -> None:
        self.generator = generator
        self.texts = Texts()
        self.decoder: Any = None

    @torch.inference_mode()
    def __call__(
        self, prompts: Sequence[Sequence[int]], params: Sequence[SamplingParams], keys: Sequence[int]
    ) -> list[Completion]:
        """As the generator's. A call of more than its `max_rows` prompts keeps nothing and goes on from nothing."""
        if not 0 < len(prompts) <= self.generator.max_rows:
            self.texts = Texts()
            return self.generator(prompts, params, keys)
        if self.decoder is None:
            self.decoder = self.generator.policy.decoder(is_long=True)
        requests = self.generator.requests(prompts, params, keys)
        generator = self.generator
        batch = ContinuousBatch(self.decoder, requests, generator.max_rows, self.texts, generator.meanwhile)
        batch.run()
        self.texts = batch.texts()
        return requests.completions()
