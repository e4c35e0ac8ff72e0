"""Texts whose keys and values are at rest, found again by the prompts that go on from them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from rlpt.models.decode import Known


class Texts:
    """Of one call of the generator. A text is found by a hash of its tokens, then compared."""

    def __init__(self) -> None:
        self._parts: list[Tensor] = []  # caches [layers, 2, rows, groups / tensor size, columns, d]
        self._texts: list[list[Sequence[int]]] = []  # [part][row]
        self._where: dict[int, tuple[int, int]] = {}  # hash -> (part, row)

    def __bool__(self) -> bool:
        return bool(self._where)

    def add(self, rested: Tensor, texts: Sequence[Sequence[int]]) -> None:
        """Rows of a cache and what each of them holds, at least one token."""
        part = len(self._parts)
        self._parts.append(rested)
        self._texts.append([list(text) for text in texts])
        for row, text in enumerate(texts):
            *_, whole = _prefix_hashes(text)
            self._where.setdefault(whole, (part, row))

    def find(self, prompts: Sequence[Sequence[int]], device: torch.device) -> list[Known]:
        """For each prompt the longest text that it begins with and goes on from; nothing for a prompt without one."""
        found: list[list[tuple[int, int, int]]] = [[] for _ in self._parts]  # (row of the part, prompt, length)
        for number, prompt in enumerate(prompts):
            for length, prefix in reversed(list(enumerate(_prefix_hashes(prompt[:-1]), 1))):
                part, row = self._where.get(prefix, (-1, -1))
                if part >= 0 and self._texts[part][row] == list(prompt[:length]):
                    found[part].append((row, number, length))
                    break
        return [
            Known(rested, *torch.tensor(rows, device=device).T)
            for rested, rows in zip(self._parts, found, strict=True)
            if rows
        ]


def _prefix_hashes(tokens: Sequence[int]) -> Iterator[int]:
    """Of each prefix that is not empty, shortest first."""
    so_far = 0
    for token in tokens:
        so_far = hash((so_far, token))
        yield so_far
