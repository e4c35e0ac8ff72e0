"""The SentencePiece tokenizer of a run, as data preparation trained it: text <-> ids, marks kept apart from text."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from rlpt.errors import DataError
from rlpt.template import SPECIAL_TOKENS

MODEL_FILE = "tokenizer.model"
META_FILE = "meta.json"
SPACE_PIECE = "\u2581"  # SentencePiece writes a space so; the character itself is encoded as its bytes
_REMEDY = "run `python -m data_prep all CONFIG` (e.g. configs/data/quickstart.yaml) to train it"
_MARK = re.compile("|".join(map(re.escape, SPECIAL_TOKENS)))
_SPECIAL = re.compile("|".join(map(re.escape, (*SPECIAL_TOKENS, SPACE_PIECE))))


def load_tokenizer(folder: Path) -> SentencePieceTokenizer:
    """The tokenizer in `folder` (tokenizer.model + meta.json). Raises DataError when it is missing or changed."""
    folder = Path(folder)
    try:
        meta = json.loads((folder / META_FILE).read_bytes())
        model = (folder / MODEL_FILE).read_bytes()
    except FileNotFoundError as error:
        raise DataError(f"{folder}: no tokenizer here ({Path(error.filename).name} is missing); {_REMEDY}") from None
    except ValueError as error:
        raise DataError(f"{folder / META_FILE}: not valid JSON ({error}); {_REMEDY}") from None
    wanted = meta.get("sha256") if isinstance(meta, dict) else None
    found = hashlib.sha256(model).hexdigest()
    if wanted != found:
        raise DataError(
            f"{folder / MODEL_FILE}: SHA-256 {found[:12]}, {META_FILE} says {str(wanted)[:12]}: the model has "
            f"changed since the shards were made; {_REMEDY}"
        )
    return SentencePieceTokenizer(model, str(folder))


class SentencePieceTokenizer:
    """`types.Tokenizer` over a SentencePiece BPE model with byte pieces and the template's marks.

    `sha256` is the model's hash; `token_bytes` (V) are the UTF-8 bytes that each token adds to a text, none for marks
    and control tokens, one for a byte piece, and `byte_lengths` [V] int64 their numbers.
    """

    def __init__(self, model: bytes, name: str = "tokenizer") -> None:
        """`model` is a serialised SentencePiece model; `name` is what errors call it. Raises DataError for a model
        without byte pieces, pad, end of text or the template's marks."""
        import sentencepiece

        try:
            self._model: Any = sentencepiece.SentencePieceProcessor(model_proto=model)
        except (RuntimeError, OSError) as error:
            raise DataError(f"{name}: not a SentencePiece model ({error}); {_REMEDY}") from None
        self.sha256: str = hashlib.sha256(model).hexdigest()
        self.vocab_size: int = self._model.vocab_size()
        self.pad_id: int = self._model.pad_id()
        self.eos_id: int = self._model.eos_id()
        unknown = self._model.unk_id()
        self._bytes = [self._model.piece_to_id(f"<0x{value:02X}>") for value in range(256)]
        self._marks = {mark: self._model.piece_to_id(mark) for mark in SPECIAL_TOKENS}
        lacking = [mark for mark, token in self._marks.items() if token == unknown]
        lacking += ["pad"] * (self.pad_id < 0) + ["end of text"] * (self.eos_id < 0)
        lacking += ["byte pieces"] * (unknown in self._bytes)
        if lacking:
            raise DataError(f"{name}: has no token for {', '.join(lacking)}; {_REMEDY}")
        self._characters: dict[str, list[int]] = {}
        for token in range(self.vocab_size):
            piece = self._model.id_to_piece(token)
            if len(piece) == 1 and not self._model.is_control(token) and token != unknown:
                self._characters[" " if piece == SPACE_PIECE else piece] = [token]
        self.token_bytes: list[bytes] = self._spell(unknown)
        self.byte_lengths: np.ndarray = np.array([len(spelt) for spelt in self.token_bytes], dtype=np.int64)

    def _spell(self, unknown: int) -> list[bytes]:
        """The UTF-8 bytes that each token adds to a text."""
        silent = {unknown, *self._marks.values()}
        spelt = [b""] * self.vocab_size
        for token in range(self.vocab_size):
            if token not in silent and not self._model.is_byte(token) and not self._model.is_control(token):
                spelt[token] = self._model.id_to_piece(token).replace(SPACE_PIECE, " ").encode("utf-8")
        for value, token in enumerate(self._bytes):
            spelt[token] = bytes([value])
        return spelt

    def encode(self, text: str) -> list[int]:
        """Ids that decode to exactly `text`; never a mark, even where the text spells one."""
        return self._encode_special(text) if has_special(text) else self._model.encode(text)

    def encode_batch(self, texts: Sequence[str]) -> list[list[int]]:
        """`encode` of each text, in one call of the library for the plain ones."""
        plain = [index for index, text in enumerate(texts) if not has_special(text)]
        encoded = dict(zip(plain, self.encode_plain([texts[index] for index in plain]), strict=True))
        return [encoded[i] if i in encoded else self._encode_special(text) for i, text in enumerate(texts)]

    def encode_plain(self, texts: Sequence[str]) -> list[list[int]]:
        """`encode` of texts without marks' texts and U+2581 (`has_special`), in one call of the library."""
        return self._model.encode(list(texts), num_threads=1)

    def encode_characters(self, text: str) -> list[int]:
        """One token a character; the UTF-8 byte pieces of a character that has none."""
        ids: list[int] = []
        for character in text:
            ids.extend(self._characters.get(character) or self._byte_pieces(character))
        return ids

    @property
    def characters(self) -> list[str]:
        """The characters that are one token each in `encode_characters`, byte pieces aside."""
        return list(self._characters)

    def decode(self, ids: Sequence[int]) -> str:
        """The text of `ids`: marks are spelt out, control tokens are silent, broken UTF-8 becomes U+FFFD."""
        return self._model.decode([int(token) for token in ids])

    def decode_bytes(self, ids: Sequence[int]) -> bytes:
        """The bytes of `ids`, a byte piece's own one included; marks, control tokens and the unknown one have none."""
        return b"".join(self.token_bytes[token] for token in ids)

    def mark_id(self, mark: str) -> int:
        """The id of one of `template.SPECIAL_TOKENS`; KeyError for anything else."""
        return self._marks[mark]

    def _byte_pieces(self, text: str) -> list[int]:
        return [self._bytes[value] for value in text.encode("utf-8")]

    def _encode_special(self, text: str) -> list[int]:
        ids: list[int] = []
        for part in cut_special(text):
            ids.extend(self._byte_pieces(part) if part == SPACE_PIECE else self._model.encode(part))
        return ids


def has_special(text: str) -> bool:
    """Whether `text` spells a mark or holds U+2581, so that it is encoded part by part."""
    return ("<|" in text or SPACE_PIECE in text) and _SPECIAL.search(text) is not None


def cut_special(text: str) -> Iterator[str]:
    """The parts of a text that are encoded apart. A mark's text is cut after its first character, so that no piece
    spells a mark; U+2581 is a part of its own and goes byte by byte, because the model would read it as a space."""
    start = 0
    for cut in [match.start() + 1 for match in _MARK.finditer(text)] + [len(text)]:
        for index, part in enumerate(text[start:cut].split(SPACE_PIECE)):
            if index:
                yield SPACE_PIECE
            if part:
                yield part
        start = cut
