"""An existing Hugging Face tokenizer (tokenizer.json) as a run's own: exact text <-> ids, marks kept apart from text.

Byte-level BPE (GPT-2, Llama 3, Qwen) and BPE with SentencePiece's byte pieces (Llama 2, Gemma) can be exact; what each
token spells follows from the file. Whatever lowers case, normalises or drops text is refused: bits per byte are of the
text as it is, and what the policy sampled must be what the trainer scores.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from rlpt.errors import DataError
from rlpt.template import SPECIAL_TOKENS

KIND = "transformers"  # what meta.json calls it
TOKENIZER_FILE, TOKENIZER_CONFIG_FILE = "tokenizer.json", "tokenizer_config.json"
SPACE_PIECE = "\u2581"  # how SentencePiece writes a space
PROBE = " a  B\n\tx=[1,22,333]\r\n\u00c9e\u0301 \ufb01\uff11 漢😀<0x41><s> "
_LISTS = {"normalizer": "normalizers", "pre_tokenizer": "pretokenizers", "decoder": "decoders"}
_PRE_TOKENIZERS = frozenset({"ByteLevel", "Digits", "Metaspace", "Punctuation", "Split"})
_FALLBACK_DECODERS = frozenset({"ByteFallback", "Fuse", "Metaspace", "Replace"})
_REMEDY = "use a tokenizer that keeps text as it is, or leave tokenizer.existing out to train one"
_ANEW = "run `python -m data_prep all CONFIG` to write it anew"


def load_transformers_tokenizer(folder: Path, meta: Mapping[str, Any]) -> TransformersTokenizer:
    """The tokenizer in `folder`; `meta` is its meta.json. Raises DataError when it has changed since it was prepared,
    FileNotFoundError when tokenizer.json is missing."""
    path = folder / TOKENIZER_FILE
    try:
        definition = json.loads(path.read_bytes())
        pad_token, eos_token = str(meta["pad_token"]), str(meta["eos_token"])
    except ValueError as error:
        raise DataError(f"{path}: not valid JSON ({error}); {_ANEW}") from None
    except KeyError as error:
        raise DataError(f"{folder / 'meta.json'}: lacks {error}; {_ANEW}") from None
    return TransformersTokenizer(definition, pad_token, eos_token, str(folder), str(meta.get("sha256")))


def components(definition: Mapping[str, Any], key: str) -> list[dict[str, Any]]:
    """The members of a tokenizer.json's `key` ("normalizer", "pre_tokenizer" or "decoder"), sequences unfolded."""

    def unfold(component: dict[str, Any] | None) -> Iterator[dict[str, Any]]:
        if component is not None and component["type"] == "Sequence":
            for member in component[_LISTS[key]]:
                yield from unfold(member)
        elif component is not None:
            yield component

    return list(unfold(definition.get(key)))


