"""A bare Megatron-Core training loop of the same shape as ours: its own GPT, its own layers, torch's AdamW."""

from __future__ import annotations

from collections.abc import Callable

import torch
from megatron.core.models.gpt.gpt_layer_specs import get_gpt_layer_local_spec
from megatron.core.models.gpt.gpt_model import GPTModel
from megatron.core.tensor_parallel.random import model_parallel_cuda_manual_seed
from torch import Tensor

from rlpt.config import Config
from rlpt.distributed.device import Device
from rlpt.models.gpt import transformer_config


def megatron_step(config: Config, vocabulary: int, device: Device) -> Callable[[Tensor, Tensor], float]:
    """(tokens, labels [B, T]) -> the loss, after one update: what a user of Megatron-Core writes without ours."""
    with device.megatron():
        model_parallel_cuda_manual_seed(config.seed, force_reset_rng=True)
        model = GPTModel(
            config=transformer_config(config, device),
            transformer_layer_spec=get_gpt_layer_local_spec(normalization="RMSNorm"),
            vocab_size=vocabulary,
            max_sequence_length=config.batch.sequence_length,
            share_embeddings_and_output_weights=config.model.tie_embeddings,
            position_embedding_type="rope",
            rotary_base=config.model.rotary_base,
        ).to(device.torch_device)
    optimizer = torch.optim.AdamW(model.parameters(), lr=config.optimizer.lr, fused=True)

    def step(tokens: Tensor, labels: Tensor) -> float:
        length = tokens.shape[1]
        positions = torch.arange(length, device=tokens.device).expand_as(tokens)
        future = torch.ones(1, 1, length, length, dtype=torch.bool, device=tokens.device).triu(1)
        with device.megatron():
            loss = model(tokens, positions, future, labels=labels).mean()
            loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), config.optimizer.clip_grad)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        return float(loss)

    return step
