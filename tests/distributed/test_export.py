"""A run of two tensor ranks as a folder for transformers, exported by one rank."""

import json

import pytest
import torch
from helpers.launches import run

from rlpt.data.tokenizer import load_tokenizer

EXPORT = "from pathlib import Path; import sys; from rlpt.export import main; main(*map(Path, sys.argv[1:3]))"
TEXT = "the number 7 and the text of line 49 in a small file"


@pytest.fixture(scope="module")
def exported(unbroken):
    folder = unbroken.with_name("exported") / "model"
    code, output = run(["-c", EXPORT, unbroken, folder], unbroken.with_name("export.log"))
    assert code == 0, output
    assert "after 14 steps" in output
    return folder


def test_transformers_reads_the_folder(exported, config):
    from transformers import AutoModelForCausalLM, AutoTokenizer

    assert sorted(path.name for path in exported.iterdir()) == [
        "config.json",
        "meta.json",
        "model.safetensors",
        "tokenizer.json",
        "tokenizer.model",
        "tokenizer_config.json",
    ]
    ours = load_tokenizer(config.parent / "tokenizer")
    theirs = AutoTokenizer.from_pretrained(exported)
    ids = theirs(TEXT, return_tensors="pt")["input_ids"]
    assert ids[0].tolist() == ours.encode(TEXT)
    assert load_tokenizer(exported).sha256 == ours.sha256
    model = AutoModelForCausalLM.from_pretrained(exported)
    with torch.no_grad():
        logits = model(ids).logits
    assert logits.shape == (1, ids.shape[1], ours.vocab_size)
    assert model.config.eos_token_id == ours.eos_id
    loss = torch.nn.functional.cross_entropy(logits[0, :-1], ids[0, 1:])
    assert loss < 0.95 * torch.tensor(float(ours.vocab_size)).log()  # it has learnt something of its corpus
    assert model.generate(ids, max_new_tokens=4, do_sample=False).shape[1] > ids.shape[1]


def test_its_weights_are_the_checkpoints(exported, unbroken):
    """Shapes by name, and a shard of two ranks put together: q, k and v of both, gate and up of both."""
    from safetensors.torch import load_file

    weights = load_file(exported / "model.safetensors")
    described = json.loads((exported / "config.json").read_text())
    assert described["architectures"] == ["LlamaForCausalLM"]
    assert weights["model.layers.1.self_attn.k_proj.weight"].shape == (16, 32)
    assert weights["model.layers.0.mlp.gate_proj.weight"].shape == (48, 32)
    assert not any(value.isnan().any() or value.std() == 0 for value in weights.values())


@pytest.mark.parametrize(
    ("environment", "says"),
    [({"WORLD_SIZE": "2"}, "works on one rank"), ({}, "already there and not empty")],
)
def test_what_it_refuses(exported, unbroken, tmp_path, monkeypatch, environment, says):
    from rlpt.errors import ConfigError
    from rlpt.export import main

    for key, value in environment.items():
        monkeypatch.setenv(key, value)
    with pytest.raises(ConfigError, match=says):
        main(unbroken, tmp_path / "new" if environment else exported)
    assert not (tmp_path / "new").exists()
