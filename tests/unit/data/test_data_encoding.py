"""Encoding by looked-up segments gives the ids of the slow path, and the same bytes for any number of workers."""

import io
import json
import random
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import sentencepiece
from helpers.shards import SENTENCES, tiny_model, write_tokenizer

from data_prep.config import TokenizerConfig
from data_prep.tokenizer import train_model
from rlpt.data import encoding
from rlpt.data.encoding import FastEncoder, encode_jsonl, main
from rlpt.data.tokenizer import SPACE_PIECE, SentencePieceTokenizer
from rlpt.errors import DataError
from rlpt.template import SPECIAL_TOKENS, encode_marked

CODE = [line for line in Path(json.__file__).with_name("decoder.py").read_text().splitlines() if line.strip()]
WORDS = ["self.x1", "sort_2", "the", "a.b.c", "Encoder"]


@cache
def tokenizer(kind):
    if kind == "tiny":
        return SentencePieceTokenizer(tiny_model())
    options = {"vocab_size": 1200 if kind == "large" else 600, "words": WORDS if kind == "words" else []}
    return SentencePieceTokenizer(train_model(SENTENCES + CODE, TokenizerConfig.model_validate(options)))


def characters(rng, low, high, count):
    return "".join(chr(c) for c in (rng.randrange(low, high) for _ in range(count)) if not 0xD800 <= c <= 0xDFFF)


def fuzz_text(rng):
    makers = (
        lambda: rng.choice(CODE),
        lambda: rng.choice(SENTENCES),
        lambda: " " * rng.randrange(1, 40),
        lambda: rng.choice([*SPECIAL_TOKENS, "<|", "|>", "<s>", "</s>", "<0x41>", "<unk>", SPACE_PIECE]),
        lambda: rng.choice(
            ["\0", "\r", "\r\n", "\n\n", "\t", "\ufeff", "\u00a0", "\u3000", "\x7f", "", "e\u0301", "\ufffd"]
        ),
        lambda: rng.choice([*WORDS, "self.x12", "athe", "sort_22 the"]),
        lambda: characters(rng, 0, 0x110000, rng.randrange(8)),
        lambda: characters(rng, 32, 0x2600, rng.randrange(8)),
        lambda: characters(rng, 33, 127, rng.randrange(20)),
        lambda: rng.choice("abz09_") * rng.randrange(200),
        lambda: str(rng.randrange(10**9)),
        lambda: " ",
    )
    return "".join(rng.choice(makers)() for _ in range(rng.randrange(7)))


FUZZ = [fuzz_text(random.Random(f"fuzz {n}")) for n in range(16_000)]


def rows(encoder, texts, **options):
    data, lengths = encoder.encode(texts, **options)
    ids = np.frombuffer(data, encoder.dtype)
    assert (lengths.sum(), lengths.dtype, len(lengths)) == (ids.size, np.int64, len(texts))
    return [row.tolist() for row in np.split(ids, np.cumsum(lengths)[:-1])] if texts else []


@pytest.mark.parametrize("kind", ["tiny", "large", "words"])
def test_16000_fuzzed_texts_give_the_ids_of_the_slow_path(kind):
    slow = tokenizer(kind)
    fast = FastEncoder(slow)
    assert not fast.uncached
    for start in range(0, len(FUZZ), 500):
        texts = FUZZ[start : start + 500]
        assert rows(fast, texts) == [[*slow.encode(text), slow.eos_id] for text in texts]


def test_int32_shards_hold_the_same_ids():
    texts = FUZZ[:300]
    assert rows(FastEncoder(tokenizer("large"), np.int32), texts) == rows(FastEncoder(tokenizer("large")), texts)


@pytest.mark.parametrize("kind", ["tiny", "words"])
def test_marked_documents_give_the_ids_of_encode_marked(kind):
    slow = tokenizer(kind)
    rng = random.Random(3)
    pieces = [*SPECIAL_TOKENS * 3, "12 + 3", "é漢", SPACE_PIECE, "the number", "  ", "<|", *CODE[:20]]
    texts = ["".join(rng.choices(pieces, k=rng.randrange(9))) for _ in range(2000)]
    assert rows(FastEncoder(slow), texts, marked=True) == [[*encode_marked(slow, t), slow.eos_id] for t in texts]


def test_a_small_cache_and_small_windows_change_nothing(monkeypatch):
    slow = tokenizer("large")
    wanted = [[*slow.encode(text), slow.eos_id] for text in FUZZ[:400]]
    for name, value in (("_MAX_SEGMENTS", 5), ("_MAX_KEPT", 2), ("_WINDOW", 7)):
        monkeypatch.setattr(encoding, name, value)
    fast = FastEncoder(slow)
    assert [rows(fast, FUZZ[start : start + 100]) for start in range(0, 400, 100)] == [
        wanted[start : start + 100] for start in range(0, 400, 100)
    ]