class TransformersTokenizer:
    """`types.Tokenizer` over a tokenizer.json whose special tokens hold the template's marks, pad and end of text.

    `byte_lengths` [V] int64 gives the UTF-8 bytes that each token adds to a text: 0 for special tokens. `vocab_size` is
    the largest id + 1. No text ever gives a special token, whichever it spells, and nothing is put before or after it.
    """

    def __init__(
        self,
        definition: dict[str, Any],
        pad_token: str,
        eos_token: str,
        name: str = "tokenizer",
        wanted_sha256: str | None = None,
    ) -> None:
        """`definition` is tokenizer.json, parsed; `name` is what errors call it. Raises DataError where text would not
        come back as it went in, where a byte, a mark, pad or end of text has no token, or for another hash.

        `sha256` is of tokenizer.json's content, whatever its layout, and of which tokens are pad and end of text.
        """
        import tokenizers

        os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")  # its threads neither survive a fork nor help workers
        canonical = json.dumps(definition, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
        content = json.dumps([pad_token, eos_token]) + canonical
        self.sha256: str = hashlib.sha256(content.encode("utf-8")).hexdigest()
        if wanted_sha256 is not None and wanted_sha256 != self.sha256:
            raise DataError(
                f"{name}/{TOKENIZER_FILE}: SHA-256 {self.sha256[:12]}, meta.json says {wanted_sha256[:12]}: the "
                f"tokenizer has changed since the shards were made; {_ANEW}"
            )
        _check_definition(definition, name)
        try:
            self._backend: Any = tokenizers.Tokenizer.from_str(canonical)
        except Exception as error:  # tokenizers raises nothing narrower
            raise DataError(f"{name}: not a tokenizer.json ({error}); {_REMEDY}") from None
        self._backend.encode_special_tokens = True  # special tokens that a text spells are text
        added: list[dict[str, Any]] = definition["added_tokens"]
        special: dict[str, int] = {token["content"]: token["id"] for token in added if token["special"]}
        lacking = [token for token in (*SPECIAL_TOKENS, pad_token, eos_token) if token not in special]
        if lacking:
            raise DataError(f"{name}: has no special token {', '.join(lacking)}; {_REMEDY}")
        if eos_token in SPECIAL_TOKENS:
            raise DataError(
                f"{name}: its end of text is {eos_token}, a mark; set another eos_token in its configuration"
            )
        self._marks = {mark: special[mark] for mark in SPECIAL_TOKENS}
        self.pad_id: int = special[pad_token]
        self.eos_id: int = special[eos_token]
        vocabulary: dict[str, int] = self._backend.get_vocab(with_added_tokens=True)
        self.vocab_size: int = max(vocabulary.values()) + 1
        moved = [token["content"] for token in added if vocabulary.get(token["content"]) != token["id"]]
        if moved or len(set(vocabulary.values())) < len(vocabulary):
            raise DataError(
                f"{name}: its ids have holes or clash ({', '.join(moved[:3])} would be another's); {_REMEDY}"
            )

        spelling = _Spelling(definition, name)
        self._bytes = spelling.byte_ids
        taken = [token for token, token_id in special.items() if token_id in spelling.byte_ids]
        if taken:
            raise DataError(f"{name}: its special token {taken[0]} is the only one of a byte; {_REMEDY}")
        self._token_bytes = [b""] * self.vocab_size
        for token, spelt in spelling.tokens.items():
            self._token_bytes[token] = spelt
        self._shown = list(self._token_bytes)
        for mark, token in self._marks.items():
            self._shown[token] = mark.encode("utf-8")
        self._characters = spelling.characters
        self._single = frozenset(filter(lambda text: len(text) == 1, {*special, *spelling.ambiguous}))
        patterns = [re.escape(text) for text in sorted({*special, *spelling.ambiguous})]
        claimed = "|".join([*patterns, *spelling.patterns])
        self._special = re.compile(claimed)
        self._starts = re.compile(f"(?={claimed})")  # also of those that overlap; slower to search for
        self.byte_lengths: np.ndarray = np.array([len(spelt) for spelt in self._token_bytes], dtype=np.int64)
        self._check_probe(name)

    def _check_probe(self, name: str) -> None:
        ids = self.encode(PROBE)
        for found in (self.decode(ids), self._backend.decode(ids, skip_special_tokens=False)):
            if found != PROBE:
                raise DataError(f"{name}: {PROBE!r} comes back as {found!r}; {_REMEDY}")

    def encode(self, text: str) -> list[int]:
        """Ids that decode to exactly `text`; never a special token, even where the text spells one."""
        return self._plain(text) if self._special.search(text) is None else self._encode_special(text)

    def encode_batch(self, texts: Sequence[str]) -> list[list[int]]:
        """`encode` of each text, in one call of the library for the plain ones."""
        plain = [index for index, text in enumerate(texts) if self._special.search(text) is None]
        batch = self._backend.encode_batch_fast([texts[index] for index in plain], add_special_tokens=False)
        encoded = {index: one.ids for index, one in zip(plain, batch, strict=True)}
        return [encoded[i] if i in encoded else self._encode_special(text) for i, text in enumerate(texts)]

    def encode_characters(self, text: str) -> list[int]:
        """One token a character; the tokens of its UTF-8 bytes for a character that has none."""
        ids: list[int] = []
        for character in text:
            token = self._characters.get(character)
            ids.extend(self._byte_tokens(character) if token is None else [token])
        return ids

    def decode(self, ids: Sequence[int]) -> str:
        """The text of `ids`: marks are spelt out, other special tokens are silent, broken UTF-8 becomes U+FFFD."""
        return b"".join(self._shown[token] for token in ids).decode("utf-8", errors="replace")

    def decode_bytes(self, ids: Sequence[int]) -> bytes:
        """The bytes of `ids`; marks and other special tokens have none."""
        return b"".join(self._token_bytes[token] for token in ids)

    def mark_id(self, mark: str) -> int:
        """The id of one of `template.SPECIAL_TOKENS`; KeyError for anything else."""
        return self._marks[mark]

    def _plain(self, text: str) -> list[int]:
        return self._backend.encode(text, add_special_tokens=False).ids

    def _byte_tokens(self, text: str) -> list[int]:
        return [self._bytes[value] for value in text.encode("utf-8")]

    def _encode_special(self, text: str) -> list[int]:
        """What spells a special token is cut after its first character, so that no token can span it; a single
        character that means something else goes byte by byte."""
        ids: list[int] = []
        start = 0
        for match in self._starts.finditer(text):
            at = match.start()
            is_single = text[at] in self._single
            ids.extend(self._plain(text[start : at if is_single else at + 1]))
            ids.extend(self._byte_tokens(text[at]) if is_single else [])
            start = at + 1
        return ids + self._plain(text[start:])


class _Spelling:
    """What the tokens of a tokenizer.json add to a text, derived from its decoder.

    `tokens`: id -> bytes, special tokens left out; `characters`: character -> its own token; `byte_ids` [256]: the
    token of each byte; `ambiguous`: texts that an added token claims but does not spell; `patterns`: regular
    expressions of more texts that must not reach the model as they are.
    """

    def __init__(self, definition: Mapping[str, Any], name: str) -> None:
        vocabulary: dict[str, int] = definition["model"]["vocab"]
        is_byte_level = _is_byte_level(definition)
        alphabet = byte_alphabet()
        pieces = [alphabet[value] if is_byte_level else f"<0x{value:02X}>" for value in range(256)]
        missing = [piece for piece in pieces if piece not in vocabulary]
        if missing:
            raise DataError(f"{name}: has no token for {len(missing)} of 256 bytes, e.g. {missing[0]}; {_REMEDY}")
        self.byte_ids = [vocabulary[piece] for piece in pieces]
        spell = _spell_byte_level if is_byte_level else _spell_fallback
        self.tokens: dict[int, bytes] = {token: spell(piece) for piece, token in vocabulary.items()}
        self.tokens |= {token: bytes([value]) for value, token in enumerate(self.byte_ids)}
        self.ambiguous = set() if is_byte_level else {SPACE_PIECE}
        self.patterns = [] if is_byte_level else ["<0x[0-9A-F]{2}>"]
        added = definition["added_tokens"]
        for token in (token for token in added if not token["special"]):
            content = token["content"] if is_byte_level else token["content"].replace(SPACE_PIECE, " ")
            if self.tokens.setdefault(token["id"], content.encode("utf-8")) != content.encode("utf-8"):
                self.ambiguous.add(token["content"])
        for token in (token for token in added if token["special"]):
            self.tokens.pop(token["id"], None)
        self.characters: dict[str, int] = {}
        byte_pieces = set() if is_byte_level else set(self.byte_ids)
        for token in sorted(set(vocabulary.values()) - byte_pieces):
            text = self.tokens.get(token, b"").decode("utf-8", errors="ignore")
            if len(text) == 1 and text.encode("utf-8") == self.tokens[token]:
                self.characters.setdefault(text, token)


def _spell_byte_level(piece: str) -> bytes:
    values = _alphabet_values()
    if all(character in values for character in piece):
        return bytes(values[character] for character in piece)
    return piece.encode("utf-8")


def _spell_fallback(piece: str) -> bytes:
    return piece.replace(SPACE_PIECE, " ").encode("utf-8")


@cache
def byte_alphabet() -> tuple[str, ...]:
    """The character [256] by which byte-level BPE writes each byte: visible Latin-1 as itself, the others from U+0100
    on, in order (Radford et al. 2019, GPT-2)."""
    visible = {*range(33, 127), *range(161, 173), *range(174, 256)}
    others = iter(range(256, 512))
    return tuple(chr(value if value in visible else next(others)) for value in range(256))


@cache
def _alphabet_values() -> dict[str, int]:
    return {character: value for value, character in enumerate(byte_alphabet())}


def _is_byte_level(definition: Mapping[str, Any]) -> bool:
    return {part["type"] for part in components(definition, "decoder")} == {"ByteLevel"}


def _check_definition(definition: Mapping[str, Any], name: str) -> None:
    """Raises DataError where a component of tokenizer.json would not give text back as it was, or is not known to."""
    is_byte_level = _is_byte_level(definition)
    to_piece = {"type": "Replace", "pattern": {"String": " "}, "content": SPACE_PIECE}
    to_space = {"type": "Replace", "pattern": {"String": SPACE_PIECE}, "content": " "}
    for part in components(definition, "normalizer"):
        if part["type"] != "ByteLevel" if is_byte_level else part != to_piece:
            raise DataError(f"{name}: its normalizer {part['type']} changes text{_example(part)}; {_REMEDY}")
    for part in components(definition, "pre_tokenizer"):
        has_prefix = part.get("add_prefix_space") is True or part.get("prepend_scheme", "never") != "never"
        if part["type"] not in _PRE_TOKENIZERS or part.get("behavior") == "Removed" or has_prefix:
            raise DataError(f"{name}: its pre-tokenizer {part['type']} adds or drops text; {_REMEDY}")
    model = definition["model"]
    decoders = components(definition, "decoder")
    types = [part["type"] for part in decoders]
    is_fallback = "ByteFallback" in types and set(types) <= _FALLBACK_DECODERS
    is_fallback &= all(part == to_space for part in decoders if part["type"] == "Replace")
    if model.get("type") != "BPE" or not (is_byte_level or is_fallback) or bool(model["byte_fallback"]) != is_fallback:
        raise DataError(
            f"{name}: a {model.get('type')} model with decoder {' + '.join(types) or 'none'}, where byte-level BPE or "
            f"BPE with byte pieces was expected; {_REMEDY}"
        )
    for key in ("dropout", "continuing_subword_prefix", "end_of_word_suffix"):
        if model.get(key):
            raise DataError(f"{name}: its model has {key}={model[key]}, which does not keep text; {_REMEDY}")
    stripping = [token["content"] for token in definition["added_tokens"] if token["lstrip"] or token["rstrip"]]
    if stripping:
        raise DataError(f"{name}: its token {stripping[0]} swallows the spaces beside it; {_REMEDY}")


def _example(normalizer: Mapping[str, Any]) -> str:
    """What the normalizer does to a text that shows it."""
    import tokenizers

    bare = {"added_tokens": [], "normalizer": normalizer, "model": {"type": "BPE", "vocab": {}, "merges": []}}
    normalize = tokenizers.Tokenizer.from_str(json.dumps(bare)).normalizer.normalize_str
    for text in ("A", "\u00e9", "e\u0301", "\ufb01", " a ", "a b", "a\tb", '"', PROBE):
        if normalize(text) != text:
            return f" ({text!r} becomes {normalize(text)!r})"
    return ""
