"""Bad input: `file:line: reason` by default; with `BadRecords(n)`, the smallest thing that can be left out is."""

import gzip
import io
import os
import random
import stat
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pyarrow
import pyarrow.parquet
import pytest
from test_data_prep_formats import page, record, source, write_tar, write_zip, zstd

from data_prep.sources.bad_records import BadRecords
from data_prep.sources.readers import parts, read_part
from rlpt.errors import DataError

ROOT = Path(__file__).parents[3]


def read(path, limit=0, **options):
    """Texts, and the messages of what was left out."""
    config, bad = source(path, **options), BadRecords(limit)
    texts = [document.text for part in parts(config) for document in read_part(config, part, bad)]
    return texts, bad.examples


def check(path, match, left, **options):
    """Strictly it is an error that matches; with one bad record allowed, the texts in `left` are read."""
    with pytest.raises(DataError, match=match):
        read(path, **options)
    texts, (example,) = read(path, limit=1, **options)
    assert texts == left
    with pytest.raises(DataError, match=match):
        raise DataError(example)
    assert "\n" not in example


@pytest.mark.parametrize("compress", [None, gzip.compress, zstd])
@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (b'{"text": "x"', r"malformed JSON at column \d+"),
        (b'["x"]', "not a JSON object but list"),
        (b'{"txt": "x"}', r"no key 'text' \(keys: txt\)"),
        (b'{"text": null}', "'text' must be a string, is NoneType"),
        (b'{"text": 5}', "'text' must be a string, is int"),
        (b'{"text": "\xff"}', "invalid UTF-8 at byte offset 10"),
        (b'{"text": "x", "text": "y"}', "key 'text' is given twice"),
        (b'{"text": "x", "n": {"a": 1, "b": 2, "a": 3}}', "key 'a' is given twice"),
        (b'{"text": "x", "n": NaN}', "NaN is not JSON"),
        (b'{"text": "x", "n": -Infinity}', "-Infinity is not JSON"),
        (b'{"text": "x", "n": ' + b"9" * 5000 + b"}", "Exceeds the limit"),
        (b'{"text": "\\ud800"}', "lone surrogate at character 0"),
        (b'{"text": "x\\u0000"}', "NUL at character 1"),
        (b'{"text": "x\0"}', "malformed JSON"),
        (b'{"text": "' + b"x" * 200_000 + b'"}', "longer than 150000 bytes"),
        (b"[" * 100_000 + b"]" * 40_000, "(JSON is nested too deeply|malformed JSON)"),
        (b"[" * 70_000 + b"]" * 70_000, "(JSON is nested too deeply|not a JSON object)"),
    ],
)
def test_a_bad_line_is_named_or_left_out(tmp_path, line, reason, compress):
    data = b'{"text": "good"}\r\n' + line + b'\n\n{"text": "after"}'
    name = "bad.jsonl" if compress is None else "bad.jsonl.gz" if compress is gzip.compress else "bad.jsonl.zst"
    (tmp_path / name).write_bytes(compress(data) if compress else data)
    check(tmp_path / name, rf"{name}:2: {reason}", ["good", "after"], max_document_bytes=150_000)


def test_many_keys_of_which_one_is_given_twice_are_no_trap(tmp_path):
    keys = ", ".join(f'"{number}": 0' for number in range(200_000))
    (tmp_path / "a.jsonl").write_text("{" + keys + ', "199999": 1}\n')
    check(tmp_path, "key '199999' is given twice", [])


@pytest.mark.parametrize(
    ("data", "match"),
    [
        (b"one\ntwo \xff", r"b\.txt:2: invalid UTF-8 at byte offset 8"),
        (b"one\ntw\0", r"b\.txt:2: NUL at byte offset 6"),
        (b"x" * 101, r"b\.txt: longer than 100 bytes"),
        ("\ufefft\u00e9xt".encode("utf-16-le"), r"b\.txt:1: (NUL|invalid UTF-8) at byte offset"),
    ],
)
def test_a_bad_text_is_named_or_left_out(tmp_path, data, match):
    (tmp_path / "a.txt").write_bytes(b"\xef\xbb\xbfone\r\ntwo\r\n")
    (tmp_path / "b.txt").write_bytes(data)
    (tmp_path / "c.txt").write_bytes(b"")
    (tmp_path / "d.txt").write_bytes(b"x" * 100)
    check(tmp_path, match, ["one\r\ntwo\r\n", "x" * 100], max_document_bytes=100)


