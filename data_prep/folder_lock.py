"""Who may write into an output folder: one preparation, or several that do shares of the same one."""

from __future__ import annotations

import fcntl
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from rlpt.errors import DataError

_PATIENCE = 5.0  # seconds that a share waits for others that are just entering


@contextmanager
def locked(out: Path, common: str | None = None) -> Iterator[None]:
    """Holds the folder for this process alone, or, with `common` (what the configuration is), together with all that
    say the same. Whoever holds it alone removes what killed runs have left half written.

    Raises DataError when another preparation is at work in the folder. The file system must have locks (flock).
    """
    out.mkdir(parents=True, exist_ok=True)
    with open(out / ".lock", "a+") as file:
        if common is None:
            if not _try(file, fcntl.LOCK_EX):
                raise DataError(f"{out}: another data_prep is at work here; wait for it, or set output=FOLDER")
            for path in list(out.rglob("*.tmp")):
                shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
        else:
            _join(out, file, common)
        yield


def _join(out: Path, file: IO[str], common: str) -> None:
    """Takes a shared lock. The first writes what is common into the file while it is alone."""
    end = time.monotonic() + _PATIENCE
    while True:
        if _try(file, fcntl.LOCK_EX):
            file.truncate(0)
            file.write(common)
            file.flush()
        if _try(file, fcntl.LOCK_SH):  # between the two locks another may have come: what it wrote counts
            file.seek(0)
            if file.read() == common:
                return
            raise DataError(
                f"{out}: data_prep is at work here with another configuration; wait for it, or set output=FOLDER"
            )
        if time.monotonic() > end:
            raise DataError(f"{out}: another data_prep is at work here; wait for it, or set output=FOLDER")
        time.sleep(0.05)


def _try(file: IO[str], kind: int) -> bool:
    try:
        fcntl.flock(file, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
