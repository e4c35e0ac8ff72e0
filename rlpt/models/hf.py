"""The policy as transformers' LlamaForCausalLM: its configuration and its weights by their names there.

The shapes are the same (RMSNorm, SwiGLU, rotary embedding by halves, grouped queries); names and the order of rows
differ. Adapters are merged, the vocabulary is cut to the real one, and scalar heads stay behind: Llama has none.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from rlpt.config import Config
from rlpt.models.decode import layer_weights
from rlpt.models.gpt import GPT


def llama_config(config: Config, vocab_size: int, pad_id: int, eos_id: int, dtype: torch.dtype) -> dict[str, Any]:
    """What transformers reads from config.json."""
    model = config.model
    return {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "dtype": str(dtype).removeprefix("torch."),
        "vocab_size": vocab_size,
        "hidden_size": model.hidden_size,
        "intermediate_size": model.ffn_hidden_size,
        "num_hidden_layers": model.num_layers,
        "num_attention_heads": model.num_attention_heads,
        "num_key_value_heads": model.num_query_groups,
        "head_dim": model.hidden_size // model.num_attention_heads,
        "hidden_act": "silu",
        "max_position_embeddings": config.batch.sequence_length,
        "initializer_range": model.init_std,
        "rms_norm_eps": model.norm_epsilon,
        "rope_parameters": {"rope_type": "default", "rope_theta": float(model.rotary_base)},
        "attention_bias": False,
        "mlp_bias": False,
        "tie_word_embeddings": model.tie_embeddings,
        "bos_token_id": None,
        "eos_token_id": eos_id,
        "pad_token_id": pad_id,
    }


@torch.no_grad()
def llama_weights(gpt: GPT, vocab_size: int) -> dict[str, Tensor]:
    """Name in transformers -> weight on the CPU, no two sharing memory. The model must be whole on this rank."""
    config = gpt.config
    assert config.tensor_model_parallel_size == config.pipeline_model_parallel_size == 1, "a part of a model"
    weights = {
        "model.embed_tokens.weight": gpt.embedding.word_embeddings.weight[:vocab_size],
        "model.norm.weight": gpt.decoder.final_layernorm.weight,
    }
    if not gpt.share_embeddings_and_output_weights:
        weights["lm_head.weight"] = gpt.head_weight()[:vocab_size]
    for index, layer in enumerate(gpt.decoder.layers):
        merged = layer_weights(layer)
        query, key, value = _query_key_value(merged.qkv, config.num_attention_heads, config.num_query_groups)
        gate, up = merged.fc1.chunk(2)
        own = {
            "input_layernorm": layer.input_layernorm.weight,
            "self_attn.q_proj": query,
            "self_attn.k_proj": key,
            "self_attn.v_proj": value,
            "self_attn.o_proj": merged.proj,
            "post_attention_layernorm": layer.pre_mlp_layernorm.weight,
            "mlp.gate_proj": gate,
            "mlp.up_proj": up,
            "mlp.down_proj": merged.fc2,
        }
        weights |= {f"model.layers.{index}.{name}.weight": weight for name, weight in own.items()}
    return {name: weight.detach().to("cpu", copy=True).contiguous() for name, weight in weights.items()}


def _query_key_value(qkv: Tensor, heads: int, groups: int) -> tuple[Tensor, Tensor, Tensor]:
    """Rows by group [queries, key, value] -> all queries, all keys, all values."""
    per_group = heads // groups
    rows = qkv.view(groups, per_group + 2, -1, qkv.shape[-1])
    query, key, value = rows.split([per_group, 1, 1], dim=1)
    return query.flatten(0, 2), key.flatten(0, 2), value.flatten(0, 2)
