"""Text to the bytes of Megatron shards, exactly and fast: each segment of a text is encoded once and then looked up.

BPE merges two pieces only into a piece of its model, so no merge crosses a place that no piece has inside. Texts are
cut at such places (a space after another character, the ends of a run of letters, around a digit), and a text's ids are
those of its segments in order. Which cuts are safe is read from the model's pieces: any BPE model gives what `encode`
gives.

    python -m rlpt.data.encoding IN.jsonl PREFIX TOKENIZER --workers 2      writes PREFIX.bin and PREFIX.idx
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack
from dataclasses import asdict
from itertools import chain, pairwise
from pathlib import Path
from typing import Protocol

import numpy as np

from rlpt.data.indexed import ShardWriter, merge_shards, shard_dtype
from rlpt.data.manifest import ShardEntry
from rlpt.data.tokenizer import (
    SPACE_PIECE,
    RunTokenizer,
    SentencePieceTokenizer,
    cut_special,
    has_special,
    load_tokenizer,
)
from rlpt.errors import DataError, UserError
from rlpt.template import CHARACTERWISE, SPECIAL_TOKENS, encode_marked, split_marked

# From the finest cut to the coarsest; whether one falls between two characters depends on these two alone.
_CUTS = (r" *[A-Za-z]+| *[0-9]| *[^A-Za-z0-9 ]+| +", r" *[A-Za-z]+| *[^A-Za-z ]+| +", r" *[^ ]+| +")
_PROBES = (" a  b ", "a\tb  \n c", "x = f(1, 22)\r\n")
_BORDER = re.compile(r"(?<=[^ ]) ")
_MAX_SEGMENTS = 500_000  # in the cache, about 80 MB; then it starts anew
_MAX_KEPT = 64  # characters of a segment that is kept
_WINDOW = 1 << 20  # characters that are cut up at once: bounds memory
_READ = 1 << 20  # bytes of JSON lines that are encoded at once


class _Segments(dict[str, bytes]):
    """Segment -> bytes of its ids. A look-up of an unknown one gives nothing and is noted in `missed`."""

    def __init__(self, values: dict[str, bytes]) -> None:
        super().__init__(values)
        self.missed: list[str] = []

    def __missing__(self, segment: str) -> bytes:
        self.missed.append(segment)
        return b""


class FastEncoder:
    """Encodes documents as `SentencePieceTokenizer.encode` and `template.encode_marked` do, into the bytes of a shard.

    `uncached` says why this model's segments can't be looked up ("": they can); the ids are the same either way.
    """

    def __init__(self, tokenizer: RunTokenizer, dtype: np.dtype | type | None = None) -> None:
        """`dtype` is the shard's, uint16 or int32; None: the one that `ShardWriter` takes for this vocabulary."""
        self._tokenizer = tokenizer
        self.dtype: np.dtype = np.dtype(dtype) if dtype is not None else shard_dtype(tokenizer.vocab_size)
        self._end = self._pack([tokenizer.eos_id])
        self._fixed = {mark: self._pack([tokenizer.mark_id(mark)]) for mark in SPECIAL_TOKENS}
        self._fixed[SPACE_PIECE] = self._pack(tokenizer.encode(SPACE_PIECE))
        self._cache = _Segments(self._fixed)
        cut, self.uncached = _safe_cut(tokenizer)
        self._find = re.compile(cut).findall

    def encode(
        self, texts: Sequence[str], marked: bool = False, name: Callable[[int], str] | None = None
    ) -> tuple[bytes, np.ndarray]:
        """Ids of all documents, an end-of-text id after each, as bytes of `dtype`; and tokens a document, [D] int64.

        `marked`: trusted text of ours, its marks are ids of their own. `name` gives what errors call a document.
        Raises DataError for a document that UTF-8 can't hold, or whose ids would not spell exactly its bytes.
        """
        rows: list[bytes] = []
        owners: list[int] = []
        for window in _windows(texts, whole=marked or bool(self.uncached)):
            try:
                rows += self._encode_each(window, marked) if self.uncached else self._look_up(window, marked)
            except ValueError:
                raise self._refusal(window, marked, name) from None
            owners += [index for index, _, _ in window]
        sizes = np.fromiter(map(len, rows), np.int64, len(rows))
        lengths = np.zeros(len(texts), np.int64)
        np.add.at(lengths, owners, sizes // self.dtype.itemsize)
        return b"".join(rows), lengths

    def _look_up(self, window: list[tuple[int, str, bool]], marked: bool) -> list[bytes]:
        split = self._split_marked if marked else self._split
        segments = [split(text) for _, text, _ in window]
        if len(self._cache) > _MAX_SEGMENTS:
            self._cache = _Segments(self._fixed)
        get, missed = self._cache.__getitem__, self._cache.missed
        rows: list[bytes] = []
        lacking: list[int] = []
        for row in segments:
            before = len(missed)
            rows.append(b"".join(map(get, row)))
            if len(missed) > before:
                lacking.append(len(rows) - 1)
        if missed:
            new = list(dict.fromkeys(missed))
            missed.clear()
            self._learn(new)
            for index in lacking:
                rows[index] = b"".join(map(get, segments[index]))
            for segment in new:
                if len(segment) > _MAX_KEPT:
                    del self._cache[segment]
        return [row + self._end if last else row for row, (_, _, last) in zip(rows, window, strict=True)]

    def _split(self, text: str) -> list[str]:
        if not has_special(text):
            return self._find(text)
        return [s for part in cut_special(text) for s in ([part] if part == SPACE_PIECE else self._find(part))]

    def _split_marked(self, text: str) -> list[str]:
        """A mark is a segment, and so is each character after one that asks for it (`encode_marked`)."""
        segments: list[str] = []
        mode = ""
        for index, part in enumerate(split_marked(text)):
            if index % 2:
                mode = part
                segments.append(part)
            else:
                segments += part if mode in CHARACTERWISE else self._split(part)
        return segments

    def _learn(self, segments: list[str]) -> None:
        """Encodes segments in one call and keeps their ids. Raises ValueError unless they spell the segments' bytes."""
        assert isinstance(self._tokenizer, SentencePieceTokenizer), "segments of another model are not looked up"
        spelt = [segment.encode("utf-8") for segment in segments]
        ids = self._tokenizer.encode_plain(segments)
        lengths = np.fromiter(map(len, ids), np.int64, len(ids))
        flat = list(chain.from_iterable(ids))
        token_bytes = list(map(self._tokenizer.token_bytes.__getitem__, flat))
        wanted = np.cumsum(np.fromiter(map(len, spelt), np.int64, len(spelt)))
        reached = np.cumsum(np.fromiter(map(len, token_bytes), np.int64, len(flat)))[np.cumsum(lengths) - 1]
        if lengths.min() < 1 or not np.array_equal(wanted, reached) or b"".join(spelt) != b"".join(token_bytes):
            raise ValueError("ids that spell other bytes")
        data = self._pack(flat)
        ends = np.cumsum(lengths) * self.dtype.itemsize
        starts = ends - lengths * self.dtype.itemsize
        slices = map(slice, starts.tolist(), ends.tolist())
        self._cache.update(zip(segments, map(data.__getitem__, slices), strict=True))

    def _encode_each(self, window: list[tuple[int, str, bool]], marked: bool) -> list[bytes]:
        texts = [text for _, text, _ in window]
        encode = self._encode_marked if marked else self._tokenizer.encode_batch
        rows = encode(texts)
        for text, ids in zip(texts, rows, strict=True):
            if self._tokenizer.decode_bytes(ids) != _spelling(text, marked):
                raise ValueError("ids that spell other bytes")
        return [self._pack(ids) + self._end for ids in rows]

    def _encode_marked(self, texts: Sequence[str]) -> list[list[int]]:
        return [encode_marked(self._tokenizer, text) for text in texts]

    def _refusal(
        self, window: list[tuple[int, str, bool]], marked: bool, name: Callable[[int], str] | None
    ) -> DataError:
        """Says which document of the window can't be encoded."""
        for index, text, _ in window:
            where = name(index) if name is not None else f"document {index + 1} of the batch"
            try:
                wanted = len(_spelling(text, marked))
                self._encode_each([(index, text, True)], marked)
            except UnicodeEncodeError as error:
                return DataError(f"{where}: lone surrogate at character {error.start}; mend or remove the text")
            except ValueError:
                ids = encode_marked(self._tokenizer, text) if marked else self._tokenizer.encode(text)
                found = int(self._tokenizer.byte_lengths[ids].sum())
                return DataError(f"{where}: {wanted} bytes became tokens of {found} bytes; leave the text out")
        raise AssertionError("segments of the window do not spell what its documents spell")

    def _pack(self, ids: Sequence[int]) -> bytes:
        return np.array(ids, dtype=self.dtype).tobytes()


def _safe_cut(tokenizer: RunTokenizer) -> tuple[str, str]:
    """The finest of `_CUTS` that never falls inside a piece, and "", or the reason why there is none."""
    if not isinstance(tokenizer, SentencePieceTokenizer):
        return _CUTS[-1], "an existing tokenizer may cut texts otherwise"
    marks = {tokenizer.mark_id(mark) for mark in SPECIAL_TOKENS}
    spelt = [
        each.decode("utf-8") for token, each in enumerate(tokenizer.token_bytes) if len(each) > 1 and token not in marks
    ]
    crossed = ""
    for cut in _CUTS:
        find = re.compile(cut).findall
        crossed = next((piece for piece in spelt if len(find(piece)) > 1), "")
        if crossed:
            continue
        parts = [tokenizer.encode_plain(find(text)) for text in _PROBES]
        if [tokenizer.encode(text) for text in _PROBES] != [[*chain(*rows)] for rows in parts]:
            return cut, "the model changes spaces"
        singles = tokenizer.encode_plain(tokenizer.characters)
        if singles != [tokenizer.encode_characters(character) for character in tokenizer.characters]:
            return cut, "the model encodes single characters otherwise than one by one"
        return cut, ""
    return _CUTS[-1], f"the piece {crossed!r} has a space after another character"


def _windows(texts: Sequence[str], whole: bool) -> Iterator[list[tuple[int, str, bool]]]:
    """Lists of (document, text, whether the document ends with it) of about `_WINDOW` characters. Unless `whole`,
    longer documents come in slices that begin with a space after another character."""
    window: list[tuple[int, str, bool]] = []
    size = 0
    for index, text in enumerate(texts):
        start = 0
        while not whole and (border := _BORDER.search(text, start + _WINDOW)):
            yield [*window, (index, text[start : border.start()], False)]
            window, size, start = [], 0, border.start()
        window.append((index, text[start:] if start else text, True))
        size += len(text) - start
        if size >= _WINDOW:
            yield window
            window, size = [], 0
    if window:
        yield window


def _spelling(text: str, marked: bool) -> bytes:
    return ("".join(split_marked(text)[::2]) if marked else text).encode("utf-8")


class Encoder(Protocol):
    """What `encode_jsonl` asks of an encoder: `FastEncoder.encode`."""

    def encode(self, texts: Sequence[str], *, name: Callable[[int], str]) -> tuple[bytes, np.ndarray]: ...


def encode_jsonl(
    source: Path,
    prefix: Path,
    tokenizer_folder: Path,
    workers: int = 1,
    make_encoder: Callable[[RunTokenizer], Encoder] = FastEncoder,
) -> ShardEntry:
    """Encodes the key `text` of each JSON line of `source` into PREFIX.bin and PREFIX.idx, one document a line.

    Each worker is a process that takes an equal range of bytes; the result is the same for any number of them. Raises
    DataError `file:line: reason`.
    """
    size = source.stat().st_size
    borders = [size * worker // workers for worker in range(workers + 1)]
    ranges = list(pairwise(borders))
    if workers == 1:
        return _encode_range(source, prefix, tokenizer_folder, ranges[0], make_encoder)
    parts = [prefix.with_name(f"{prefix.name}.part{worker}") for worker in range(workers)]
    with ExitStack() as stack:
        for part in parts:
            stack.callback(_remove, part)
        context = multiprocessing.get_context("spawn")
        pool = stack.enter_context(ProcessPoolExecutor(workers, mp_context=context))
        jobs = [
            pool.submit(_encode_range, source, part, tokenizer_folder, span, make_encoder)
            for part, span in zip(parts, ranges, strict=True)
        ]
        entries = [job.result() for job in jobs]
        return merge_shards(list(zip(parts, entries, strict=True)), prefix)


def _encode_range(
    source: Path,
    prefix: Path,
    tokenizer_folder: Path,
    span: tuple[int, int],
    make_encoder: Callable[[RunTokenizer], Encoder],
) -> ShardEntry:
    """Encodes the lines that begin in bytes span[0] .. span[1] - 1."""
    tokenizer = load_tokenizer(tokenizer_folder)
    encoder = make_encoder(tokenizer)
    with open(source, "rb") as file, ShardWriter(prefix, tokenizer, tokenizer.byte_lengths) as writer:
        if span[0]:
            file.seek(span[0] - 1)
            file.readline()
        while (offset := file.tell()) < span[1]:
            lines = file.readlines(min(_READ, span[1] - offset))
            kept = [index for index, line in enumerate(lines) if not line.isspace()]

            def name(document: int, offset: int = offset, kept: list[int] = kept) -> str:
                return f"{source}:{_count_lines(source, offset) + kept[document] + 1}"

            texts = [_read_text(lines[index], name, document) for document, index in enumerate(kept)]
            writer.add_encoded(*encoder.encode(texts, name=name))
        return writer.finish()


def _remove(prefix: Path) -> None:
    for suffix in (".bin", ".idx"):
        prefix.with_name(prefix.name + suffix).unlink(missing_ok=True)


def _read_text(line: bytes, name: Callable[[int], str], document: int) -> str:
    try:
        record = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise DataError(f"{name(document)}: not a line of JSON ({error}); mend the line") from None
    text = record.get("text") if isinstance(record, dict) else None
    if not isinstance(text, str):
        raise DataError(f"{name(document)}: no text under the key 'text'; write one object with that key a line")
    return text


def _count_lines(path: Path, stop: int) -> int:
    """Lines that end in the first `stop` bytes of a file."""
    count = 0
    with open(path, "rb") as file:
        while stop > 0 and (block := file.read(min(stop, _READ))):
            count += block.count(b"\n")
            stop -= len(block)
    return count


def main(arguments: Sequence[str] | None = None) -> None:
    """Encodes one file as the command line says and prints the shard's entry as JSON."""
    parser = argparse.ArgumentParser(prog="python -m rlpt.data.encoding", description="JSON lines to a Megatron shard.")
    parser.add_argument("source", type=Path, metavar="IN.jsonl", help="one object a line, with the key `text`")
    parser.add_argument("prefix", type=Path, metavar="PREFIX", help="PREFIX.bin and PREFIX.idx are written")
    parser.add_argument("tokenizer", type=Path, metavar="TOKENIZER", help="a folder with tokenizer.model and meta.json")
    parser.add_argument("--workers", type=int, default=1, help="processes (default: 1)")
    options = parser.parse_args(arguments)
    if options.workers < 1:
        parser.error("--workers must be at least 1")
    try:
        entry = encode_jsonl(options.source, options.prefix, options.tokenizer, options.workers)
    except (UserError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(getattr(error, "exit_code", DataError.exit_code))
    print(json.dumps(asdict(entry)))


if __name__ == "__main__":
    main()