def test_no_more_is_left_out_than_allowed(tmp_path):
    (tmp_path / "a.jsonl").write_text('{"text": 1}\n' * 9 + '{"text": "good"}\n')
    assert read(tmp_path, 9) == (["good"], [f"{tmp_path}/a.jsonl:{n}: " + MISTYPED for n in range(1, 6)])
    with pytest.raises(DataError, match=r"a\.jsonl:9: "):
        read(tmp_path, 8)


MISTYPED = "'text' must be a string, is int; set text_key or mend the record"


@pytest.mark.parametrize(("suffix", "compress"), [("gz", gzip.compress), ("zst", zstd)])
def test_what_comes_before_a_cut_stays(tmp_path, suffix, compress):
    rng = random.Random(1)
    lines = [f"{number} {rng.random()}" for number in range(20_000)]
    path = tmp_path / f"a.jsonl.{suffix}"
    data = compress("".join(f'{{"text": "{line}"}}\n' for line in lines).encode())
    path.write_bytes(data[: len(data) // 2])
    with pytest.raises(DataError, match=rf"a\.jsonl\.{suffix}:\d+: truncated (gzip|zstd) data"):
        read(path)
    texts, (example,) = read(path, 1)
    assert 5_000 < len(texts) < 15_000
    assert texts == lines[: len(texts)]
    assert f":{len(texts) + 1}: truncated" in example
    path.write_bytes(b"junk" + data)
    check(path, rf"a\.jsonl\.{suffix}:1: not readable as (gzip|zstd)", [])
    path.write_bytes(data + b"junk")
    assert len(read(path, 1)[0]) > 19_000


def test_data_that_grow_without_end_are_refused(tmp_path):
    line = b'{"text": "' + b"a" * 1000 + b'"}\n'
    path = tmp_path / "a.jsonl.zst"
    path.write_bytes(zstd(line * 30_000))
    options = {"max_document_bytes": 1 << 20}
    with pytest.raises(DataError, match=r"a\.jsonl\.zst:\d+: grows to over 1000 times its \d+ compressed bytes"):
        read(path, **options)
    assert 15_000 < len(read(path, 1, **options)[0]) < 30_000
    assert len(read(path, max_expansion=0, **options)[0]) == 30_000
    write_zip(tmp_path / "a.zip", {"a.jsonl": (b" " * 1000 + b"\n") * 30_000, "b.txt": b"x"})
    check(tmp_path / "a.zip", r"a\.zip:a\.jsonl:\d+: grows to over 100 times", [], max_expansion=100, **options)


def test_bad_rows_are_named_or_left_out(tmp_path):
    def write(values):
        pyarrow.parquet.write_table(pyarrow.table({"text": values}), tmp_path / "a.parquet")

    for value, reason in ((None, "'text' must be a string, is NoneType"), ("a\0", "NUL"), ("x" * 101, "longer than")):
        write(["good", value, "after"])
        check(tmp_path, rf"a\.parquet:2: {reason}", ["good", "after"], max_document_bytes=100)
    broken = pyarrow.Array.from_buffers(
        pyarrow.string(), 2, [None, pyarrow.py_buffer(b"\0\0\0\0\1\0\0\0\2\0\0\0"), pyarrow.py_buffer(b"a\xff")]
    )
    write(broken)
    check(tmp_path, r"a\.parquet:2: invalid UTF-8", ["a"])
    write([1, 2])
    check(tmp_path, r"a\.parquet: column 'text' must hold strings, holds int64", [])
    write([["a"], ["b"]])
    check(tmp_path, r"a\.parquet: column 'text' must hold strings", [])
    write(["x" * 5000])
    check(tmp_path, r"a\.parquet: row group 1: rows are longer than 100 bytes", [], max_document_bytes=100)
    whole = (tmp_path / "a.parquet").read_bytes()
    (tmp_path / "a.parquet").write_bytes(whole[: len(whole) // 2])
    check(tmp_path, r"a\.parquet: not readable as Parquet", [])
    (tmp_path / "a.parquet").unlink()
    (tmp_path / "b.parquet.gz").write_bytes(gzip.compress(whole))
    check(tmp_path, r"b\.parquet\.gz: parquet can't be read from inside gzip", [])


@pytest.mark.parametrize("name", ["../up.txt", "/root.txt", "a/../../b.txt", "..\\up.txt", "c:/x.txt"])
def test_names_that_lead_out_of_an_archive_are_refused(tmp_path, name):
    members = {"a.txt": b"before", name: b"evil", "z.txt": b"after"}
    shown = name.replace("\\", r".*").replace(".", r"\.") if "\\" not in name else ".*up"
    for path in (write_tar(tmp_path / "x.tar.gz", members, "w:gz"), write_zip(tmp_path / "x.zip", members)):
        check(path, rf"{path.name}:{shown}.*: the name leads out of", ["before", "after"])


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.FIFOTYPE])
def test_links_and_devices_in_a_tar_are_refused(tmp_path, kind):
    with tarfile.open(tmp_path / "x.tar", "w") as archive:
        for name, data in (("a.txt", b"before"), ("b.txt", None), ("c.txt", b"after")):
            header = tarfile.TarInfo(name)
            if data is None:
                header.type, header.linkname = kind, "/etc/passwd"
                archive.addfile(header)
            else:
                header.size = len(data)
                archive.addfile(header, io.BytesIO(data))
    check(tmp_path, r"x\.tar:b\.txt: (link to /etc/passwd|special file); only plain files", ["before", "after"])


def test_links_encryption_and_odd_methods_in_a_zip_are_refused(tmp_path):
    path = tmp_path / "x.zip"
    with zipfile.ZipFile(path, "w") as archive:
        link = zipfile.ZipInfo("a.txt")
        link.external_attr = (stat.S_IFLNK | 0o777) << 16
        archive.writestr(link, "/etc/passwd")
        archive.writestr("b.txt", "good")
    check(path, r"x\.zip:a\.txt: symbolic link; only plain files", ["good"])
    write_zip(path, {"a.txt": b"secret", "b.txt": b"good"}, zipfile.ZIP_STORED)
    data = bytearray(path.read_bytes())
    for header, offset in ((b"PK\3\4", 6), (b"PK\1\2", 8)):  # the bit that says: encrypted
        data[data.index(header) + offset] |= 1
    path.write_bytes(data)
    check(path, r"x\.zip:a\.txt: encrypted", ["good"])
    write_zip(path, {"a.txt": b"packed"}, zipfile.ZIP_BZIP2)
    check(path, r"x\.zip:a\.txt: compression method 12; write it with deflate", [])


def test_damaged_archives_are_one_bad_record_and_members_before_stay(tmp_path):
    members = {"a.txt": b"first", "b.txt": random.Random(0).randbytes(30_000).hex().encode(), "c.txt": b"last"}
    whole = write_tar(tmp_path / "x.tar", members).read_bytes()
    for cut, match in (
        (4_000, r"x\.tar:b\.txt: damaged archive"),
        (1_024 + 488, r"x\.tar: truncated: no mark at its end"),
        (1_024 + 512, r"x\.tar:b\.txt: damaged archive"),
        (1_024, r"x\.tar: truncated: no mark at its end"),
    ):
        (tmp_path / "x.tar").write_bytes(whole[:cut])
        check(tmp_path, match, ["first"])
    (tmp_path / "x.tar").write_bytes(whole + whole)
    check(tmp_path, r"x\.tar: data after the mark", [data.decode() for data in members.values()])
    (tmp_path / "x.tar").write_bytes(b"no tar at all " * 100)
    check(tmp_path, r"x\.tar: not readable as tar", [])
    (tmp_path / "x.tar").unlink()
    write_tar(tmp_path / "x.tar.gz", members, "w:gz")
    data = (tmp_path / "x.tar.gz").read_bytes()
    (tmp_path / "x.tar.gz").write_bytes(data[:-20_000])
    check(tmp_path, r"x\.tar\.gz.*: truncated gzip data", ["first"])
    (tmp_path / "x.tar.gz").write_bytes(data[:-4])
    check(tmp_path, r"x\.tar\.gz.*: truncated gzip data", [data.decode() for data in members.values()])
    (tmp_path / "x.tar.gz").unlink()
    data = bytearray(write_zip(tmp_path / "x.zip", {"a.txt": b"first", "b.txt": b"second" * 9}, 0).read_bytes())
    data[data.index(b"second") + 3] ^= 1
    (tmp_path / "x.zip").write_bytes(data)
    check(tmp_path, r"x\.zip:b\.txt: .*Bad CRC-32", ["first"])
    (tmp_path / "x.zip").write_bytes(data[:-30])
    check(tmp_path, r"x\.zip: not readable as zip", [])


def test_bad_things_within_members_are_named_by_archive_member_and_line(tmp_path):
    inner = gzip.compress(b'{"text": "x"}\n' * 10)
    members = {"a.jsonl": b'{"text": "a"}\n{"text": 1}\n', "b.jsonl.gz": inner[:-9], "c.zip": b"PK", "d.txt": b"d"}
    path = write_tar(tmp_path / "x.tar", members)
    texts, examples = read(path, 3)
    assert (texts[0], texts[-1]) == ("a", "d")
    assert [example.split(": ")[0].removeprefix(f"{path}:") for example in examples] == [
        "a.jsonl:2",
        examples[1].split(": ")[0].removeprefix(f"{path}:"),
        "c.zip",
    ]
    assert "x.tar:b.jsonl.gz:" in examples[1]
    assert "zip within an archive is not read" in examples[2]
    assert read(path, 2, exclude=["c.zip"])[0] == texts


def test_a_header_of_a_tar_that_fills_memory_is_refused(tmp_path):
    long = tarfile.TarInfo("././@LongLink")
    long.type, long.size = tarfile.GNUTYPE_LONGNAME, 1 << 33
    (tmp_path / "x.tar.gz").write_bytes(gzip.compress(long.tobuf(tarfile.GNU_FORMAT) + b"a" * (40 << 20)))
    check(tmp_path, r"x\.tar\.gz: a header of more than \d+ bytes", [])


def test_bad_web_records_are_named_or_left_out(tmp_path):
    path = tmp_path / "a.warc"
    good = record("conversion", b"good")
    for bad, reason in (
        (record("conversion", b"\xff"), "invalid UTF-8 at byte offset 0"),
        (record("conversion", b"a\0"), "NUL at character 1"),
        (record("conversion", b"x" * 300), "longer than 200 bytes"),
        (page(b"no gzip", encoding="Content-Encoding: gzip\r\n"), "not decodable"),
        (page(gzip.compress(b"<p>" * 99_999), encoding="Content-Encoding: gzip\r\n"), "longer than 200 bytes"),
    ):
        path.write_bytes(good + bad + good)
        check(path, rf"a\.warc:2: {reason}", ["good", "good"], max_document_bytes=200)
    path.write_bytes(good + good[:-6])
    check(path, r"a\.warc:2: the archive ends within this record", ["good"])
    path.write_bytes(good + good[:20])
    check(path, r"a\.warc:\d: (the archive ends within|malformed WARC record)", ["good"])
    path.write_bytes(good + b"garbage\r\n\r\n" + good)
    check(path, r"a\.warc:2: malformed WARC record", ["good"])
    path.write_bytes(good.replace(b"Content-Length: 4", b"Content-Length: x") + good)
    check(path, r"a\.warc:\d: malformed WARC record", [])
    path.unlink()
    whole = gzip.compress(good) + gzip.compress(good * 500)
    (tmp_path / "a.wet.gz").write_bytes(whole[:-12])
    with pytest.raises(DataError, match=r"a\.wet\.gz.*: truncated gzip data"):
        read(tmp_path)
    assert set(read(tmp_path, 1)[0]) == {"good"}


def test_a_file_that_vanishes_or_may_not_be_read_is_named(tmp_path):
    for name in "abc":
        (tmp_path / f"{name}.txt").write_text(name)
    config = source(tmp_path)
    (part,) = parts(config)
    (tmp_path / "b.txt").unlink()
    with pytest.raises(DataError, match=r"b\.txt: vanished since the files were listed"):
        list(read_part(config, part, BadRecords()))
    bad = BadRecords(1)
    assert [document.text for document in read_part(config, part, bad)] == ["a", "c"]
    (tmp_path / "b.txt").mkdir()  # something else in its place
    with pytest.raises(DataError, match=r"b\.txt: can't be read: Is a directory"):
        list(read_part(config, part, BadRecords()))


def test_a_file_without_permission_is_named(tmp_path):
    (tmp_path / "a.txt").write_text("a")
    config = source(tmp_path)
    (part,) = parts(config)
    (tmp_path / "a.txt").chmod(0)
    root = os.geteuid() == 0
    if root:  # who may read anything
        os.seteuid(65534)
    try:
        with pytest.raises(DataError, match=r"a\.txt: can't be read: Permission denied"):
            list(read_part(config, part, BadRecords()))
    finally:
        if root:
            os.seteuid(0)


def peak(path, limit, **options):
    """What a fresh process says of a source, and the most memory that reading it took, in MiB."""
    code = f"""
from pathlib import Path
from data_prep.sources.readers import *
from data_prep.config import SourceConfig
import pyarrow.parquet
def most():
    lines = Path('/proc/self/status').read_text().splitlines()
    return int(next(line for line in lines if line.startswith('VmHWM')).split()[1]) // 1024
config = SourceConfig.model_validate({{'name': 't', 'paths': [{str(path)!r}]}} | {options!r})
before, bad, count = most(), BadRecords({limit}), 0
try:
    for document in read_part(config, parts(config)[0], bad):
        count += 1
    print(count, most() - before, *bad.examples, sep='|')
except ValueError as error:
    print(count, most() - before, error, sep='|')
"""
    command = [sys.executable, "-c", code]
    printed = subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT).stdout
    count, grown, message = printed.strip().split("|")
    return int(count), int(grown), message


@pytest.mark.parametrize("name", ["a.txt", "a.jsonl"])
def test_a_line_of_a_gigabyte_is_refused_in_little_memory(tmp_path, name):
    with open(tmp_path / name, "wb") as file:
        file.truncate(1 << 30)
    count, grown, message = peak(tmp_path / name, 0)
    assert (count, "longer than 67108864 bytes" in message) == (0, True)
    assert grown < 260  # four times the longest line that is let in


@pytest.mark.parametrize(("suffix", "compress"), [("gz", gzip.compress), ("zst", zstd)])
def test_a_bomb_in_one_line_is_refused_in_little_memory(tmp_path, suffix, compress):
    piece = compress(bytes(64 << 20))
    with open(tmp_path / f"a.jsonl.{suffix}", "wb") as file:
        for _ in range(160):  # ten gigabytes
            file.write(piece)
    count, grown, message = peak(tmp_path / f"a.jsonl.{suffix}", 0, max_document_bytes=1 << 20)
    assert (count, grown < 40) == (0, True), grown
    assert "a.jsonl." in message
    assert "longer than 1048576 bytes" in message or "grows to over 1000 times" in message


@pytest.mark.parametrize("typed", [False, True])
def test_a_parquet_bomb_is_refused_in_little_memory(tmp_path, typed):
    text = "".join(random.Random(1).choices("abcdefgh", k=1 << 20))
    table = pyarrow.table({"text": pyarrow.DictionaryArray.from_arrays(pyarrow.array([0] * 20_000), [text])})
    pyarrow.parquet.write_table(table, tmp_path / "a.parquet", compression="zstd", store_schema=typed)
    assert (tmp_path / "a.parquet").stat().st_size < 1 << 20, "twenty gigabytes of text"
    count, grown, message = peak(tmp_path / "a.parquet", 0)
    assert "a.parquet: grows to over 1000 times" in message
    assert 0 < count < 1000
    assert grown < 200, grown
