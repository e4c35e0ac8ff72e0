"""An existing Hugging Face tokenizer made ready for a preparation: the template's marks added, and what puts something
before a text or rewrites it without need left out."""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path
from typing import Any

from rlpt.data.manifest import atomic_writer, sha256_file, write_json
from rlpt.data.tokenizer import META_FILE, MODEL_FILE
from rlpt.data.transformers_tokenizer import (
    KIND,
    SPACE_PIECE,
    TOKENIZER_CONFIG_FILE,
    TOKENIZER_FILE,
    TransformersTokenizer,
    components,
)
from rlpt.errors import DataError
from rlpt.template import SPECIAL_TOKENS

PAD = "<pad>"  # added where there is none


def adapt_existing(existing: str) -> tuple[TransformersTokenizer, dict[str, Any], dict[str, Any]]:
    """A folder or hub name -> the tokenizer, its tokenizer.json, and what meta.json says of it.

    Marks (and a missing pad) become special tokens. NFC, spaces and tokens before a text are left out, which changes no
    token's meaning, and stderr says so. Raises DataError when it can't be loaded, has no end of text, or does not keep
    text as it is.
    """
    source = _load(existing)
    if not source.eos_token:
        raise DataError(
            f"tokenizer.existing={existing}: has no end-of-text token; put eos_token into the "
            f"{TOKENIZER_CONFIG_FILE} of a copy of it and name that folder"
        )
    definition: dict[str, Any] = json.loads(source.backend_tokenizer.to_str())
    pad_token, eos_token = str(source.pad_token or PAD), str(source.eos_token)
    left_out = _leave_out(definition)
    for token in (*SPECIAL_TOKENS, pad_token, eos_token):
        _add_special(definition, token)
    tokenizer = TransformersTokenizer(definition, pad_token, eos_token, f"tokenizer.existing={existing}")
    if left_out:
        print(f"tokenizer: {existing} is used without its {', '.join(left_out)}", file=sys.stderr, flush=True)
    meta = {
        "kind": KIND,
        "sha256": tokenizer.sha256,
        "vocab_size": tokenizer.vocab_size,
        "pad_token": pad_token,
        "eos_token": eos_token,
        "left_out": left_out,
    }
    return tokenizer, definition, meta


def write_existing(
    folder: Path, tokenizer: TransformersTokenizer, definition: dict[str, Any], meta: dict[str, Any], probes: list[str]
) -> None:
    """Writes tokenizer.json, tokenizer_config.json and, last, meta.json. Raises DataError unless transformers reads the
    first two with the same ids for `probes` that spell no special token."""
    import transformers

    (folder / META_FILE).unlink(missing_ok=True)  # a folder without it is no tokenizer
    (folder / MODEL_FILE).unlink(missing_ok=True)
    write_json(folder / TOKENIZER_FILE, definition)
    with tempfile.TemporaryDirectory(dir=folder) as scratch:
        described: Any = transformers.PreTrainedTokenizerFast(
            tokenizer_file=str(folder / TOKENIZER_FILE),
            pad_token=meta["pad_token"],
            eos_token=meta["eos_token"],
            clean_up_tokenization_spaces=False,
        )
        described.save_pretrained(scratch)
        with atomic_writer(folder / TOKENIZER_CONFIG_FILE) as file:
            file.write((Path(scratch) / TOKENIZER_CONFIG_FILE).read_bytes())
    reloaded: Any = transformers.AutoTokenizer.from_pretrained(folder)
    wanted = [tokenizer.encode(text) for text in probes] + [[tokenizer.mark_id(mark)] for mark in SPECIAL_TOKENS]
    found = [reloaded(text)["input_ids"] for text in (*probes, *SPECIAL_TOKENS)]
    if found != wanted or (reloaded.pad_token_id, reloaded.eos_token_id) != (tokenizer.pad_id, tokenizer.eos_id):
        raise DataError(
            f"{folder}: transformers {transformers.__version__} reads it otherwise; use another version of transformers"
        )
    write_json(folder / META_FILE, meta)


def existing_fingerprint(existing: str) -> list[str]:
    """What tells whether the tokenizer named has changed: its name and, where it is a folder, its files' hashes."""
    folder = Path(existing).expanduser()
    files = sorted(path for path in folder.glob("*") if path.is_file()) if existing and folder.is_dir() else []
    return [existing, *(f"{path.name} {sha256_file(path)}" for path in files)]