def test_long_documents_are_cut_where_it_is_safe(monkeypatch):
    monkeypatch.setattr(encoding, "_WINDOW", 50)
    slow = tokenizer("words")
    texts = ["\n".join(CODE), "x" * 300, " " * 300 + "a", "a" + " " * 300, "".join(FUZZ[:200])]
    assert rows(FastEncoder(slow), texts) == [[*slow.encode(text), slow.eos_id] for text in texts]


def crossing_model():
    """A model with pieces that hold a space after a letter."""
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(["of the of the of the and of the"] * 50),
        model_writer=model,
        model_type="bpe",
        vocab_size=300,
        byte_fallback=True,
        split_by_whitespace=False,
        normalization_rule_name="identity",
        remove_extra_whitespaces=False,
        add_dummy_prefix=False,
        user_defined_symbols=list(SPECIAL_TOKENS),
        pad_id=3,
        minloglevel=2,
    )
    return SentencePieceTokenizer(model.getvalue())


def test_a_model_whose_pieces_cross_words_is_not_cached_and_says_why():
    slow = crossing_model()
    fast = FastEncoder(slow)
    assert "has a space after another character" in fast.uncached
    texts = ["of the of the and", "  of the", *FUZZ[:300]]
    assert rows(fast, texts) == [[*slow.encode(text), slow.eos_id] for text in texts]
    marked = ["<|prompt|>of the<|answer|>of the<|end|>"]
    assert rows(fast, marked, marked=True) == [[*encode_marked(slow, marked[0]), slow.eos_id]]


def test_ids_that_would_not_spell_the_document_are_refused():
    lossy = tokenizer("tiny")
    broken = SentencePieceTokenizer(tiny_model())
    token = lossy.encode("number")[0]
    broken.token_bytes[token] = b"?"
    broken.byte_lengths[token] = 1
    with pytest.raises(DataError, match=r"b\.txt: \d+ bytes became tokens of \d+ bytes; leave the text out"):
        FastEncoder(broken).encode(["x", "number"], name=["a.txt", "b.txt"].__getitem__)
    with pytest.raises(DataError, match=r"document 2 of the batch: lone surrogate at character 1"):
        FastEncoder(lossy).encode(["x", "a\ud800"])
    assert rows(FastEncoder(lossy), []) == []


def write_lines(path, texts):
    path.write_bytes(b"".join(json.dumps({"text": text}).encode() + b"\n" for text in texts))


def test_a_jsonl_file_gives_the_same_bytes_for_any_number_of_workers(tmp_path, capsys):
    slow = write_tokenizer(tmp_path / "tokenizer")
    source = tmp_path / "in.jsonl"
    texts = FUZZ[:700]
    write_lines(source, texts)
    source.write_bytes(b"\xef\xbb\xbf" + source.read_bytes().replace(b"\n", b"\r\n \n", 3).rstrip(b"\n"))
    main([str(source), str(tmp_path / "one"), str(tmp_path / "tokenizer")])
    printed = json.loads(capsys.readouterr().out)
    entry = encode_jsonl(source, tmp_path / "three", tmp_path / "tokenizer", workers=3)
    assert (printed["documents"], printed["bin_sha256"]) == (700, entry.bin_sha256)
    for suffix in (".bin", ".idx"):
        assert (tmp_path / f"one{suffix}").read_bytes() == (tmp_path / f"three{suffix}").read_bytes()
    flat = [token for text in texts for token in [*slow.encode(text), slow.eos_id]]
    assert np.fromfile(tmp_path / "one.bin", np.uint16).tolist() == flat
    assert sorted(p.name for p in tmp_path.iterdir() if "part" in p.name or "tmp" in p.name) == []


@pytest.mark.parametrize("workers", [1, 2])
def test_a_bad_line_is_named_and_nothing_is_written(tmp_path, workers):
    write_tokenizer(tmp_path / "tokenizer")
    source = tmp_path / "in.jsonl"
    lines = [b'{"text": "a"}'] * 40
    for bad, reason in ((b'{"text": 1}', "no text under the key"), (b'{"text"', "not a line of JSON")):
        source.write_bytes(b"\n".join([*lines[:30], b"", bad, *lines[30:]]))
        with pytest.raises(DataError, match=rf"in\.jsonl:32: {reason}"):
            encode_jsonl(source, tmp_path / "out", tmp_path / "tokenizer", workers)
        assert sorted(path.name for path in tmp_path.iterdir()) == ["in.jsonl", "tokenizer"]
