"""Exports a run's newest checkpoint as a transformers LlamaForCausalLM folder: `rlpt export RUN FOLDER`.

One rank does it whatever layout the run was trained at; no optimizer, no data and no lock of the run is needed.
"""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

from rlpt.data.tokenizer import META_FILE, MODEL_FILE, RunTokenizer
from rlpt.data.transformers_tokenizer import TOKENIZER_CONFIG_FILE, TOKENIZER_FILE, TransformersTokenizer
from rlpt.distributed.device import leave
from rlpt.errors import ConfigError
from rlpt.models.hf import llama_config, llama_weights
from rlpt.players import load_run
from rlpt.template import SPECIAL_TOKENS
from rlpt.training.runtime import Runtime

PROBE = "x = [1, 22, 333]\n\n\ta  b é漢😀"


def main(run: Path, folder: Path) -> None:
    """Writes config.json, model.safetensors and the tokenizer's files into `folder`, which appears whole or not at all.

    Adapters are merged into the weights, the vocabulary is cut to the real one, scalar heads are left out. Raises
    ConfigError for more than one rank and for a folder that is not empty, CheckpointError where there is nothing good
    to export.
    """
    if int(os.environ.get("WORLD_SIZE", 1)) > 1:
        raise ConfigError("export works on one rank, whatever the run was trained on; start it without a launcher")
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise ConfigError(f"{folder}: already there and not empty; name another folder")
    runtime, step = load_run(run, "export")
    partial = folder.with_name(folder.name + ".tmp")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    write_model(runtime, partial)
    write_tokenizer(runtime.config.tokenizer, runtime.tokenizer, partial)
    if folder.exists():
        folder.rmdir()
    partial.rename(folder)
    print(f"{run} after {step} steps -> {folder}")
    leave()


def write_model(runtime: Runtime, folder: Path) -> None:
    """config.json and model.safetensors."""
    from safetensors.torch import save_file

    tokenizer, device = runtime.tokenizer, runtime.device
    described = llama_config(runtime.config, tokenizer.vocab_size, tokenizer.pad_id, tokenizer.eos_id, device.dtype)
    (folder / "config.json").write_text(json.dumps(described, indent=1), encoding="utf-8")
    save_file(llama_weights(runtime.policy.gpt, tokenizer.vocab_size), folder / "model.safetensors", {"format": "pt"})


def write_tokenizer(source: Path, tokenizer: RunTokenizer, folder: Path) -> None:
    """Our own files, and those that transformers' AutoTokenizer reads. Raises ConfigError unless its ids are ours.

    There a mark in a text is the mark's token; our own `encode` never gives one.
    """
    import transformers

    names = [TOKENIZER_FILE, TOKENIZER_CONFIG_FILE, META_FILE]
    if not isinstance(tokenizer, TransformersTokenizer):
        exported: Any = transformers.AutoTokenizer.from_pretrained(source)
        exported.pad_token = "<pad>"
        exported.save_pretrained(folder)
        names = [MODEL_FILE, META_FILE]
    for name in names:
        shutil.copyfile(source / name, folder / name)
    reloaded: Any = transformers.AutoTokenizer.from_pretrained(folder)
    wanted = [tokenizer.encode(PROBE), *([tokenizer.mark_id(mark)] for mark in SPECIAL_TOKENS)]
    found = [reloaded(text)["input_ids"] for text in (PROBE, *SPECIAL_TOKENS)]
    if found != wanted or (reloaded.pad_token_id, reloaded.eos_token_id) != (tokenizer.pad_id, tokenizer.eos_id):
        raise ConfigError(
            f"{source}: transformers {transformers.__version__} tokenizes otherwise; use another version of it"
        )
