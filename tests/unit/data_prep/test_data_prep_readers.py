"""Documents from outside: each format, byte limits, and one clear error for each kind of bad input."""

import json
import sysconfig

import pytest

from data_prep.config import PrepConfig, SourceConfig
from data_prep.documents import Document, read_documents, write_document
from data_prep.layout import documents_path
from data_prep.pipeline import run as run_stage
from data_prep.sources.readers import inputs_fingerprint, list_files, read_source
from rlpt.errors import DataError


def source(*paths, **options):
    return SourceConfig.model_validate({"name": "text", "paths": [str(path) for path in paths]} | options)


def texts(*paths, **options):
    return [document.text for document in read_source(source(*paths, **options))]


def refused(match, *paths, **options):
    with pytest.raises(DataError, match=match):
        texts(*paths, **options)


def write_parquet(path, **columns):
    import pyarrow
    import pyarrow.parquet

    pyarrow.parquet.write_table(pyarrow.table(columns), path)
    return path


def test_each_format_is_read_as_it_stands(tmp_path):
    (tmp_path / "a.txt").write_bytes(b"\xef\xbb\xbfone\r\ntwo\n")
    (tmp_path / "b.md").write_text("# é\n")
    (tmp_path / "c.jsonl").write_bytes(b'\xef\xbb\xbf{"text": "x"}\n\n{"text": "", "n": 1}\n{"text": "y\\u2581"}')
    (tmp_path / "d.py").write_text("pass\n")
    (tmp_path / "e.csv").write_text("not read")
    (tmp_path / "sub").mkdir()
    write_parquet(tmp_path / "sub" / "f.parquet", text=["p", "q"], n=[1, 2])
    assert texts(tmp_path) == ["one\r\ntwo\n", "# é\n", "x", "y\u2581", "pass\n", "p", "q"]
    assert texts(tmp_path, exclude=["sub", "c.jsonl"], kind="md") == ["# é\n"]
    assert texts(tmp_path / "**" / "*.parquet") == ["p", "q"]
    assert texts(tmp_path / "e.csv", kind="txt") == ["not read"]
    origins = [document.origin for document in read_source(source(tmp_path / "c.jsonl"))]
    assert origins == [f"{tmp_path}/c.jsonl:1", f"{tmp_path}/c.jsonl:4"]


@pytest.mark.parametrize(
    ("line", "match"),
    [
        (b'{"text": "x"', r"bad\.jsonl:2: malformed JSON at column \d+"),
        (b'["x"]', r"bad\.jsonl:2: not a JSON object but list"),
        (b'{"txt": "x"}', r"bad\.jsonl:2: no key 'text' \(keys: txt\)"),
        (b'{"text": 5}', r"bad\.jsonl:2: 'text' must be a string, is int"),
        (b'{"text": "\xff"}', r"bad\.jsonl:2: invalid UTF-8 at byte offset 10"),
        (b'{"text": "x", "text": "y"}', r"bad\.jsonl:2: key 'text' is given twice"),
        (b'{"text": "x", "n": NaN}', r"bad\.jsonl:2: NaN is not JSON"),
        (b'{"text": "\\ud800"}', r"bad\.jsonl:2: lone surrogate"),
        (b'{"text": "' + b"x" * 200 + b'"}', r"bad\.jsonl:2: longer than 100 bytes"),
        (b"[" * 90, r"bad\.jsonl:2: malformed JSON"),
    ],
)
def test_bad_jsonl_is_named_by_file_line_and_reason(tmp_path, line, match):
    path = tmp_path / "bad.jsonl"
    path.write_bytes(b'{"text": "good"}\n' + line + b"\n")
    refused(match, path, max_document_bytes=100)


def test_deep_nesting_is_an_error_and_not_a_crash(tmp_path):
    path = tmp_path / "bad.jsonl"
    path.write_bytes(b"[" * 100_000 + b"]" * 100_000)
    refused(r"bad\.jsonl:1: (JSON is nested too deeply|not a JSON object)", path)


