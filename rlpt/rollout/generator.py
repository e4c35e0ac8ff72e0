"""The policy as a Generator: batched, KV-cached, in place. Every tensor rank runs it and draws the same tokens."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor

from rlpt.rollout.continuation import Texts
from rlpt.rollout.sampling import certainty, draw, kept_logprobs, keyed_uniform
from rlpt.types import Completion, Generator, SamplingParams

COMPACT_BELOW = 0.5  # live share of a batch's rows under which finished rows are dropped


class PolicyGenerator:
    """Samples completions from a `models.policy.Policy`. `max_rows` bounds the KV cache, twice over in a session."""

    def __init__(self, policy: Any, max_rows: int = 512) -> None:
        self.policy = policy
        self.max_rows = max_rows

    @torch.no_grad()
    def __call__(
        self, prompts: Sequence[Sequence[int]], params: Sequence[SamplingParams], keys: Sequence[int]
    ) -> list[Completion]:
        """One completion a prompt; row i's noise is keyed by (params[i].seed, keys[i], position)."""
        assert len(prompts) == len(params) == len(keys), "one SamplingParams and one key a prompt"
        completions: list[Completion] = []
        for start in range(0, len(prompts), self.max_rows):
            part = slice(start, start + self.max_rows)
            completions += _Rows(self.policy, prompts[part], params[part], keys[part]).run()
        return completions

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

    @torch.no_grad()
    def __call__(
        self, prompts: Sequence[Sequence[int]], params: Sequence[SamplingParams], keys: Sequence[int]
    ) -> list[Completion]:
        """As the generator's. A call of more than its `max_rows` prompts keeps nothing and goes on from nothing."""
        if not 0 < len(prompts) <= self.generator.max_rows:
            self.texts = Texts()
            return self.generator(prompts, params, keys)
        rows = _Rows(self.generator.policy, prompts, params, keys, self.texts)
        completions = rows.run()
        self.texts = rows.texts(prompts)
        return completions


