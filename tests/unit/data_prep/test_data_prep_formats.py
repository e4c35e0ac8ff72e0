"""Each format, plain, compressed and in archives: the same texts come out, and origins say where each stood."""

import gzip
import io
import subprocess
import sys
import tarfile
import zipfile

import pyarrow
import pyarrow.parquet
import pytest

from data_prep.config import SourceConfig
from data_prep.sources.bad_records import BadRecords
from data_prep.sources.readers import parts, read_part, read_source
from rlpt.errors import ConfigError, DataError


def source(*paths, **options):
    return SourceConfig.model_validate({"name": "text", "paths": [str(path) for path in paths]} | options)


def read(*paths, **options):
    return {document.origin: document.text for document in read_source(source(*paths, **options))}


def zstd(data):
    sink = pyarrow.BufferOutputStream()
    with pyarrow.CompressedOutputStream(sink, "zstd") as file:
        file.write(data)
    return sink.getvalue().to_pybytes()


def write_tar(path, members, mode="w"):
    with tarfile.open(path, mode) as archive:
        for name, data in members.items():
            header = tarfile.TarInfo(name)
            header.size = len(data)
            archive.addfile(header, io.BytesIO(data))
    return path


def write_zip(path, members, method=zipfile.ZIP_DEFLATED):
    with zipfile.ZipFile(path, "w", method) as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return path


def record(kind, body, content_type="text/plain", **headers):
    lines = [f"WARC-Type: {kind}", f"Content-Type: {content_type}", "WARC-Date: 2026-01-01T00:00:00Z"]
    lines += ["WARC-Record-ID: <urn:uuid:1>", f"Content-Length: {len(body)}"]
    return "\r\n".join(["WARC/1.0", *lines, "", ""]).encode() + body + b"\r\n\r\n"


def page(body, status="200 OK", content_type="text/html; charset=utf-8", encoding=""):
    head = f"HTTP/1.1 {status}\r\nContent-Type: {content_type}\r\n{encoding}\r\n".encode()
    return record("response", head + body, "application/http; msgtype=response")


LINES = b'{"text": "a"}\n\n{"text": "b", "n": 1}\n'


def test_compressed_text_and_lines_are_what_they_hold(tmp_path):
    for suffix, compress in ((".gz", gzip.compress), (".zst", zstd)):
        (tmp_path / f"lines.jsonl{suffix}").write_bytes(compress(LINES))
        (tmp_path / f"many.md{suffix}").write_bytes(compress(b"one\r\n") + compress("twö".encode()))
        (tmp_path / f"empty.txt{suffix}").write_bytes(b"")
    assert read(tmp_path) == {
        f"{tmp_path}/lines.jsonl.gz:1": "a",
        f"{tmp_path}/lines.jsonl.gz:3": "b",
        f"{tmp_path}/lines.jsonl.zst:1": "a",
        f"{tmp_path}/lines.jsonl.zst:3": "b",
        f"{tmp_path}/many.md.gz": "one\r\ntwö",
        f"{tmp_path}/many.md.zst": "one\r\ntwö",
    }


def test_source_code_is_read_and_html_is_not(tmp_path):
    for name in ("a.c", "b.LEAN", "c.rs", "d.tex", "e.html", "f.bin", "g"):
        (tmp_path / name).write_text(name)
    assert list(read(tmp_path).values()) == ["a.c", "b.LEAN", "c.rs", "d.tex"]
    assert list(read(tmp_path, kind="code").values()) == ["a.c", "b.LEAN", "c.rs", "d.tex"]
    assert list(read(tmp_path / "e.html", kind="code").values()) == ["e.html"]
    with pytest.raises(DataError, match=r"f\.bin: unknown suffix; known: \.txt"):
        read(tmp_path / "f.bin")


