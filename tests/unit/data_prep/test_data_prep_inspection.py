"""What `inspect` shows: right numbers, and nothing of a text that a terminal or a browser would obey."""

import json
import re
import sys
from dataclasses import replace
from html.parser import HTMLParser

import numpy as np
import pytest

from data_prep.config import load_prep_config
from data_prep.inspection.excerpts import chosen_documents, pieces_of, visible
from data_prep.inspection.page import inspection_page
from data_prep.inspection.statistics import STRETCH, count_lengths, count_tokens, stretches, token_table
from data_prep.inspection.survey import source_rows, survey
from data_prep.inspection.terminal import BOUNDARY, inspect, inspect_page
from data_prep.pipeline import run
from rlpt.data.indexed import ShardWriter, open_shard
from rlpt.data.manifest import Manifest, write_manifest
from rlpt.data.tokenizer import load_tokenizer
from rlpt.errors import ConfigError
from rlpt.template import encode_marked

HOSTILE = (
    "<script>alert(1)</script><img src=x onerror=alert(2)>\"'`&lt;</pre></span>",
    "\x1b[31mred\x1b]0;title\x07\x9b2J \r\x01",
    "\u202eevil\u2066 \u200b\ufeff\u2028line",
    "a\tb\nc \\x1b \u2502 é 漢 \u2581 <|prompt|>",
)
SCRIPT = HOSTILE[0]
NAME = "text<b>&\"'\x1b[0m"  # of a source in a manifest: anything


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    folder = tmp_path_factory.mktemp("inspected")
    texts = [f"{text} number {index}" for index in range(30) for text in HOSTILE]
    (folder / "text.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    values = {
        "name": "hostile",
        "output": str(folder / "out"),
        "sources": [{"name": "text", "paths": [str(folder / "text.jsonl")]}],
        "synthesize": {"tasks": [{"task": {"name": "reverse"}, "levels": [1], "documents": 20}]},
        "split": {"valid_share": 0.3},
        "tokenizer": {"vocab_size": 400},
    }
    (folder / "config.yaml").write_text(json.dumps(values))
    config = load_prep_config(folder / "config.yaml")
    run("all", config)
    return config


def shard_of(folder, tokenizer, documents):
    """A shard `made` of token ids, with its manifest."""
    with ShardWriter(folder / "made", tokenizer, tokenizer.byte_lengths) as writer:
        for ids in documents:
            writer.add(ids)
        entry = writer.finish()
    write_manifest(folder, Manifest(tokenizer.sha256, tokenizer.vocab_size, 1, {}, {"made": entry}))
    return open_shard(folder / "made", tokenizer)


class Elements(HTMLParser):
    """Collects what a browser would see of a page."""

    def __init__(self, page):
        super().__init__()
        self.tags, self.attributes, self.text = [], [], ""
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += attrs

    def handle_data(self, data):
        self.text += data


def test_the_terminal_gets_no_control_character_and_every_boundary(prepared, capsys):
    inspect(prepared, prepared.directory)
    shown = capsys.readouterr().out
    assert all(character.isprintable() or character == "\n" for character in shown)
    plain = shown.replace(BOUNDARY, "")
    assert "\\x1b[31mred\\x1b]0;title\\x07\\x9b2J" in plain
    assert "\\u202eevil\\u2066 \\u200b" in plain
    assert "<|prompt|>reverse" in plain
    assert f"<|end|>{BOUNDARY}<end of text>" in shown
    assert "more" not in plain.split("solutions-train: some documents")[1]


def test_the_page_escapes_what_texts_hold_and_loads_nothing(prepared, tmp_path):
    pytest.importorskip("matplotlib")
    page = inspect_page(prepared, prepared.directory, tmp_path / "deep" / "page.html").read_bytes().decode()
    seen = Elements(page)
    assert not {"script", "img", "link", "iframe", "object", "form", "image"} & set(seen.tags)
    assert "<script" not in page.lower()
    assert not [name for name, _ in seen.attributes if name.startswith("on") or name == "src"]
    links = [value for name, value in seen.attributes if name in ("href", "xlink:href")]
    assert all(value.startswith("#") for value in links)
    assert not re.search(r"url\((?!#)|@import", page)
    assert all(character.isprintable() or character in "\n\t" for character in page)
    assert SCRIPT in seen.text
    assert "\\u202e" in seen.text
    assert page == inspection_page(survey(prepared.directory, 400)), "the same bytes again"


