"""The exported model is ours: transformers' Llama gives the same logits."""

import json

import pytest
import torch
from helpers.tiny_model import LENGTH, VOCABULARY, build, random_batch, tiny_config, wake

from rlpt.models.hf import llama_config, llama_weights

SHAPES = {
    "tied": {},
    "untied": {"tie_embeddings": False},
    "adapters": {"adapter": {"rank": 3}},
    "other numbers": {"rotary_base": 500, "norm_epsilon": 0.1, "num_query_groups": 1, "ffn_hidden_size": 40},
}


@pytest.mark.parametrize("shape", SHAPES)
def test_logits_are_those_of_transformers(rank, tmp_path, shape):
    from safetensors.torch import save_file
    from transformers import AutoModelForCausalLM

    config = tiny_config(init_std=0.3, **SHAPES[shape])
    policy = build(config)[1]
    wake(policy, config)
    tokens = random_batch("text", 1, 0.5).tokens
    positions = torch.arange(LENGTH).expand_as(tokens)
    with torch.no_grad():
        hidden = policy.gpt(input_ids=tokens, position_ids=positions, attention_mask=None).transpose(0, 1)
        ours = hidden @ policy.gpt.head_weight().T

    weights = llama_weights(policy.gpt, VOCABULARY)
    assert weights["model.embed_tokens.weight"].shape == (VOCABULARY, 32)
    assert ("lm_head.weight" in weights) == (shape == "untied")
    described = llama_config(config, VOCABULARY, pad_id=3, eos_id=2, dtype=torch.float32)
    (tmp_path / "config.json").write_text(json.dumps(described))
    save_file(weights, tmp_path / "model.safetensors", {"format": "pt"})
    model, loaded = AutoModelForCausalLM.from_pretrained(tmp_path, output_loading_info=True)
    assert type(model).__name__ == "LlamaForCausalLM"
    assert model.dtype == torch.float32
    assert not loaded["missing_keys"]
    assert not loaded["unexpected_keys"]
    with torch.no_grad():
        theirs = model(tokens).logits

    assert theirs.shape == (3, LENGTH, VOCABULARY)
    assert (theirs - ours[..., :VOCABULARY]).abs().max() < 1e-4
    assert theirs.std() > 0.3
    assert (theirs[:, 1:] - theirs[:, :-1]).abs().max() > 1