@pytest.mark.parametrize("name", ["x.tar", "x.tar.gz", "x.tgz", "x.tar.zst", "x.zip"])
def test_members_of_an_archive_are_read_by_suffix(tmp_path, name):
    members = {
        "docs/a.txt": b"text",
        "b.jsonl": LINES,
        "c.jsonl.gz": gzip.compress(LINES),
        "d.png": b"\x89\0" * 5000,
        "skip/e.md": b"left out",
        "f.py": b"",
    }
    path = tmp_path / name
    if name == "x.zip":
        write_zip(path, members)
    else:
        write_tar(path, members, "w" if name in ("x.tar", "x.tar.zst") else "w:gz")
        if name == "x.tar.zst":
            path.write_bytes(zstd(path.read_bytes()))
    found = {"docs/a.txt": "text", "b.jsonl:1": "a", "b.jsonl:3": "b", "c.jsonl.gz:1": "a", "c.jsonl.gz:3": "b"}
    assert read(path, exclude=["skip"]) == {f"{path}:{origin}": text for origin, text in found.items()}
    assert list(read(path, kind="md").values()) == ["left out"]
    assert list(tmp_path.iterdir()) == [path], "nothing is unpacked"


def test_wet_and_warc_give_text_of_conversions_and_pages(tmp_path):
    html = "<html><head><title>T</title></head><body><p>é one</p><script>x()</script><p>two</p></body></html>"
    latin = html.encode("latin-1")
    data = b"".join(
        [
            record("warcinfo", b"software: x\r\n", "application/warc-fields"),
            page(html.encode()),
            page(gzip.compress(html.encode()), encoding="Content-Encoding: gzip\r\n"),
            page(latin, content_type="text/html; charset=iso-8859-1"),
            page(html.encode(), content_type="text/html; charset=no-such-charset"),
            page(b"gone", status="404 Not Found"),
            page(b"\x89PNG\0", content_type="image/png"),
            record("request", b"GET / HTTP/1.1\r\n\r\n", "application/http; msgtype=request"),
            record("conversion", "plain é\n".encode()),
        ]
    )
    (tmp_path / "a.warc").write_bytes(data)
    text = "é one\n\ntwo"
    wanted = {2: text, 3: text, 4: text, 5: text, 9: "plain é\n"}
    assert read(tmp_path / "a.warc") == {f"{tmp_path}/a.warc:{number}": text for number, text in wanted.items()}
    members = [gzip.compress(record("conversion", body)) for body in (b"one", b"two")]  # a gzip member a record
    (tmp_path / "b.wet.gz").write_bytes(b"".join(members))
    assert list(read(tmp_path / "b.wet.gz").values()) == ["one", "two"]


def test_a_deeply_nested_page_takes_no_time(tmp_path):
    path = tmp_path / "a.warc"
    path.write_bytes(page(b"<html><body>" + b"<div>" * 100_000 + b"deep"))
    assert list(read(path).values()) == ["deep"]


def test_web_archives_without_the_extra_say_which(tmp_path):
    path = tmp_path / "a.wet"
    path.write_bytes(record("conversion", b"x"))
    code = (
        "import sys; sys.modules['fastwarc'] = sys.modules['fastwarc.warc'] = None\n"
        "from data_prep.sources.readers import *; from data_prep.config import SourceConfig\n"
        f"s = SourceConfig.model_validate({{'name': 't', 'paths': [{str(path)!r}]}})\n"
        "list(read_part(s, parts(s)[0], BadRecords(9)))"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert f"{ConfigError.__name__}: {path}: web archives need the extra `data`" in result.stderr


def test_large_and_dictionary_columns_are_strings_too(tmp_path):
    for number, kind in enumerate((pyarrow.large_string(), pyarrow.dictionary(pyarrow.int32(), pyarrow.string()))):
        table = pyarrow.table({"text": pyarrow.array(["a", "b", "a"]).cast(kind), "n": [1, 2, 3]})
        pyarrow.parquet.write_table(table, tmp_path / f"{number}.parquet")
        assert read(tmp_path / f"{number}.parquet") == {
            f"{tmp_path}/{number}.parquet:{row}": text for row, text in ((1, "a"), (2, "b"), (3, "a"))
        }


def test_an_archive_of_many_members_is_not_held(tmp_path):
    path = write_tar(tmp_path / "x.tar", {f"{number}.txt": b"x" for number in range(300)})
    config = source(path)
    documents = read_part(config, parts(config)[0], BadRecords())
    for _ in range(299):
        next(documents)
    import gc

    assert sum(isinstance(item, tarfile.TarInfo) for item in gc.get_objects()) < 5
