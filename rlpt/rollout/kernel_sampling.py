"""Drawing by kernels on one GPU (`rlpt.kernels.token_draw`): what the rows of a call ask for lies there once, and what
is drawn goes straight to where the decoder reads it. The host sends something only when slots change their rows."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from rlpt.distributed.device import fetch, send
from rlpt.rollout.requests import Requests

Said = tuple[np.ndarray, np.ndarray, np.ndarray]  # of n slots: ids i64, log-probs, certainty


def can_draw_by_kernels(decoder: Any, requests: Requests) -> bool:
    """Whether the decoder's whole logits lie where the kernels run, and no row asks for the order of its ids."""
    return bool(decoder.has_draw_kernel) and not requests.is_filtered.any()


class KernelSampler:
    """Draws for the slots of one call."""

    def __init__(self, requests: Requests, slots: int, state: Any) -> None:
        """`state`: the decoder's, whose inputs are written."""
        from rlpt.kernels import token_draw

        device = requests.device
        self._draw, self._state = token_draw.draw_rows, state
        prompts = np.array([len(prompt) for prompt in requests.prompts])
        words = [requests.seeds.view(np.int64), requests.keys.view(np.int64), prompts, requests.legal_index]
        self._words = send(np.stack([*words, requests.num_legal[requests.legal_index]], 1), device)
        self._temperature = send(requests.temperature, device)
        self._legal = requests.legal_table.view(torch.uint8) if requests.is_legal.any() else None
        self._vocab_size = requests.legal_table.shape[1]
        self._places = torch.empty(token_draw.PLACES, slots, dtype=torch.int64, device=device)
        self._said = torch.empty(3, slots, dtype=torch.float64, device=device)
        self.is_stale = True  # slots have other rows than the device knows

    def draw(self, logits: Tensor, row: np.ndarray, length: np.ndarray, source: np.ndarray) -> Callable[[], Said]:
        """One token for each of n slots, into the inputs of the state's next step, which must be the next to run unless
        slots change; what has been drawn, once it is there.

        Of each slot: its row of the call, tokens in its cache, and its row of the logits [rows, V].
        """
        live = len(row)
        if self.is_stale:
            places = np.full(self._places.shape, -1)
            places[:, :live] = row, length, source
            self._places.copy_(send(places, self._places.device), non_blocking=True)
            self.is_stale = False
        tokens, lengths = self._state.inputs(live)
        own = logits[:, : self._vocab_size]  # without padding
        self._draw(own, self._places, self._words, self._temperature, self._legal, tokens, lengths, self._said)
        arrived = fetch(self._said)

        def said() -> Said:
            found = arrived()[:, :live]
            return found[0].astype(np.int64), found[1], found[2]

        return said
