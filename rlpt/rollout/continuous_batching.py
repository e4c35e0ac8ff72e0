"""Continuous batching: a finished row's slot of the cache goes to the next row that waits, and rows stay side by side.

The live rows are always the first slots: a row that ends is replaced by the last live one, or by one that starts. What
is scheduled depends on lengths and drawn tokens only, and how a token is drawn on what rows ask for, so that tensor
ranks, which all see the same, stay in lock-step.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from rlpt.distributed.device import fetch, send
from rlpt.rollout.continuation import Texts
from rlpt.rollout.kernel_sampling import KernelSampler, Said, can_draw_by_kernels
from rlpt.rollout.requests import Filters, Requests
from rlpt.rollout.sampling import certainty, draw, kept_logprobs
from rlpt.rollout.shard_sampling import can_draw_from_shards, draw_from_shards

START_SHARE = 1 / 8  # of the slots must be free for waiting rows to start: prompts are then read side by side, too


@dataclass(frozen=True)
class Meanwhile:
    """What is done between the decode steps of a call's longest rows."""

    work: Callable[[], None]
    share: float  # of the call's slots: once no more of them are live and no row waits


@dataclass(frozen=True)
class _Prompts:
    """Prompts that have been read: where they stand in a state, and the logits of what comes after them."""

    index: dict[tuple[int, ...], int]
    state: Any  # models.decode.DecodeState
    logits: Tensor  # [prompts, V / tensor size]: this rank's


@dataclass(frozen=True)
class _Drawn:
    """One token for each of n live slots."""

    tokens: Tensor  # [n]
    said: Callable[[], Said]  # the same on the host, with log-probs and certainty, once they are there
    kept: Tensor | None  # [n, V] bool