class _Rows:
    """One batch of rows that decode together; `alive` maps the cache's rows to the prompts they continue."""

    def __init__(
        self,
        policy: Any,
        prompts: Sequence[Sequence[int]],
        params: Sequence[SamplingParams],
        keys: Sequence[int],
        before: Texts | None = None,
    ) -> None:
        """`before`: texts to go on from; then the rows' own are kept, too."""
        device = policy.device.torch_device
        rows, longest = len(prompts), max(item.max_new_tokens for item in params)
        self.policy, self.params, self.device = policy, params, device
        self.alive = torch.arange(rows, device=device)
        self.temperature = torch.tensor([item.temperature for item in params], device=device)
        self.top_k = torch.tensor([item.top_k for item in params], device=device)
        self.top_p = torch.tensor([item.top_p for item in params], device=device)
        self.limit = torch.tensor([item.max_new_tokens for item in params], device=device)
        self.seeds = np.array([item.seed & 0xFFFFFFFFFFFFFFFF for item in params], dtype=np.uint64)
        self.keys = np.array([key & 0xFFFFFFFFFFFFFFFF for key in keys], dtype=np.uint64)
        self.stop_table, self.stop_index = _id_sets([item.stop for item in params], policy.vocab_size, device)
        self.legal_ids = [None if p.legal_ids is None else np.array(sorted(set(p.legal_ids))) for p in params]
        legal_sets = [item.legal_ids for item in params]
        self.is_masked = any(ids is not None for ids in legal_sets)
        self.legal_table, self.legal_index = _id_sets(legal_sets, policy.vocab_size, device)
        self.is_filtered = [item.top_k > 0 or item.top_p < 1 for item in params]
        self.tokens = torch.zeros(rows, longest, dtype=torch.int64, device=device)
        self.logprobs = torch.zeros(rows, longest, device=device)
        self.certainty = torch.zeros(rows, longest, device=device)
        self.length = torch.zeros(rows, dtype=torch.int64, device=device)
        self.stopped = torch.zeros(rows, dtype=torch.bool, device=device)
        self.kept: list[list[np.ndarray | None]] = [[] for _ in range(rows)]
        self.keeps = before is not None
        self.rested: list[tuple[Any, Tensor]] = []  # (keys and values, the prompts they continue) of rows dropped
        self.state, self.logits = self._prefill(prompts, longest, before)

    def _prefill(self, prompts: Sequence[Sequence[int]], longest: int, before: Texts | None) -> tuple[Any, Tensor]:
        """Each distinct prompt runs once; its cache rows are then repeated for its samples."""
        unique: dict[tuple[int, ...], int] = {}
        owner = [unique.setdefault(tuple(prompt), len(unique)) for prompt in prompts]
        width = max(map(len, unique))
        tokens = torch.zeros(len(unique), width, dtype=torch.int64)
        for prompt, row in unique.items():
            tokens[row, width - len(prompt) :] = torch.tensor(prompt)
        lengths = torch.tensor([len(prompt) for prompt in unique])
        known = before.find(list(unique), self.device) if before else []
        given = tokens.to(self.device), lengths.to(self.device), width + longest
        state, logits = self.policy.prefill(*given, known) if known else self.policy.prefill(*given)
        index = torch.tensor(owner, device=self.device)
        return state.select(index), logits[index]

    def run(self) -> list[Completion]:
        for position in range(self.tokens.shape[1]):
            drawn, done = self._draw(position)
            if bool(done.all()):
                break
            live = ~done
            if float(live.float().mean()) < COMPACT_BELOW:
                rows = live.nonzero().squeeze(1)
                if self.keeps:
                    dropped = done.nonzero().squeeze(1)
                    self.rested.append((self.state.rest(dropped), self.alive[dropped]))
                self.alive, drawn, self.state = self.alive[rows], drawn[rows], self.state.select(rows)
            self.logits = self.state.step(drawn)
        return self._completions()

    def texts(self, prompts: Sequence[Sequence[int]]) -> Texts:
        """What the cache holds of the prompts and of what was drawn, the last of which never ran."""
        texts = Texts()
        for rested, index in [*self.rested, (self.state.rest(), self.alive)]:
            rows = index.tolist()
            drawn = [self.tokens[row, : max(0, int(self.length[row]) - 1)].tolist() for row in rows]
            texts.add(rested, [[*prompts[row], *ids] for row, ids in zip(rows, drawn, strict=True)])
        return texts

    def _draw(self, position: int) -> tuple[Tensor, Tensor]:
        """Draws one token for every cache row; returns the tokens and which of those rows are finished."""
        alive = self.alive
        legal = self.legal_table[self.legal_index[alive]] if self.is_masked else None
        logprobs = kept_logprobs(self.logits, self.temperature[alive], legal, self.top_k[alive], self.top_p[alive])
        rows = alive.cpu().numpy()
        noise = keyed_uniform(self.seeds[rows], self.keys[rows], np.full(len(rows), position))
        drawn = draw(logprobs, torch.from_numpy(noise).to(self.device), self.temperature[alive] == 0)
        open_rows = ~self.stopped[alive] & (self.length[alive] < self.limit[alive])
        writers = alive[open_rows]
        self.tokens[writers, position] = drawn[open_rows]
        self.logprobs[writers, position] = logprobs.gather(1, drawn[:, None]).squeeze(1)[open_rows]
        self.certainty[writers, position] = certainty(logprobs)[open_rows]
        self.length[writers] += 1
        self._record_kept(logprobs, open_rows)
        self.stopped[alive] |= self.stop_table[self.stop_index[alive], drawn] & open_rows
        return drawn, self.stopped[alive] | (self.length[alive] >= self.limit[alive])

    def _record_kept(self, logprobs: Tensor, open_rows: Tensor) -> None:
        for cache_row in open_rows.nonzero().squeeze(1).tolist():
            row = int(self.alive[cache_row])
            if self.is_filtered[row]:
                self.kept[row].append((logprobs[cache_row] > -torch.inf).nonzero().squeeze(1).cpu().numpy())
            else:
                self.kept[row].append(self.legal_ids[row])

    def _completions(self) -> list[Completion]:
        tokens, logprobs, certain = (one.cpu().numpy() for one in (self.tokens, self.logprobs, self.certainty))
        completions = []
        for row, (length, stopped) in enumerate(zip(self.length.tolist(), self.stopped.tolist(), strict=True)):
            kept = tuple(ids for ids in self.kept[row] if ids is not None)
            completions.append(
                Completion(
                    token_ids=tokens[row, :length].copy(),
                    logprobs=logprobs[row, :length].copy(),
                    finish_reason="stop" if stopped else "length",
                    kept_ids=kept if kept else None,
                    certainty=certain[row, :length].copy(),
                )
            )
        return completions


def _id_sets(sets: Sequence[Sequence[int] | None], vocab_size: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Distinct id sets as rows of a bool table [S, V] and each row's index into it; None is the whole vocabulary."""
    known: dict[tuple[int, ...] | None, int] = {}
    index = [known.setdefault(None if ids is None else tuple(ids), len(known)) for ids in sets]
    table = torch.zeros(len(known), vocab_size, dtype=torch.bool)
    for ids, row in known.items():
        table[row, slice(None) if ids is None else list(ids)] = True
    return table.to(device), torch.tensor(index, device=device)
