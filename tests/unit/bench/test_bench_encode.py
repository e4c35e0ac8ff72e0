"""Paired runs and their figures; the texts of the encoding bench; the bench itself, end to end, by hand."""

import json
import sys
from itertools import islice

import numpy as np
import pytest
from helpers.shards import write_tokenizer

from rlpt.bench import encode
from rlpt.bench.encode_peers import plain_bytes
from rlpt.bench.encode_texts import random_words, source_code, write_jsonl
from rlpt.bench.paired import Figure, ratios, run_paired, summarize, time_process, write_figures
from rlpt.errors import DataError, UserError


def test_every_contender_runs_once_a_round_and_the_order_turns():
    ran = []
    contenders = {name: lambda name=name: ran.append(name) or float(len(ran)) for name in "abc"}
    seconds = run_paired(contenders, 4)
    assert "".join(ran) == "abcbcacababc"
    assert seconds == {"a": [1, 6, 8, 10], "b": [2, 4, 9, 11], "c": [3, 5, 7, 12]}


def test_ratios_are_taken_within_rounds():
    figures = ratios({"ours": [1.0, 10.0, 2.0], "theirs": [3.0, 20.0, 2.0]}, "ours")
    assert figures == {"ours": Figure(1, 1, 1), "theirs": Figure(2, 1, 3)}
    assert summarize([4.0, 1.0, 2.0]).show(1) == "2.0 (1.0-4.0)"


def test_a_process_that_fails_is_an_error_with_the_end_of_its_log(tmp_path):
    assert time_process([sys.executable, "-c", "import time; time.sleep(0.2)"], tmp_path / "log") >= 0.2
    with pytest.raises(UserError, match=r"exit code 7\nbroken"):
        time_process([sys.executable, "-c", "print('broken'); raise SystemExit(7)"], tmp_path / "log")


def test_figures_are_written_as_json(tmp_path):
    write_figures(tmp_path / "new" / "figures.json", {"a": {"seconds": Figure(2, 1, 3)}})
    written = json.loads((tmp_path / "new" / "figures.json").read_text())
    assert written == {"a": {"seconds": {"median": 2, "smallest": 1, "largest": 3}}}


@pytest.mark.parametrize("texts", [source_code, random_words])
def test_texts_are_the_same_for_the_same_seed_and_as_long_as_asked(tmp_path, texts):
    assert list(islice(texts(1), 5)) == list(islice(texts(1), 5))
    size = write_jsonl(tmp_path / "text.jsonl", texts(1), 200_000)
    read = [json.loads(line)["text"] for line in (tmp_path / "text.jsonl").read_text(encoding="utf-8").splitlines()]
    assert size == sum(len(text.encode()) for text in read) >= 200_000
    assert sum(len(text.encode()) for text in read[:-1]) < 200_000


def test_the_limit_writes_a_token_for_each_byte(tmp_path):
    tokenizer = write_tokenizer(tmp_path / "tokenizer")
    texts = ["aé\n", "", "漢 b"]
    write_jsonl(tmp_path / "in.jsonl", iter(texts), sum(len(text.encode()) for text in texts))
    plain_bytes(tmp_path / "in.jsonl", tmp_path / "out", tmp_path / "tokenizer", 1)
    ids = np.fromfile(tmp_path / "out.bin", np.uint16)
    assert [tokenizer.decode_bytes([token]) for token in ids if token != tokenizer.eos_id] == [
        bytes([value]) for value in "".join(texts).encode()
    ]
    assert (ids == tokenizer.eos_id).sum() == 3


def test_a_tokenizer_without_its_transformers_form_is_refused(tmp_path):
    write_tokenizer(tmp_path / "tokenizer")
    with pytest.raises(DataError, match=r"no tokenizer\.json; prepare it with"):
        encode.main(1, 1, 1, None, tmp_path / "tokenizer", None)


@pytest.mark.slow
def test_all_contenders_write_the_same_shard(tmp_path):
    encode.main(2, 2, 1, tmp_path / "figures.json", None, None)
    figures = json.loads((tmp_path / "figures.json").read_text())
    assert len(figures["texts"]) == 2
    for text in figures["texts"].values():
        assert {name for name, figure in text.items() if figure["equal"]} == {"rlpt", "megatron-style", "datasets.map"}
        assert all(figure["seconds"]["median"] > 0 for figure in text.values())
