"""What the rows of a generator's call ask for, as tables, and what they have got so far."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from rlpt.distributed.device import send
from rlpt.rollout.sampling import keyed_uniform
from rlpt.types import Completion, SamplingParams

_WORD = 0xFFFFFFFFFFFFFFFF


class Filters(NamedTuple):
    """How each of n rows samples, on the device; None where no row asks for it."""

    temperature: Tensor | None  # [n] f32
    legal: Tensor | None  # [n, V] bool
    num_legal: Tensor | None  # [n] i64: ids in each row of `legal`
    columns: Tensor | None  # [n, K] i64: the legal ids of each row in order, then others; None where rows have no set
    top_k: Tensor | None  # [n] i64
    top_p: Tensor | None  # [n] f32
    greedy: Tensor | None  # [n] bool
    is_whole: bool  # every token may be drawn in every row

    @property
    def need_order(self) -> bool:
        """Whether a row keeps ids by their order in the whole vocabulary."""
        return self.top_k is not None or self.top_p is not None


class Requests:
    """N rows: tables over them, and what each has drawn: token_ids, logprobs, certainty [N, longest]."""

    def __init__(
        self,
        prompts: Sequence[Sequence[int]],
        params: Sequence[SamplingParams],
        keys: Sequence[int],
        vocab_size: int,
        device: torch.device,
    ) -> None:
        self.prompts, self.params, self.device = prompts, params, device
        rows, self.longest = len(prompts), max(item.max_new_tokens for item in params)
        self.seeds = np.array([item.seed & _WORD for item in params], dtype=np.uint64)
        self.keys = np.array([key & _WORD for key in keys], dtype=np.uint64)
        self.limit = np.array([item.max_new_tokens for item in params])
        self.temperature = np.array([item.temperature for item in params], dtype=np.float32)
        self.top_k = np.array([item.top_k for item in params])
        self.top_p = np.array([item.top_p for item in params], dtype=np.float32)
        self.stop_table, self.stop_index = _id_sets([item.stop for item in params], vocab_size)
        legal_sets = [item.legal_ids for item in params]
        table, self.legal_index = _id_sets(legal_sets, vocab_size)
        self.legal_table, self.num_legal = send(table, device), table.sum(1)
        self.legal_ids = [np.flatnonzero(one) for one in table]
        self.is_legal = np.array([ids is not None for ids in legal_sets])
        self.columns: Tensor | None = None
        if self.is_legal.all():
            order = np.argsort(~table, axis=1, kind="stable")[:, : self.num_legal.max()]
            self.columns = send(order, device)
        self.is_filtered = (self.top_k > 0) | (self.top_p < 1)
        self.token_ids = np.zeros((rows, self.longest), np.int64)
        self.logprobs = np.zeros((rows, self.longest), np.float32)
        self.certainty = np.zeros((rows, self.longest), np.float32)
        self.length = np.zeros(rows, np.int64)
        self.stopped = np.zeros(rows, bool)
        self.kept: dict[int, list[np.ndarray]] = {int(row): [] for row in np.flatnonzero(self.is_filtered)}

    def filters(self, rows: np.ndarray) -> Filters:
        """Of some rows [n]."""
        temperature, top_k, top_p = self.temperature[rows], self.top_k[rows], self.top_p[rows]
        is_legal, is_filtered = bool(self.is_legal[rows].any()), bool(self.is_filtered[rows].any())

        def on_device(values: np.ndarray) -> Tensor:
            return send(values, self.device)

        index = on_device(self.legal_index[rows])
        return Filters(
            temperature=on_device(temperature) if (temperature != 1).any() else None,
            legal=self.legal_table[index] if is_legal else None,
            num_legal=on_device(self.num_legal[self.legal_index[rows]]) if is_legal else None,
            columns=None if self.columns is None else self.columns[index],
            top_k=on_device(top_k) if (top_k > 0).any() else None,
            top_p=on_device(top_p) if (top_p < 1).any() else None,
            greedy=on_device(temperature == 0) if (temperature == 0).any() else None,
            is_whole=not is_legal and not is_filtered,
        )

    def noise(self, rows: np.ndarray) -> np.ndarray:
        """[n, longest] f64: what each row draws by at each position."""
        return keyed_uniform(self.seeds[rows, None], self.keys[rows, None], np.arange(self.longest)[None])

    def record(
        self, rows: np.ndarray, ids: np.ndarray, logprobs: np.ndarray, certainty: np.ndarray, kept: Tensor | None
    ) -> np.ndarray:
        """Takes in one token for each of n distinct rows; `kept` [n, V] bool is needed where a row is filtered.
        Returns which of the rows are finished [n] bool."""
        at = self.length[rows]
        self.token_ids[rows, at] = ids
        self.logprobs[rows, at] = logprobs
        self.certainty[rows, at] = certainty
        self.length[rows] = at + 1
        if kept is not None:
            places = np.flatnonzero(self.is_filtered[rows])
            table = kept[torch.from_numpy(places).to(self.device)].cpu().numpy()
            for place, row in enumerate(rows[places].tolist()):
                self.kept[row].append(np.flatnonzero(table[place]))
        stopped = self.stop_table[self.stop_index[rows], ids]
        self.stopped[rows] = stopped
        done: np.ndarray = stopped | (at + 1 >= self.limit[rows])
        return done

    def completions(self) -> list[Completion]:
        """What every row has drawn."""
        return [
            Completion(
                token_ids=self.token_ids[row, :length].copy(),
                logprobs=self.logprobs[row, :length].copy(),
                finish_reason="stop" if self.stopped[row] else "length",
                kept_ids=self._kept_ids(row, length),
                certainty=self.certainty[row, :length].copy(),
            )
            for row, length in enumerate(self.length.tolist())
        ]

    def _kept_ids(self, row: int, length: int) -> tuple[np.ndarray, ...] | None:
        if row in self.kept:
            return tuple(self.kept[row]) or None
        return (self.legal_ids[self.legal_index[row]],) * length if self.is_legal[row] and length else None


def _id_sets(sets: Sequence[Sequence[int] | None], vocab_size: int) -> tuple[np.ndarray, np.ndarray]:
    """Distinct id sets as rows of a bool table [S, V] and each row's index into it; None is the whole vocabulary."""
    known: dict[tuple[int, ...] | None, int] = {}
    index = [known.setdefault(None if ids is None else tuple(ids), len(known)) for ids in sets]
    table = np.zeros((len(known), vocab_size), bool)
    for ids, row in known.items():
        table[row, slice(None) if ids is None else list(ids)] = True
    return table, np.array(index)
