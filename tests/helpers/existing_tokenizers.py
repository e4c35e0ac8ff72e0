"""Hugging Face tokenizers made on the spot, in the shapes that well-known models have."""

from __future__ import annotations

import argparse
import json
import textwrap
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

from helpers.shards import SENTENCES, tiny_model

EOS = "<|endoftext|>"
SPACE = "\u2581"
_SPLIT = r"'(?:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
Change = Callable[[dict[str, Any]], None]


@cache
def byte_level_json(vocab_size: int = 600) -> str:
    """tokenizer.json of a byte-level BPE as GPT-2's, trained on two modules of the standard library."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        special_tokens=[EOS],
        show_progress=False,
    )
    lines = [line for module in (textwrap, argparse) for line in Path(module.__file__).read_text().splitlines(True)]
    tokenizer.train_from_iterator([*lines, *["café é 漢字\u2581 "] * 50], trainer)
    return tokenizer.to_str()


@cache
def sentencepiece_json() -> str:
    """tokenizer.json of our own SentencePiece model, as transformers converts it."""
    import tempfile

    from data_prep.tokenizer import _export_transformers
    from rlpt.data.tokenizer import SentencePieceTokenizer

    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "tokenizer.model").write_bytes(tiny_model())
        _export_transformers(Path(folder), SentencePieceTokenizer(tiny_model()), SENTENCES)
        return (Path(folder) / "tokenizer.json").read_text(encoding="utf-8")


def add_token(definition: dict[str, Any], content: str, **flags: Any) -> None:
    """An added token with the next id."""
    ids = [*definition["model"]["vocab"].values(), *(token["id"] for token in definition["added_tokens"])]
    entry = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": False} | flags
    token_id = definition["model"]["vocab"].get(content, max(ids) + 1)
    definition["added_tokens"].append({"id": token_id, "content": content} | entry)


def _template(definition: dict[str, Any], token: str) -> None:
    (found,) = (one["id"] for one in definition["added_tokens"] if one["content"] == token)
    definition["post_processor"] = {
        "type": "TemplateProcessing",
        "single": [{"SpecialToken": {"id": token, "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}],
        "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 1}}],
        "special_tokens": {token: {"id": token, "ids": [found], "tokens": [token]}},
    }


def _qwen(definition: dict[str, Any]) -> None:
    split = {"type": "Split", "pattern": {"Regex": _SPLIT}, "behavior": "Isolated", "invert": False}
    levels = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": False, "use_regex": False}
    definition["normalizer"] = {"type": "NFC"}
    definition["pre_tokenizer"] = {"type": "Sequence", "pretokenizers": [split, levels]}
    add_token(definition, "<|im_start|>", special=True, lstrip=True)
    add_token(definition, "<tool_call>")
    add_token(definition, "<mask>", lstrip=True, rstrip=True)
    add_token(definition, "  ", normalized=True)
    add_token(definition, "\u0120the")  # the model's own token for " the", claimed by a text that is not that
    add_token(definition, "é漢")


def _llama3(definition: dict[str, Any]) -> None:
    _qwen(definition)
    definition["normalizer"] = None
    definition["model"]["ignore_merges"] = True
    definition["pre_tokenizer"]["pretokenizers"][0] |= {"behavior": "Removed", "invert": True}
    definition["model"]["dropout"] = 0.1
    add_token(definition, "<|end|>", special=False)  # a mark that is there already, as text
    _template(definition, EOS)


def _roberta(definition: dict[str, Any]) -> None:
    definition["pre_tokenizer"]["add_prefix_space"] = True


def _llama2(definition: dict[str, Any]) -> None:
    definition["normalizer"]["normalizers"].insert(0, {"type": "Prepend", "prepend": SPACE})
    definition["decoder"]["decoders"].append({"type": "Strip", "content": " ", "start": 1, "stop": 0})
    definition["model"]["ignore_merges"] = False
    definition["pre_tokenizer"] = None
    _template(definition, "<s>")


def _gemma(definition: dict[str, Any]) -> None:
    definition["pre_tokenizer"] = None  # a whole text is one word, and a word that is a token is that token
    add_token(definition, SPACE * 2)
    add_token(definition, "\n\n")
    add_token(definition, "   ", normalized=True)


def _metaspace(definition: dict[str, Any]) -> None:
    metaspace = {"type": "Metaspace", "replacement": SPACE, "prepend_scheme": "always", "split": True}
    definition["normalizer"] = None
    definition["pre_tokenizer"] = metaspace
    definition["decoder"] = {"type": "Sequence", "decoders": [{"type": "ByteFallback"}, metaspace]}


def _unchanged(definition: dict[str, Any]) -> None:
    pass


SHAPES: dict[str, tuple[Callable[[], str], Change, str]] = {
    "gpt2": (byte_level_json, _unchanged, EOS),
    "roberta": (byte_level_json, _roberta, EOS),
    "qwen": (byte_level_json, _qwen, EOS),
    "llama3": (byte_level_json, _llama3, EOS),
    "sentencepiece": (sentencepiece_json, _unchanged, "</s>"),
    "llama2": (sentencepiece_json, _llama2, "</s>"),
    "gemma": (sentencepiece_json, _gemma, "</s>"),
    "metaspace": (sentencepiece_json, _metaspace, "</s>"),
}


def write_existing_tokenizer(folder: Path, shape: str = "gpt2", change: Change = _unchanged, **names: str) -> Path:
    """A folder as transformers saves one, of a shape and with a further change of its tokenizer.json; `names` are
    entries of tokenizer_config.json."""
    make, own_change, eos = SHAPES[shape]
    definition = json.loads(make())
    own_change(definition)
    change(definition)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "tokenizer.json").write_text(json.dumps(definition), encoding="utf-8")
    described = {"tokenizer_class": "PreTrainedTokenizerFast", "eos_token": eos} | names
    (folder / "tokenizer_config.json").write_text(json.dumps(described), encoding="utf-8")
    return folder
