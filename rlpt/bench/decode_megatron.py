"""Decoding with Megatron-Core's own GPT and `StaticInferenceContext`, as its users write it: a forward pass a token."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from megatron.core.inference.contexts import StaticInferenceContext
from torch import Tensor

from rlpt.bench.step_megatron import megatron_gpt
from rlpt.config import Config
from rlpt.distributed.device import Device
from rlpt.models.gpt import GPT
from rlpt.types import Completion

Draw = Callable[[Tensor], Tensor]  # logits [B, V] f32 -> ids [B, 1]


def sample(logits: Tensor) -> Tensor:
    """At temperature 1."""
    return torch.multinomial(logits.softmax(-1), 1)


class MegatronDecoder:
    """Megatron's GPT with the weights of ours, and the loop."""

    def __init__(self, gpt: GPT, config: Config, vocabulary: int, device: Device) -> None:
        """`vocabulary`: ids that may be drawn; the columns of the output layer beyond are padding."""
        self._vocabulary, self._device = vocabulary, device
        self._gpt: Any = megatron_gpt(config, config.model.padded_vocabulary(vocabulary), device).eval()
        self._gpt.load_state_dict(gpt.state_dict())

    @torch.inference_mode()
    def generate(self, prompts: Sequence[Sequence[int]], new: int, draw: Draw = sample) -> np.ndarray:
        """Prompts of one length -> ids [B, new]."""
        tokens = torch.tensor(prompts, device=self._device.torch_device)
        context = StaticInferenceContext(len(prompts), tokens.shape[1] + new)
        drawn: list[Tensor] = []
        with self._device.megatron():
            while len(drawn) < new:
                start = context.sequence_len_offset
                positions = torch.arange(start, start + tokens.shape[1], device=tokens.device).expand_as(tokens)
                logits = self._gpt(tokens, positions, None, inference_context=context, runtime_gather_output=True)
                context.increment_sequence_len_offset(tokens.shape[1])
                context.enable_decode_mode()
                tokens = draw(logits[:, -1, : self._vocabulary].float())
                drawn.append(tokens)
        found: np.ndarray = torch.cat(drawn, 1).cpu().numpy()
        return found

    def largest_difference(self, prompts: Sequence[Sequence[int]], completions: Sequence[Completion]) -> float:
        """Between the completions' log-probs and those of this loop where it is made to draw the same tokens."""
        ids = torch.from_numpy(np.stack([completion.token_ids for completion in completions]))
        columns = iter(ids.to(self._device.torch_device).split(1, dim=1))
        theirs: list[Tensor] = []

        def repeat(logits: Tensor) -> Tensor:
            chosen = next(columns)
            theirs.append(logits.log_softmax(-1).gather(1, chosen))
            return chosen

        self.generate(prompts, ids.shape[1], repeat)
        ours = np.stack([completion.logprobs for completion in completions])
        return float(np.abs(torch.cat(theirs, 1).cpu().numpy() - ours).max())
