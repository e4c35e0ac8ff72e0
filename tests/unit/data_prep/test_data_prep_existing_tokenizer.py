"""Existing Hugging Face tokenizers: text comes back to the byte, marks stay apart, the others are refused."""

import json
import random

import pytest
from helpers.existing_tokenizers import EOS, SHAPES, SPACE, write_existing_tokenizer
from helpers.shards import write_tokenizer
from typer.testing import CliRunner

from data_prep import __main__ as command_line
from data_prep.config import load_prep_config
from data_prep.existing_tokenizer import adapt_existing, existing_fingerprint, write_existing
from data_prep.tokenizer import check_tokenizer
from rlpt.data.indexed import open_shard
from rlpt.data.manifest import read_manifest
from rlpt.data.tokenizer import load_tokenizer
from rlpt.errors import ConfigError, DataError
from rlpt.template import SPECIAL_TOKENS, encode_marked
from rlpt.types import Tokenizer

pytest.importorskip("transformers")
MARKED = "<|prompt|>sort 21<|answer|>12<|end|>"


def prepare(folder, existing):
    tokenizer, definition, meta = adapt_existing(str(existing))
    folder.mkdir()
    write_existing(folder, tokenizer, definition, meta, [" the number", "x\n\n\ty 123 é漢😀"])
    return load_tokenizer(folder)