def test_bad_files_are_named(tmp_path):
    (tmp_path / "bad.txt").write_bytes(b"good\n\xff\xfe")
    refused(r"bad\.txt:2: invalid UTF-8 at byte offset 5", tmp_path)
    refused(r"bad\.txt: longer than 6 bytes", tmp_path, max_document_bytes=6)
    refused("'.*/missing' matches no .txt/.md", tmp_path / "missing")
    (tmp_path / "x.csv").write_text("a")
    refused(r"x\.csv: unknown suffix; known: \.txt", tmp_path / "x.csv")
    (tmp_path / "x.parquet").write_text("PAR1 no")
    refused(r"x\.parquet: not readable as Parquet", tmp_path / "x.parquet")
    write_parquet(tmp_path / "y.parquet", txt=["a"])
    refused(r"y\.parquet: no column 'text'; did you mean 'txt'", tmp_path / "y.parquet")
    write_parquet(tmp_path / "z.parquet", text=["a", None])
    refused(r"z\.parquet:2: 'text' must be a string, is NoneType", tmp_path / "z.parquet")


def test_a_hub_data_set_is_read_and_a_missing_one_is_named(tmp_path, monkeypatch):
    import datasets

    (tmp_path / "set").mkdir()
    write_parquet(tmp_path / "set" / "train.parquet", body=["a", "b"])
    monkeypatch.setattr(datasets.config, "HF_DATASETS_OFFLINE", True)

    def hub(name, **options):
        config = SourceConfig.model_validate({"name": "t", "hub": str(name), "text_key": "body"} | options)
        return [document.text for document in read_source(config)]

    assert hub(tmp_path / "set") == ["a", "b"]
    with pytest.raises(DataError, match="no column 'text'"):
        hub(tmp_path / "set", text_key="text")
    with pytest.raises(DataError, match=r"hub data set '.*nowhere' can't be read"):
        hub(tmp_path / "nowhere")


def test_the_library_is_found_without_tests_and_in_a_fair_order():
    config = SourceConfig.model_validate({"name": "t", "python_library": True, "exclude": ["encodings"]})
    root = sysconfig.get_paths()["stdlib"]
    names = [str(path).removeprefix(root) for path in list_files(config)]
    assert "/json/decoder.py" in names
    assert not [name for name in names if "/test" in name.rpartition("/")[0] or "/encodings/" in name]
    first = next(read_source(config))
    assert first.origin != root + names[0]


def test_ingest_stops_before_its_limit_and_refuses_an_empty_corpus(tmp_path):
    def run(**options):
        entry = {"name": "text", "paths": [str(tmp_path / "*.txt")]} | options
        run_stage("ingest", PrepConfig.model_validate({"sources": [entry], "output": tmp_path / "out"}))
        return [document.text for document in read_documents(documents_path(tmp_path / "out", "text", 0))]

    (tmp_path / "a.txt").write_text("")
    with pytest.raises(DataError, match=r"source 'text': .*the corpus is empty"):
        run()
    (tmp_path / "b.txt").write_text("é" * 5)
    (tmp_path / "c.txt").write_text("x" * 5)
    assert run() == ["é" * 5, "x" * 5]
    assert run(max_bytes=14) == ["é" * 5]


def test_documents_come_back_with_their_origin(tmp_path):
    given = [Document("a\n\u2028\x00é", "here"), Document("<|end|>", "there")]
    with open(tmp_path / "d.jsonl", "wb") as file:
        for document in given:
            write_document(file, document, level=3)
    assert list(read_documents(tmp_path / "d.jsonl")) == given
    assert json.loads((tmp_path / "d.jsonl").read_bytes().split(b"\n")[0])["level"] == 3


def test_a_changed_input_file_changes_the_fingerprint(tmp_path):
    (tmp_path / "a.txt").write_text("one")
    before = inputs_fingerprint(source(tmp_path))
    assert inputs_fingerprint(source(tmp_path)) == before
    (tmp_path / "a.txt").write_text("three")
    assert inputs_fingerprint(source(tmp_path)) != before