def test_names_and_facts_of_sources_are_escaped_too(prepared):
    pytest.importorskip("matplotlib")
    found = survey(prepared.directory, 50)

    facts = {"licence": "<i>", "read": 1200, "dropped": {"too short": 4, "duplicate": 30}, "skipped": 2}
    manifest = replace(found.manifest)
    object.__setattr__(manifest, "sources", {NAME: facts})
    page = inspection_page(replace(found, manifest=manifest))
    assert "<i>" not in page.split('id="s1"')[1].split('id="s2"')[0]
    seen = Elements(page)
    assert "text<b>&\"'\\x1b[0m" in seen.text
    assert "duplicate 30, too short 4" in seen.text
    row = source_rows({NAME: facts})[0]
    assert (row.read, row.dropped, row.others) == ("1,200", "duplicate 30, too short 4", "skipped 2")


def test_without_matplotlib_the_page_says_what_to_install(prepared, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(ConfigError, match=r"pip install 'rlpt\[report\]'"):
        inspect_page(prepared, prepared.directory, tmp_path / "page.html")
    assert not (tmp_path / "page.html").exists()


def test_pieces_are_tokens_with_whole_characters_and_lone_bytes_apart(prepared):
    tokenizer = load_tokenizer(prepared.directory / "tokenizer")
    lone = [tokenizer._bytes[0xE6], tokenizer._bytes[0xFF]]
    ids = [*encode_marked(tokenizer, "<|prompt|>ab"), *tokenizer.encode("漢"), *lone, tokenizer.eos_id]
    pieces = list(pieces_of(tokenizer, ids))
    assert [token for piece in pieces for token in piece.ids] == ids
    assert [(piece.kind, piece.text, piece.data) for piece in pieces[-4:]] == [
        ("text", "漢", pieces[-4].data),
        ("bytes", "", b"\xe6"),
        ("bytes", "", b"\xff"),
        ("end", "<end of text>", b""),
    ]
    assert pieces[0].kind == "mark"
    split = [tokenizer._bytes[0xC3], tokenizer.mark_id("<|answer|>"), tokenizer._bytes[0xA9]]
    assert [piece.kind for piece in pieces_of(tokenizer, split)] == ["bytes", "mark", "bytes"]


def test_words_and_tokens_are_counted_across_chunks_and_documents(prepared, tmp_path):
    tokenizer = load_tokenizer(prepared.directory / "tokenizer")
    texts = ["the  number\tof é\n", "of", " 12 of\u00a0the", "x" * 50]
    shard = shard_of(tmp_path, tokenizer, [[*tokenizer.encode(text), tokenizer.eos_id] for text in texts])
    found = count_tokens(shard, token_table(tokenizer))
    assert found.words == sum(len(text.encode().split()) for text in texts)
    assert (found.tokens, found.utf8_bytes) == (shard.num_tokens, sum(len(text.encode()) for text in texts))
    assert found.counts[tokenizer.eos_id] == len(texts)
    assert not found.is_sample


def test_a_large_shard_is_sampled_evenly_and_says_so(prepared, tmp_path):
    tokenizer = load_tokenizer(prepared.directory / "tokenizer")
    token = 20 + np.arange(40)
    documents = [np.full(size, token[index % 40]) for index, size in enumerate([7, 1, 9000, 3] * 30)]
    shard = shard_of(tmp_path, tokenizer, documents)
    flat = np.concatenate(documents)
    limit = 16 * STRETCH
    found = list(stretches(shard, limit))
    places = [place * len(flat) // 16 for place in range(16)]
    for place, ids in zip(places, found, strict=True):
        np.testing.assert_array_equal(ids, flat[place : place + STRETCH])
    counted = count_tokens(shard, token_table(tokenizer), limit)
    assert counted.is_sample
    assert counted.tokens == limit


def test_length_histogram_and_quantiles():
    lengths = np.array([1, 1, 2, 3, 5, 6, 100, 4096])
    found = count_lengths(lengths)
    assert found.edges[:8].tolist() == [1, 2, 3, 4, 6, 8, 12, 16]
    assert found.counts.sum() == len(lengths)
    assert found.counts[:5].tolist() == [2, 1, 1, 1, 1]
    assert found.counts[-1] == 1
    assert (found.shortest, found.median, found.longest) == (1, 3, 4096)


def test_shown_documents_are_the_first_the_last_and_keyed_ones_between():
    assert chosen_documents(0, "a", 1) == []
    assert chosen_documents(1, "a", 1) == [0]
    chosen = chosen_documents(9000, "a", 1)
    assert (chosen[0], chosen[-1], len(chosen)) == (0, 8999, 5)
    assert [index // 3000 for index in chosen[1:4]] == [0, 1, 2]
    assert chosen == chosen_documents(9000, "a", 1) != chosen_documents(9000, "a", 2)


def test_visible_text_can_be_told_apart():
    assert visible("a\\x1b\x1b\ud800|", also="|") == "a\\\\x1b\\x1b\\ud800\\u007c"