class ContinuousBatch:
    """Rows of one call; at most `slots` of them are in the cache at a time."""

    def __init__(
        self,
        decoder: Any,
        requests: Requests,
        slots: int,
        before: Texts | None = None,
        meanwhile: Meanwhile | None = None,
    ) -> None:
        """`before`: texts to go on from; then all rows must have a slot, and their own texts are kept, too."""
        self.decoder, self.requests, self.device, self.before = decoder, requests, requests.device, before
        self.meanwhile = meanwhile
        rows = len(requests.prompts)
        self.slots = min(slots, rows)
        assert before is None or self.slots == rows, "texts are kept of rows that all have a slot"
        first_seen: dict[tuple[int, ...], int] = {}
        self.prompts = [tuple(prompt) for prompt in requests.prompts]
        owner = [first_seen.setdefault(prompt, len(first_seen)) for prompt in self.prompts]
        self.waiting = sorted(range(rows), key=owner.__getitem__)  # samples of a prompt side by side
        capacity = max(len(prompt) + limit for prompt, limit in zip(self.prompts, requests.limit.tolist(), strict=True))
        self.state = (
            decoder.empty(self.slots, capacity) if before is None else decoder.empty(self.slots, capacity, is_kept=True)
        )
        by_kernels = can_draw_by_kernels(decoder, requests)
        self.kernels = KernelSampler(requests, self.slots, self.state) if by_kernels else None
        self.num_live = 0
        self.row = np.zeros(self.slots, np.int64)  # of each slot
        self.length = np.zeros(self.slots, np.int64)  # tokens in its cache
        self.noise = np.zeros((self.slots, 0 if by_kernels else requests.longest))
        self.logits: Tensor | None = None  # [live, V / tensor size]: this rank's, of what comes next in each live slot
        self.source = np.arange(self.slots)  # each slot's row of the logits; they move themselves without kernels
        self.filters: Filters | None = None  # of the live slots; None: to be made anew
        self.begun: _Prompts | None = None  # the prompt some of whose samples still wait

    def run(self) -> None:
        """Draws all rows to their ends, into the requests."""
        while self.num_live or self.waiting:
            self._start()
            drawn = self._draw()
            ahead = self._runs_ahead()
            if ahead:
                self._step(drawn.tokens)
            if self.meanwhile is not None and not self.waiting and self.num_live <= self.meanwhile.share * self.slots:
                self.meanwhile.work()
            tokens = self._retire(drawn.tokens, self._record(drawn), ahead)
            if self.num_live and not ahead:
                self._step(tokens)

    def _runs_ahead(self) -> bool:
        """Whether the next step starts before the host has seen which rows are finished: those run one token too many,
        and the GPU doesn't wait for the host. Not where all rows have reached their limits."""
        rows = self.row[: self.num_live]
        return self.decoder.has_graphs and bool((self.requests.length[rows] + 1 < self.requests.limit[rows]).any())

    def _step(self, tokens: Tensor) -> None:
        lengths = self.length[: self.num_live]
        if self.kernels:
            self.logits = self.state.step_inputs(self.num_live)
            self.source[: self.num_live] = np.arange(self.num_live)
        else:
            self.logits = self.state.step(tokens, self._on_device(lengths), int(lengths.max()))
        self.length[: self.num_live] += 1

    def texts(self) -> Texts:
        """What the cache holds of the prompts and of what was drawn, of which the last need not have run."""
        texts = Texts()
        told = [
            [*self.requests.prompts[row], *self.requests.token_ids[row].tolist()][:length]
            for row, length in zip(self.row.tolist(), self.length.tolist(), strict=True)
        ]
        texts.add(self.state.cache, told)
        return texts

    def _start(self) -> None:
        """Gives free slots to rows that wait, each distinct prompt read once."""
        count = min(self.slots - self.num_live, len(self.waiting))
        if not count or (self.num_live and count < min(len(self.waiting), int(self.slots * START_SHARE))):
            return
        rows, self.waiting = self.waiting[:count], self.waiting[count:]
        slots = np.arange(self.num_live, self.num_live + count)
        new = list(dict.fromkeys(self.prompts[row] for row in rows))
        sources = [self.begun] if self.begun else []
        if self.begun:
            new = [prompt for prompt in new if prompt not in self.begun.index]
        if new:
            sources.append(self._read(new))
        logits = [] if self.logits is None or not self.num_live else [self.logits]
        self.source[slots] = np.arange(count) + sum(map(len, logits))
        for source in sources:
            mine = [at for at, row in enumerate(rows) if self.prompts[row] in source.index]
            index = self._places(np.array([source.index[self.prompts[rows[at]]] for at in mine], np.int64))
            self.state.place(self._places(slots[mine]), source.state, index)
            logits.append(source.logits[index])
        self.logits = torch.cat(logits)
        self.row[slots] = rows
        self.length[slots] = [len(self.prompts[row]) for row in rows]
        if self.kernels is None:
            self.noise[slots] = self.requests.noise(self.row[slots])
        self.num_live += count
        self._slots_changed()
        self._keep_begun(sources, self.prompts[rows[-1]])

    def _slots_changed(self) -> None:
        self.filters = None
        if self.kernels:
            self.kernels.is_stale = True

    def _read(self, prompts: list[tuple[int, ...]]) -> _Prompts:
        """Runs prompts; what the texts to go on from hold of them does not run again."""
        lengths = np.array([len(prompt) for prompt in prompts])
        tokens = np.zeros((len(prompts), lengths.max()), np.int64)
        for row, prompt in enumerate(prompts):
            tokens[row, : len(prompt)] = prompt
        known = self.before.find(prompts, self.device) if self.before else []
        state, logits = self.decoder.prefill(self._on_device(tokens), self._on_device(lengths), known)
        return _Prompts({prompt: row for row, prompt in enumerate(prompts)}, state, logits)

    def _keep_begun(self, sources: Sequence[_Prompts], last: tuple[int, ...]) -> None:
        """Keeps the last prompt that started for its samples that wait: no other prompt has any."""
        self.begun = None
        if self.waiting and self.prompts[self.waiting[0]] == last:
            [source] = [source for source in sources if last in source.index]
            at = torch.tensor([source.index[last]], device=self.device)
            state = self.decoder.empty(1, len(last))
            state.place(torch.zeros_like(at), source.state, at)
            self.begun = _Prompts({last: 0}, state, source.logits[at])

    def _draw(self) -> _Drawn:
        """One token for every live slot."""
        assert self.logits is not None
        rows = self.row[: self.num_live]
        if self.kernels:
            said = self.kernels.draw(self.logits, rows, self.length[: self.num_live], self.source[: self.num_live])
            return _Drawn(self.state.inputs(self.num_live)[0][: self.num_live], said, None)
        if self.filters is None:
            self.filters = self.requests.filters(rows)
        uniform = self._on_device(self.noise[np.arange(self.num_live), self.requests.length[rows]])
        axis, kept = self.decoder.mesh.tensor, None
        if can_draw_from_shards(self.logits, self.filters, axis):
            drawn, figures = draw_from_shards(self.logits, self.filters, uniform, self.decoder.vocab_size, axis)
        else:
            drawn, figures, kept = _draw_from_rows(self.decoder.gather(self.logits), self.filters, uniform)
        ids, shown = fetch(drawn), fetch(figures)
        return _Drawn(drawn, lambda: (ids(), *shown()), kept)

    def _record(self, drawn: _Drawn) -> np.ndarray:
        """Takes the tokens in; which live slots' rows are finished."""
        return self.requests.record(self.row[: self.num_live], *drawn.said(), drawn.kept)

    def _retire(self, drawn: Tensor, done: np.ndarray, ahead: bool) -> Tensor:
        """Frees the slots of finished rows; the tokens drawn for those that live on, in their new order. Logits are put
        in that order, too, where the next step has run `ahead`."""
        if not done.any():
            return drawn
        live = self.num_live - int(done.sum())
        holes, movers = np.flatnonzero(done[:live]), live + np.flatnonzero(~done[live:])
        if len(holes):
            keeps = self.before is not None
            to, origin = self._on_device(holes), self._on_device(movers)
            self.state.move(to, origin, int(self.length[movers].max()), swap=keeps)
            if not ahead:
                drawn[to] = drawn[origin]
            elif self.kernels:
                self.source[holes] = self.source[movers]
            elif self.logits is not None:
                self.logits[to] = self.logits[origin]
            self.noise[holes] = self.noise[movers]
            for table in (self.row, self.length):
                table[holes], table[movers] = table[movers], table[holes]
        self.num_live = live
        self._slots_changed()
        if ahead and not self.kernels and self.logits is not None:
            self.logits = self.logits[:live]
        return drawn[:live]

    def _places(self, values: np.ndarray) -> Tensor | slice:
        """As an index; a slice where they stand side by side."""
        if (np.diff(values) == 1).all():
            return slice(int(values[0]), int(values[-1]) + 1)
        return self._on_device(values)

    def _on_device(self, values: np.ndarray) -> Tensor:
        return send(values, self.device)


def _draw_from_rows(logits: Tensor, filters: Filters, uniform: Tensor) -> tuple[Tensor, Tensor, Tensor | None]:
    """Whole rows [n, V], uniform [n] f64 -> ids [n], log-probs and certainty [2, n] f32, and which ids were kept [n, V]
    bool where rows ask for top-k or top-p."""
    logprobs = kept_logprobs(logits, filters.temperature, filters.legal, filters.top_k, filters.top_p)
    drawn = draw(logprobs, uniform, filters.greedy, filters.is_whole, filters.columns)
    chosen = logprobs.gather(1, drawn[:, None]).squeeze(1)
    size = None if filters.need_order else filters.num_legal
    figures = torch.stack([chosen, certainty(logprobs, filters.is_whole, size)]).float()
    return drawn, figures, logprobs > -torch.inf if filters.need_order else None
