"""The SentencePiece tokenizer: exact round trips, marks apart from text, single characters, byte lengths."""

import random

import pytest
from helpers.shards import tiny_model, write_tokenizer

from rlpt.data.tokenizer import SentencePieceTokenizer, load_tokenizer
from rlpt.errors import DataError
from rlpt.template import SPECIAL_TOKENS, encode_marked
from rlpt.types import Tokenizer


@pytest.fixture(scope="module")
def tokenizer():
    return SentencePieceTokenizer(tiny_model())


def fuzz_texts():
    pieces = [
        *"ab \n\t\r\0\u2581é漢😀12<|>",
        "the number",
        "  ",
        "<0x41>",
        "</s>",
        "<pad>",
        "<|",
        "|>",
        *SPECIAL_TOKENS,
    ]
    rng = random.Random(5)
    return ["".join(rng.choices(pieces, k=rng.randrange(12))) for _ in range(500)]


def test_any_text_comes_back_and_never_yields_a_mark_or_control_token(tokenizer):
    forbidden = {tokenizer.mark_id(mark) for mark in SPECIAL_TOKENS} | {tokenizer.pad_id, tokenizer.eos_id}
    for text in fuzz_texts():
        ids = tokenizer.encode(text)
        assert tokenizer.decode(ids) == text
        assert not forbidden & set(ids), text
        assert tokenizer.byte_lengths[ids].sum() == len(text.encode())


def test_batches_and_characters_agree_with_single_texts(tokenizer):
    texts = fuzz_texts()
    assert tokenizer.encode_batch(texts) == [tokenizer.encode(text) for text in texts]
    for text in texts:
        ids = tokenizer.encode_characters(text)
        assert tokenizer.decode(ids) == text
        assert tokenizer.byte_lengths[ids].sum() == len(text.encode())


def test_printable_ascii_and_newline_are_one_token_each_and_digits_never_merge(tokenizer):
    for character in [*map(chr, range(32, 127)), "\n"]:
        (token,) = tokenizer.encode_characters(character)
        assert tokenizer.byte_lengths[token] == 1
    assert tokenizer.encode("31425") == tokenizer.encode_characters("31425")
    assert len(tokenizer.encode("the number")) < len("the number")
    assert len(tokenizer.encode_characters("é")) == 2


def test_marks_have_their_own_silent_ids(tokenizer):
    ids = encode_marked(tokenizer, "<|prompt|>sort 21<|answer|>12<|end|>")
    assert tokenizer.decode([*ids, tokenizer.eos_id]) == "<|prompt|>sort 21<|answer|>12<|end|>"
    marks = [tokenizer.mark_id(mark) for mark in SPECIAL_TOKENS]
    assert len(set(marks)) == len(SPECIAL_TOKENS)
    assert tokenizer.byte_lengths[[*marks, tokenizer.pad_id, tokenizer.eos_id]].sum() == 0
    assert isinstance(tokenizer, Tokenizer)
    with pytest.raises(KeyError):
        tokenizer.mark_id("the")


def test_bytes_are_exact_even_where_a_character_is_cut(tokenizer):
    for text in [*fuzz_texts(), "the text", " the text  of\n"]:
        for ids in (tokenizer.encode(text), tokenizer.encode_characters(text)):
            spelt = [tokenizer.decode_bytes([token]) for token in ids]
            assert b"".join(spelt) == tokenizer.decode_bytes(ids) == text.encode()
            assert [len(one) for one in spelt] == tokenizer.byte_lengths[ids].tolist()
    assert len(tokenizer.encode(" the text")) < len(" the text"), "pieces that begin with a space were used"
    first, second = tokenizer.encode_characters("\u00e9")
    assert (tokenizer.decode_bytes([first]), tokenizer.decode_bytes([second, first])) == (b"\xc3", b"\xa9\xc3")
    marks = [tokenizer.mark_id(mark) for mark in SPECIAL_TOKENS]
    assert tokenizer.decode_bytes([*marks, tokenizer.pad_id, *tokenizer.encode("a"), tokenizer.eos_id]) == b"a"


def test_a_tokenizer_that_is_missing_or_changed_is_refused(tmp_path):
    with pytest.raises(DataError, match=r"nowhere: no tokenizer here \(meta.json is missing\).*data_prep all"):
        load_tokenizer(tmp_path / "nowhere")
    write_tokenizer(tmp_path / "good")
    model = tmp_path / "good" / "tokenizer.model"
    model.write_bytes(model.read_bytes() + b"\0")
    with pytest.raises(DataError, match=r"tokenizer.model: SHA-256 .* has\s+changed"):
        load_tokenizer(tmp_path / "good")
    with pytest.raises(DataError, match="not a SentencePiece model"):
        SentencePieceTokenizer(b"junk")
