"""The texts of `rlpt bench encode`: the standard library's source code, and random words by Zipf's law."""

from __future__ import annotations

import json
import random
import sysconfig
from collections.abc import Iterator
from itertools import count
from pathlib import Path

import numpy as np

from rlpt.data.tokenizer import SPACE_PIECE
from rlpt.errors import DataError

_NUM_WORDS = 200_000
_WORDS_A_DOCUMENT = 1000
_SPECIAL = (SPACE_PIECE, "<|", "<s>", "</s>", "<pad>", "<unk>", "<0x")  # transformers reads some of them as tokens


def source_code(seed: int) -> Iterator[str]:
    """The interpreter's own library, a file a document, without end: when it is through, it comes again with the lines
    of each file in another, keyed, order. Raises DataError when there is none."""
    root = Path(sysconfig.get_paths()["stdlib"])
    paths = sorted(path for path in root.rglob("*.py") if "site-packages" not in path.parts)
    for turn in count():
        found = False
        for path in paths:
            try:
                text = path.read_text(encoding="utf-8")
            except (UnicodeDecodeError, OSError):
                continue
            if not text or any(special in text for special in _SPECIAL):
                continue
            found = True
            if turn:
                lines = text.splitlines(keepends=True)
                random.Random(f"{seed} {turn} {path.relative_to(root)}").shuffle(lines)
                text = "".join(lines)
            yield text
        if not found:
            raise DataError(f"{root}: no source files of the standard library there; run it with a whole Python")


def random_words(seed: int) -> Iterator[str]:
    """Documents of random words, the n-th of which is drawn in proportion to 1/n, without end."""
    rng = np.random.default_rng(seed)
    letters = np.array(list("abcdefghijklmnopqrstuvwxyz"))
    drawn = random.Random(seed)
    words = np.array(
        ["".join(drawn.choices(letters.tolist(), k=drawn.randrange(2, 13))) for _ in range(_NUM_WORDS)], dtype=object
    )
    shares = np.cumsum(1 / np.arange(1, _NUM_WORDS + 1))
    while True:
        places = np.searchsorted(shares, rng.random(_WORDS_A_DOCUMENT) * shares[-1])
        sentences = np.split(words[places], range(12, _WORDS_A_DOCUMENT, 12))
        yield " ".join(" ".join(sentence).capitalize() + "." for sentence in sentences) + "\n"


def write_jsonl(path: Path, texts: Iterator[str], num_bytes: int) -> int:
    """Writes one {"text": ...} a line until there are `num_bytes` of text in UTF-8; returns how many there are."""
    written = 0
    with open(path, "w", encoding="utf-8") as file:
        while written < num_bytes:
            text = next(texts)
            file.write(json.dumps({"text": text}, ensure_ascii=False) + "\n")
            written += len(text.encode("utf-8"))
    return written
