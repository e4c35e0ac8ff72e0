"""A bare Megatron-Core training loop of the same shape as ours: its own GPT with its own layers.

In bfloat16 with Megatron's gradient buffers and optimizer (float32 masters), in float32 with torch's AdamW, each as its
users have it. Its fused kernels come with packages for GPUs that aren't needed here; what torch compiles is on.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from megatron.core.models.gpt.gpt_layer_specs import get_gpt_layer_local_spec
from megatron.core.models.gpt.gpt_model import GPTModel
from megatron.core.tensor_parallel.random import model_parallel_cuda_manual_seed
from torch import Tensor

from rlpt.config import Config
from rlpt.distributed.device import Device
from rlpt.models.gpt import transformer_config
from rlpt.training.optimizer import Optimizer, wrap_data_parallel


def megatron_gpt(config: Config, vocabulary: int, device: Device) -> Any:
    """Its GPT from its local layer spec, with random weights; the parameters' names and shapes are those of ours."""
    options = {
        "use_te_activation_func": False,
        "bias_activation_fusion": device.kind == "gpu",
        "fp32_residual_connection": False,  # its layers round the stream back to bfloat16
    }
    with device.megatron():
        model_parallel_cuda_manual_seed(config.seed, force_reset_rng=True)
        return GPTModel(
            config=replace(transformer_config(config, device), **options),
            transformer_layer_spec=get_gpt_layer_local_spec(normalization="RMSNorm"),
            vocab_size=vocabulary,
            max_sequence_length=config.batch.sequence_length,
            share_embeddings_and_output_weights=config.model.tie_embeddings,
            position_embedding_type="rope",
            rotary_base=config.model.rotary_base,
        ).to(device.torch_device)


def megatron_step(config: Config, vocabulary: int, device: Device) -> Callable[[Tensor], float]:
    """(texts [microbatches, B, T + 1]) -> the loss, after one update: what a user of Megatron-Core writes."""
    model = megatron_gpt(config, vocabulary, device)

    def accumulate(module: Any, texts: Tensor) -> float:
        total = 0.0
        for text in texts:
            tokens, labels = text[:, :-1], text[:, 1:].contiguous()
            length = tokens.shape[1]
            positions = torch.arange(length, device=text.device).expand_as(tokens)
            future = torch.ones(1, 1, length, length, dtype=torch.bool, device=text.device).triu(1)
            with device.megatron():
                loss = module(tokens, positions, future, labels=labels).mean() / len(texts)
                loss.backward()
            total += float(loss.detach())
        return total

    if device.dtype == torch.bfloat16:
        wrapped = wrap_data_parallel(config, model, device)
        updater = Optimizer(config, wrapped, device)

        def mixed(texts: Tensor) -> float:
            updater.zero_grad()
            total = accumulate(wrapped, texts)
            wrapped.finish_grad_sync()
            updater.step(config.optimizer.lr, config.optimizer.weight_decay)
            return total

        return mixed
    optimizer = torch.optim.AdamW(model.parameters(), lr=config.optimizer.lr, fused=True)

    def plain(texts: Tensor) -> float:
        total = accumulate(model, texts)
        torch.nn.utils.clip_grad_norm_(model.parameters(), config.optimizer.clip_grad)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        return total

    return plain