@pytest.fixture(scope="module", params=SHAPES)
def prepared(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp(request.param)
    return prepare(folder / "out", write_existing_tokenizer(folder / "existing", request.param)), folder / "out"


def fuzz_texts():
    pieces = [
        *"aBé漢😀 \n\t\r\0\u2581\u0120\u01001<|>\ufb01\uff21\ufffd",
        *("e\u0301", "  ", "\n\n", " the", "number", "def ", "12", "\u2581\u2581", "\u0120the", "é漢", "   "),
        *("<0x41>", "<s>", "</s>", "<unk>", "<pad>", EOS, "<|im_start|>", "<tool_call>", " <mask> ", "<|", "|>"),
        *SPECIAL_TOKENS,
    ]
    rng = random.Random(5)
    mixed = ["".join(rng.choices(pieces, k=rng.randrange(12))) for _ in range(1500)]
    anything = [
        chr(rng.choice([*range(0xD800), *range(0xE000, 0x11000), *range(0x1F000, 0x1FA00)])) for _ in range(3000)
    ]
    return [*mixed, *pieces, *("".join(rng.choices(anything, k=8)) for _ in range(500))]


TEXTS = fuzz_texts()


def test_two_thousand_texts_come_back_and_never_give_a_special_token(prepared):
    tokenizer, folder = prepared
    added = json.loads((folder / "tokenizer.json").read_text())["added_tokens"]
    special = {token["id"] for token in added if token["special"]}
    assert {tokenizer.pad_id, tokenizer.eos_id, *map(tokenizer.mark_id, SPECIAL_TOKENS)} <= special
    encoded = tokenizer.encode_batch(TEXTS)
    assert len(TEXTS) >= 2000
    for text, ids in zip(TEXTS, encoded, strict=True):
        assert ids == tokenizer.encode(text)
        for found in (ids, tokenizer.encode_characters(text)):
            assert tokenizer.decode(found) == text
            assert not special & set(found), text
            spelt = [tokenizer.decode_bytes([token]) for token in found]
            assert b"".join(spelt) == tokenizer.decode_bytes(found) == text.encode()
            assert [len(one) for one in spelt] == tokenizer.byte_lengths[found].tolist()
    assert max(max(ids, default=0) for ids in encoded) < tokenizer.vocab_size == len(tokenizer.byte_lengths)
    check_tokenizer(tokenizer)


def test_texts_without_special_tokens_get_the_ids_that_transformers_gives(prepared):
    from transformers import AutoTokenizer

    tokenizer, folder = prepared
    theirs = AutoTokenizer.from_pretrained(folder)
    plain = [text for text in TEXTS if not set(text) & set("<>\u2581\u0120") and "é漢" not in text]
    assert len(plain) > 500
    for text, ids in zip(plain, tokenizer.encode_batch(plain), strict=True):
        assert theirs(text)["input_ids"] == ids
        assert theirs.decode(ids) == text
    assert (theirs.pad_token_id, theirs.eos_token_id) == (tokenizer.pad_id, tokenizer.eos_id)
    assert len(tokenizer.encode(" the number")) < len(" the number"), "tokens of several characters are used"


def test_marks_are_silent_tokens_and_characters_have_tokens_of_their_own(prepared):
    tokenizer, _ = prepared
    assert isinstance(tokenizer, Tokenizer)
    ids = encode_marked(tokenizer, MARKED)
    assert tokenizer.decode([*ids, tokenizer.eos_id, tokenizer.pad_id]) == MARKED
    assert tokenizer.decode_bytes(ids) == b"sort 2112"
    assert len({tokenizer.mark_id(mark) for mark in SPECIAL_TOKENS}) == len(SPECIAL_TOKENS)
    assert [tokenizer.decode([token]) for token in tokenizer.encode_characters("3 a\n")] == ["3", " ", "a", "\n"]
    with pytest.raises(KeyError):
        tokenizer.mark_id("the")


def test_a_character_with_a_token_is_that_token_and_others_are_their_bytes(tmp_path):
    tokenizer = prepare(tmp_path / "out", write_existing_tokenizer(tmp_path / "existing"))
    assert tokenizer.encode_characters("é") == tokenizer.encode("é")
    (token,) = tokenizer.encode_characters("é")
    assert tokenizer.byte_lengths[token] == 2
    cut = tokenizer.encode_characters("😀")
    assert [tokenizer.decode_bytes([token]) for token in cut] == [bytes([value]) for value in "😀".encode()]
    assert tokenizer.decode(cut[:2]) == "\ufffd"


def test_ids_of_our_own_model_stay_what_they_were(tmp_path):
    ours = write_tokenizer(tmp_path / "ours")
    theirs = prepare(tmp_path / "out", write_existing_tokenizer(tmp_path / "existing", "sentencepiece"))
    assert theirs.vocab_size == ours.vocab_size
    assert encode_marked(theirs, MARKED) == encode_marked(ours, MARKED)
    texts = [text for text in TEXTS if "<" not in text]
    assert theirs.encode_batch(texts) == ours.encode_batch(texts)


def normalizer(**part):
    return lambda definition: definition.update(normalizer=part)


def pre_tokenizer(**part):
    return lambda definition: definition.update(pre_tokenizer=part)


def without_a_byte(definition):
    vocabulary = definition["model"]["vocab"]
    vocabulary["moved"] = vocabulary.pop("\u0100")
    definition["model"]["merges"] = []


def with_a_special_byte(definition):
    definition["added_tokens"].append(
        definition["added_tokens"][0] | {"id": definition["model"]["vocab"]["a"], "content": "a"}
    )


def unigram(definition):
    definition["model"] = {
        "type": "Unigram",
        "unk_id": 0,
        "vocab": [["<unk>", 0.0], ["a", -1.0]],
        "byte_fallback": False,
    }


def with_a_hole(definition):
    vocabulary = definition["model"]["vocab"]
    (gone,) = (piece for piece, token in vocabulary.items() if token == 599)
    vocabulary[gone] = 700
    (gone,) = (piece for piece, token in vocabulary.items() if token == 598)
    vocabulary[gone] = 650


@pytest.mark.parametrize(
    ("shape", "change", "match"),
    [
        ("gpt2", normalizer(type="Lowercase"), r"normalizer Lowercase changes text \('A' becomes 'a'\)"),
        ("gpt2", normalizer(type="NFKC"), "normalizer NFKC changes text .* becomes"),
        ("gpt2", normalizer(type="NFD"), "normalizer NFD changes text"),
        (
            "gpt2",
            normalizer(type="Strip", strip_left=True, strip_right=True),
            r"Strip changes text \(' a ' becomes 'a'\)",
        ),
        ("sentencepiece", normalizer(type="Lowercase"), "normalizer Lowercase changes text"),
        ("gpt2", pre_tokenizer(type="Whitespace"), "pre-tokenizer Whitespace adds or drops text"),
        (
            "gpt2",
            lambda d: d.update(decoder={"type": "WordPiece", "prefix": "##", "cleanup": True}),
            "byte-level BPE or",
        ),
        ("sentencepiece", lambda d: d["model"].update(byte_fallback=False), "byte-level BPE or"),
        ("sentencepiece", normalizer(type="Replace", pattern={"String": "\n"}, content=" "), "Replace changes text"),
        ("gpt2", lambda d: d["model"].update(end_of_word_suffix="</w>"), "end_of_word_suffix=</w>"),
        ("gpt2", without_a_byte, "has no token for 1 of 256 bytes"),
        ("gpt2", with_a_special_byte, "its special token a is the only one of a byte"),
        ("gpt2", unigram, "a Unigram model with decoder ByteLevel, where byte-level BPE or"),
        ("gpt2", with_a_hole, r"its ids have holes or clash \(<\|prompt\|>"),
    ],
)
def test_a_tokenizer_that_does_not_keep_text_is_refused_with_what_changes_it(tmp_path, shape, change, match):
    existing = write_existing_tokenizer(tmp_path / "existing", shape, change)
    with pytest.raises(DataError, match=match) as caught:
        adapt_existing(str(existing))
    assert "\n" not in str(caught.value)


def test_a_tokenizer_without_end_of_text_or_that_is_not_there_is_refused_with_a_remedy(tmp_path):
    existing = write_existing_tokenizer(tmp_path / "existing")
    described = existing / "tokenizer_config.json"
    described.write_text(json.dumps({"tokenizer_class": "PreTrainedTokenizerFast"}))
    with pytest.raises(DataError, match=r"has no end-of-text token; put eos_token into the tokenizer_config\.json"):
        adapt_existing(str(existing))
    described.write_text(json.dumps({"tokenizer_class": "PreTrainedTokenizerFast", "eos_token": "<|end|>"}))
    with pytest.raises(DataError, match=r"end of text is <\|end\|>, a mark; set another eos_token"):
        adapt_existing(str(existing))
    with pytest.raises(DataError, match="no such folder"):
        adapt_existing(str(tmp_path / "nowhere"))
    (existing / "tokenizer.json").write_text("{")
    with pytest.raises(DataError, match=r"transformers can't load it .*; mend "):
        adapt_existing(str(existing))


def test_a_hub_name_without_network_says_that_it_needs_it(monkeypatch):
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(DataError, match=r"existing=rlpt-tests/none: .* a hub name needs the network"):
        adapt_existing("rlpt-tests/none")


def test_pad_is_taken_from_the_tokenizer_where_it_has_one(tmp_path):
    existing = write_existing_tokenizer(tmp_path / "existing", pad_token=EOS)
    tokenizer, _, meta = adapt_existing(str(existing))
    assert (tokenizer.pad_id, meta["pad_token"]) == (tokenizer.eos_id, EOS)
    other, _, _ = adapt_existing(str(write_existing_tokenizer(tmp_path / "other")))
    assert other.pad_id != other.eos_id
    assert other.vocab_size == tokenizer.vocab_size + 1
    assert other.sha256 != tokenizer.sha256


def test_what_is_left_out_is_said(tmp_path, capsys):
    for shape, wanted in [
        ("gpt2", []),
        ("qwen", ["NFC normalizer"]),
        ("llama3", ["special tokens around a text", "dropout"]),
        ("llama2", ["space before a text", "special tokens around a text"]),
        ("metaspace", ["space before a text"]),
    ]:
        _, _, meta = adapt_existing(str(write_existing_tokenizer(tmp_path / shape, shape)))
        assert meta["left_out"] == wanted
        assert (f"is used without its {', '.join(wanted)}" in capsys.readouterr().err) == bool(wanted)


def write_config(folder, existing, **sections):
    rng = random.Random(3)
    (folder / "text").mkdir(exist_ok=True)
    for index in range(40):
        words = [f"the number {rng.randrange(100)}" for _ in range(20)]
        (folder / "text" / f"{index:02}.txt").write_text(" ".join(words) + f"\n <|end|>{EOS} e\u0301{SPACE} {index}\n")
    tasks = [{"task": {"name": "reverse"}, "levels": [0, 1], "documents": 20}]
    values = {
        "output": str(folder / "out"),
        "sources": [{"name": "text", "paths": [str(folder / "text")]}],
        "synthesize": {"tasks": tasks},
        "split": {"valid_share": 0.2},
        "tokenizer": {"existing": str(existing)},
    } | sections
    path = folder / "config.yaml"
    path.write_text(json.dumps(values))
    return path


@pytest.mark.parametrize("shape", ["qwen", "llama2"])
def test_a_whole_preparation_gives_shards_that_decode_to_the_documents(tmp_path, shape):
    existing = write_existing_tokenizer(tmp_path / "existing", shape)
    path = write_config(tmp_path, existing)
    result = CliRunner().invoke(command_line.app, ["all", str(path)])
    assert result.exit_code == 0, result.output
    tokenizer = load_tokenizer(tmp_path / "out" / "tokenizer")
    manifest = read_manifest(tmp_path / "out")
    assert (manifest.tokenizer_sha256, manifest.vocab_size) == (tokenizer.sha256, tokenizer.vocab_size)
    found = {}
    for name in ("text-train", "text-valid", "solutions-train"):
        shard = open_shard(tmp_path / "out" / name, tokenizer)
        documents = [shard.document(index) for index in range(shard.num_documents)]
        assert all(ids[-1] == tokenizer.eos_id for ids in documents)
        found[name] = [tokenizer.decode(ids.tolist()) for ids in documents]
    files = [file.read_text() for file in (tmp_path / "text").iterdir()]
    assert sorted(found["text-train"] + found["text-valid"]) == sorted(files)
    assert all(text.startswith("<|prompt|>") and text.endswith("<|end|>") for text in found["solutions-train"])
    text_bytes = sum(manifest.shards[name].utf8_bytes for name in ("text-train", "text-valid"))
    assert text_bytes == sum(len(text.encode()) for text in files)

    write_existing_tokenizer(existing, shape, pad_token="<the_pad>")
    result = CliRunner().invoke(command_line.app, ["all", str(path)])
    assert result.exit_code == 0, result.output
    changed = read_manifest(tmp_path / "out")
    assert changed.tokenizer_sha256 == load_tokenizer(tmp_path / "out" / "tokenizer").sha256 != tokenizer.sha256
    assert changed.vocab_size == tokenizer.vocab_size + (shape == "llama2")  # which had <pad> before


def test_a_changed_tokenizer_is_noticed(tmp_path):
    existing = write_existing_tokenizer(tmp_path / "existing")
    before = existing_fingerprint(str(existing))
    assert before == existing_fingerprint(str(existing))
    described = existing / "tokenizer_config.json"
    described.write_text(described.read_text() + " ")
    assert existing_fingerprint(str(existing)) != before
    assert existing_fingerprint("") == [""]

    prepare(tmp_path / "out", existing)
    path = tmp_path / "out" / "tokenizer.json"
    definition = json.loads(path.read_text())
    path.write_text(json.dumps(definition))
    load_tokenizer(tmp_path / "out")  # another layout is the same tokenizer
    definition["model"]["merges"].pop()
    path.write_text(json.dumps(definition))
    with pytest.raises(DataError, match=r"tokenizer\.json: SHA-256 .* has changed"):
        load_tokenizer(tmp_path / "out")
    path.write_text("{")
    with pytest.raises(DataError, match=r"tokenizer\.json: not valid JSON"):
        load_tokenizer(tmp_path / "out")
    path.unlink()
    with pytest.raises(DataError, match=r"tokenizer\.json is missing"):
        load_tokenizer(tmp_path / "out")


def test_options_of_training_are_refused_beside_an_existing_tokenizer(tmp_path):
    for option, value in [("vocab_size", 512), ("words", ["sort"]), ("sample_bytes", 9), ("export_transformers", True)]:
        path = write_config(tmp_path, "somewhere", tokenizer={"existing": "somewhere", option: value})
        with pytest.raises(
            ConfigError, match=rf"tokenizer\.{option}: for training a tokenizer, which tokenizer\.existing"
        ):
            load_prep_config(path)


def test_export_copies_it_and_transformers_reads_the_copy(tmp_path):
    from transformers import AutoTokenizer

    from rlpt.export import write_tokenizer as export_tokenizer

    ours = prepare(tmp_path / "out", write_existing_tokenizer(tmp_path / "existing", "llama3"))
    (tmp_path / "exported").mkdir()
    export_tokenizer(tmp_path / "out", ours, tmp_path / "exported")
    assert load_tokenizer(tmp_path / "exported").sha256 == ours.sha256
    theirs = AutoTokenizer.from_pretrained(tmp_path / "exported")
    assert theirs(MARKED)["input_ids"] == [
        *(ours.mark_id("<|prompt|>"), *ours.encode("sort 21")),
        *(ours.mark_id("<|answer|>"), *ours.encode("12"), ours.mark_id("<|end|>")),
    ]
