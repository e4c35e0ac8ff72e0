"""Progress lines on stderr: one every two seconds, with the time left."""

from __future__ import annotations

import sys
import time
from types import TracebackType


class Progress:
    """Counts work done towards `total` (None: unknown). A context manager; it prints a last line when all went well."""

    def __init__(
        self, stage: str, what: str, total: int | None, unit: str = "documents", interval: float = 2.0
    ) -> None:
        """`interval` is in seconds; `unit` names what `update` counts."""
        self._title, self._unit, self._total, self._interval = f"{stage}: {what}", unit, total, interval
        self._done = 0
        self._start = self._last = time.monotonic()

    def update(self, amount: int = 1) -> None:
        """Counts `amount` more and prints a line when it is time."""
        self._done += amount
        now = time.monotonic()
        if now - self._last >= self._interval:
            self._last = now
            self._print(self._left(now))

    def _left(self, now: float) -> str:
        if not self._total or not self._done:
            return ""
        return f", {(now - self._start) * max(self._total - self._done, 0) / self._done:.0f} s left"

    def _print(self, rest: str) -> None:
        of = f" of {self._total:,}" if self._total else ""
        print(f"{self._title}: {self._done:,}{of} {self._unit}{rest}", file=sys.stderr, flush=True)

    def __enter__(self) -> Progress:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if kind is None:
            self._total = None
            self._print(f" in {time.monotonic() - self._start:.1f} s")
