"""Archives: their members' documents, read in place. Nothing is ever written to disk.

Members are taken by suffix, like files in a folder. What could leave the folder of one who unpacks the archive (`..`,
absolute names, links, devices) is a bad record, and so are encrypted members and archives within archives.
"""

from __future__ import annotations

import stat
import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import IO

from data_prep.config import SourceConfig
from data_prep.documents import Document
from data_prep.sources.bad_records import BadRecords
from data_prep.sources.formats import STREAMED, format_of
from data_prep.sources.streams import BrokenArchive, ByteStream, Expansion, open_file, open_stream, printable
from rlpt.errors import DataError

_HEADER_BYTES = 1 << 22  # most that may stand between two members of a tar: long names, extended headers
_BLOCK = tarfile.BLOCKSIZE
_CHUNK = 1 << 18
_METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)  # the others' decompressors hand out any amount at once


def read_tar(stream: ByteStream, where: str, source: SourceConfig, bad: BadRecords) -> Iterator[Document]:
    """Documents of a tar archive's members; origins are `where:member` and so on.

    Raises DataError where the archive itself is damaged or cut off; bad members go to `bad`.
    """
    metered = _Metered(stream, where)
    try:
        with _open_tar(metered) as archive:
            while True:
                with metered:
                    member = archive.next()
                if member is None:
                    break
                archive.members.clear()  # type: ignore[attr-defined] # it keeps every header
                file = archive.extractfile(member) if member.isreg() and not member.issparse() else None
                place = f"{where}:{printable(member.name)}"
                try:
                    if not member.isdir():
                        _check_name(member.name, place)
                        if file is None:
                            raise DataError(f"{place}: {_tar_type(member)}; only plain files are read: leave it out")
                        yield from _read_member(file, member.name, place, source, bad)
                except BrokenArchive:
                    raise
                except DataError as error:
                    if stream.broken:
                        raise
                    bad.meet(error)
                while file is not None and file.read(_CHUNK):
                    pass
    except tarfile.TarError as error:
        raise BrokenArchive(where, f"not readable as tar ({error}); write it anew") from None
    metered.check_end()


def read_zip(path: Path, where: str, source: SourceConfig, bad: BadRecords) -> Iterator[Document]:
    """Documents of a zip archive's members, in the order of its directory; as `read_tar`."""
    expansion = Expansion(where, source.max_expansion, source.max_document_bytes)
    try:
        with open_file(path, where) as raw, zipfile.ZipFile(raw) as archive:
            size = path.stat().st_size
            for member in archive.infolist():
                place = f"{where}:{printable(member.filename)}"
                try:
                    if member.is_dir():
                        continue
                    _check_name(member.filename, place)
                    _check_zip_member(member, place)
                    with archive.open(member) as file:
                        whole = open_stream(file, "", place, expansion, compressed=size)
                        yield from _read_member(whole, member.filename, place, source, bad)
                except DataError as error:
                    if expansion.exceeded(size):
                        raise
                    bad.meet(error)
                except (zipfile.BadZipFile, NotImplementedError, RuntimeError, OSError, EOFError, zlib.error) as error:
                    bad.meet(DataError(f"{place}: not readable ({error}); write the archive anew"))
    except (zipfile.BadZipFile, OSError) as error:
        raise DataError(f"{where}: not readable as zip ({error}); write it anew") from None


def _open_tar(metered: _Metered) -> tarfile.TarFile:
    with metered:  # it reads the first header
        return tarfile.open(fileobj=metered, mode="r|")  # type: ignore[call-overload, no-any-return]


def _read_member(file: IO[bytes], name: str, where: str, source: SourceConfig, bad: BadRecords) -> Iterator[Document]:
    if set(source.exclude) & set(PurePosixPath(name).parts):
        return
    found = format_of(name, source, named=False)
    if found is None:
        return
    if found.content not in STREAMED:
        raise DataError(
            f"{where}: {found.content} within an archive is not read; unpack it, or list it under `exclude`"
        )
    expansion = Expansion(where, source.max_expansion, source.max_document_bytes)
    stream = open_stream(file, found.compression, where, expansion)
    yield from STREAMED[found.content](stream, where, source, bad)


def _check_name(name: str, where: str) -> None:
    parts = name.replace("\\", "/").split("/")
    if ".." in parts or not parts[0] or parts[0].endswith(":"):
        raise DataError(f"{where}: the name leads out of the archive's folder; don't unpack this archive, leave it out")


def _check_zip_member(member: zipfile.ZipInfo, where: str) -> None:
    kind = stat.S_IFMT(member.external_attr >> 16)
    if kind not in (0, stat.S_IFREG):
        what = "symbolic link" if kind == stat.S_IFLNK else "special file"
        raise DataError(f"{where}: {what}; only plain files are read: leave it out")
    if member.flag_bits & 1:
        raise DataError(f"{where}: encrypted; write it without a password")
    if member.compress_type not in _METHODS:
        raise DataError(f"{where}: compression method {member.compress_type}; write it with deflate")


def _tar_type(member: tarfile.TarInfo) -> str:
    if member.issym() or member.islnk():
        return f"link to {printable(member.linkname)}"
    return "sparse file" if member.issparse() else "special file"


class _Metered:
    """A tar's bytes. Within `with`, where headers are read into memory, no more than `_HEADER_BYTES` come."""

    def __init__(self, stream: ByteStream, where: str) -> None:
        self._stream, self._where = stream, where
        self._left: int | None = None
        self._tail = b""

    def __enter__(self) -> None:
        self._left = _HEADER_BYTES

    def __exit__(self, *_: object) -> None:
        self._left = None

    def read(self, size: int) -> bytes:
        data = self._stream.read(size)
        if data:
            self._tail = (self._tail + data[-_BLOCK:])[-_BLOCK:]
        if self._left is not None:
            self._left -= len(data)
            if self._left < 0:
                raise BrokenArchive(self._where, f"a header of more than {_HEADER_BYTES} bytes; leave the archive out")
        return data

    def check_end(self) -> None:
        """Raises BrokenArchive unless a block of zeros, and nothing but zeros after it, ends the archive."""
        if self._tail.strip(b"\0"):
            raise BrokenArchive(self._where, "truncated: no mark at its end; write it anew")
        while data := self._stream.read(_CHUNK):
            if data.strip(b"\0"):
                raise BrokenArchive(self._where, "data after the mark at its end; split it into single archives")