def _load(existing: str) -> Any:
    """The fast tokenizer that transformers finds. Raises DataError with the reason."""
    import transformers

    folder = Path(existing).expanduser()
    is_path = existing.startswith((".", "/", "~")) or existing.count("/") > 1
    if is_path and not folder.is_dir():
        raise DataError(
            f"tokenizer.existing={existing}: no such folder; give a folder with {TOKENIZER_FILE} or a hub name"
        )
    try:
        found: Any = transformers.AutoTokenizer.from_pretrained(str(folder) if folder.is_dir() else existing)
    except Exception as error:  # transformers, tokenizers and the hub's client raise all kinds
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        remedy = f"mend {folder}" if folder.is_dir() else "a hub name needs the network: connect, or give a folder"
        raise DataError(f"tokenizer.existing={existing}: transformers can't load it ({reason}); {remedy}") from None
    if getattr(found, "backend_tokenizer", None) is None:
        raise DataError(f"tokenizer.existing={existing}: has no {TOKENIZER_FILE} form; use a tokenizer that has one")
    return found


def _leave_out(definition: dict[str, Any]) -> list[str]:
    """Changes tokenizer.json in place so that nothing is added to a text, and says in words what was taken away.

    NFC goes because a vocabulary of composed characters serves both forms, each spelt exactly; other normalizers stay,
    for the tokenizer to refuse.
    """
    left_out: list[str] = []
    normalizers, decoders = components(definition, "normalizer"), components(definition, "decoder")
    if any(part["type"] == "NFC" for part in normalizers):
        left_out.append("NFC normalizer")
    prefix = {"type": "Prepend", "prepend": SPACE_PIECE}
    has_prefix = prefix in normalizers
    kept = [part for part in normalizers if part["type"] != "NFC" and part != prefix]
    for part in components(definition, "pre_tokenizer"):
        if part["type"] == "ByteLevel" and part["add_prefix_space"]:
            part["add_prefix_space"], has_prefix = False, True
        elif part["type"] == "Metaspace" and part["prepend_scheme"] != "never":
            part["prepend_scheme"], has_prefix = "never", True
        elif part["type"] == "Split" and part["behavior"] == "Removed" and part["invert"]:
            part["behavior"], part["invert"] = "Isolated", False  # the same pieces, and those between are kept
    for part in decoders:
        if part["type"] == "Metaspace":
            part["prepend_scheme"] = "never"
    decoders = [part for part in decoders if part != {"type": "Strip", "content": " ", "start": 1, "stop": 0}]
    definition["normalizer"] = {"type": "Sequence", "normalizers": kept} if kept else None
    definition["decoder"] = {"type": "Sequence", "decoders": decoders} if decoders else None
    left_out += ["space before a text"] if has_prefix else []
    if _adds_tokens(definition["post_processor"]):
        left_out.append("special tokens around a text")
    definition.update(truncation=None, padding=None, post_processor=None)
    for token in definition["added_tokens"]:
        token["lstrip"] = token["rstrip"] = False
    if definition["model"].get("dropout"):
        definition["model"]["dropout"] = None
        left_out.append("dropout")
    return left_out


def _adds_tokens(processor: dict[str, Any] | None) -> bool:
    """Whether a post-processor puts special tokens around a text."""
    if processor is None or processor["type"] == "ByteLevel":
        return False
    if processor["type"] == "Sequence":
        return any(_adds_tokens(part) for part in processor["processors"])
    return processor["type"] != "TemplateProcessing" or any("SpecialToken" in part for part in processor["single"])


def _add_special(definition: dict[str, Any], content: str) -> None:
    """Makes `content` a special token: the one that is there, or a new one with the next id."""
    added, vocabulary = definition["added_tokens"], definition["model"]["vocab"]
    known = {token["content"]: token["id"] for token in added}
    if isinstance(vocabulary, list):  # of a model that is refused in any case
        vocabulary = {entry[0]: index for index, entry in enumerate(vocabulary)}
    ids = [*vocabulary.values(), *known.values()]
    token_id = known.get(content, vocabulary.get(content, max(ids, default=-1) + 1))
    flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
    kept = [token for token in added if token["content"] != content]
    entry = {"id": token_id, "content": content, **flags}
    definition["added_tokens"] = sorted([*kept, entry], key=lambda token: token["id"])
