"""Bytes of files and of archives' members, decompressed through a small buffer, every failure a DataError."""

from __future__ import annotations

import gzip
import io
import tarfile
import zipfile
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, BinaryIO

from rlpt.errors import DataError

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

_BUFFER = 1 << 18
_HARMLESS = 1 << 24
_STEP = 1 << 13  # what is decompressed at once: an error loses no more than this of the good bytes before it
COMPRESSIONS = {".gz": "gzip", ".zst": "zstd"}


class BrokenStream(DataError):
    """Bytes that end early or can't be decompressed; what was read before is good. `reason`: the message less where."""

    def __init__(self, where: str, reason: str) -> None:
        super().__init__(f"{where}: {reason}")
        self.reason = reason


class BrokenArchive(BrokenStream):
    """A member that can't be read because the archive around it is broken."""


@dataclass
class Expansion:
    """Guards against data that grow beyond reason: `factor` times what is compressed, 0: any. The first `free` bytes,
    and 16 MiB, are let through, since they do no harm."""

    where: str
    factor: int
    free: int
    produced: int = 0  # bytes so far

    def add(self, amount: int, compressed: int) -> None:
        """Counts `amount` more bytes that came from the first `compressed`. Raises BrokenStream when it is too much."""
        self.produced += amount
        if self.exceeded(compressed):
            reason = (
                f"grows to over {self.factor} times its {compressed} compressed bytes; leave it out, or raise "
                "max_expansion if it is meant"
            )
            raise BrokenStream(self.where, reason)

    def exceeded(self, compressed: int) -> bool:
        """Whether it was too much already."""
        return bool(self.factor) and self.produced > max(self.free + _HARMLESS, self.factor * compressed)


class _Decompressed(io.RawIOBase):
    """Bytes that `read` hands out, counted; failures become BrokenStream."""

    def __init__(self, read: Callable[[int], bytes], count: Callable[[int], None], where: str, what: str) -> None:
        self._read, self._count, self._where, self._what, self._position = read, count, where, what, 0
        self.broken = False

    def readable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._position

    def readinto(self, buffer: WriteableBuffer) -> int:
        view = memoryview(buffer)
        try:
            data = self._read(len(view))
            self._count(len(data))
        except DataError:
            self.broken = True
            raise
        except (tarfile.TarError, zipfile.BadZipFile) as error:
            self.broken = True
            raise BrokenArchive(self._where, f"damaged archive ({error}); write it anew") from None
        except (EOFError, OSError, zlib.error) as error:
            self.broken = True
            early = isinstance(error, EOFError) or "Truncated" in str(error)
            what = f"truncated {self._what} data" if early else f"not readable as {self._what or 'a file'} ({error})"
            raise BrokenStream(self._where, f"{what}; write it anew") from None
        view[: len(data)] = data
        self._position += len(data)
        return len(data)


class ByteStream(io.BufferedReader):
    """What `open_stream` gives; `broken` once a read has failed, after which nothing more comes."""

    def __init__(self, raw: _Decompressed) -> None:
        super().__init__(raw, _BUFFER)
        self._decompressed = raw

    @property
    def broken(self) -> bool:
        return self._decompressed.broken


def open_file(path: Path, where: str) -> BinaryIO:
    """The file, for reading. Raises DataError when it can't be opened, or has vanished."""
    try:
        return open(path, "rb")
    except FileNotFoundError:
        raise DataError(f"{where}: vanished since the files were listed; put it back, or start anew") from None
    except OSError as error:
        raise DataError(f"{where}: can't be read: {error.strerror}; mend that, or list it under `exclude`") from None


def open_stream(
    raw: BinaryIO | IO[bytes], compression: str, where: str, expansion: Expansion, compressed: int | None = None
) -> ByteStream:
    """Bytes of `raw`, decompressed ("": as they are, "gzip" or "zstd": every frame of it).

    `compressed` is how many bytes stand for it all; None: those of `raw` that were read so far. Reading raises
    BrokenStream naming `where` for truncated or damaged data, and for those that grow beyond `expansion`.
    Zstandard frames that need a window above 128 MiB are refused, so that memory is bounded.
    """

    def count(amount: int) -> None:
        if compression or compressed is not None:
            expansion.add(amount, raw.tell() if compressed is None else compressed)

    return ByteStream(_Decompressed(_reader(raw, compression), count, where, compression))


def _reader(raw: BinaryIO | IO[bytes], compression: str) -> Callable[[int], bytes]:
    if not compression:
        return raw.read
    if compression == "gzip":
        return gzip.GzipFile(fileobj=raw, mode="rb").read1
    import pyarrow  # it tells a truncated stream from a whole one, which `zstandard`'s stream reader does not

    frames = pyarrow.CompressedInputStream(pyarrow.PythonFile(raw, "r"), compression)
    return lambda size: frames.read(min(size, _STEP))


def printable(name: str | Path) -> str:
    """A name from a file system or an archive as one line of text that UTF-8 can hold."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in str(name))
