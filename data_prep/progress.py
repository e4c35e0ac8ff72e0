"""Progress lines on stderr: how many units are done, and the time left."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping
from types import TracebackType
from typing import Any


class Progress:
    """Counts finished units of one stage. A context manager; it prints a last line when all went well."""

    def __init__(self, stage: str, total: int, fresh: int, interval: float = 2.0) -> None:
        """`fresh` units need no work; `interval` is in seconds."""
        self._stage, self._total, self._fresh, self._interval = stage, total, fresh, interval
        self._done = 0
        self._counted: dict[str, int] = {}
        self._start = self._last = time.monotonic()

    def finished(self, figures: Mapping[str, Any]) -> None:
        """Counts one more unit; what its figures count (documents, utf8_bytes, tokens) is added up."""
        self._done += 1
        for key in ("documents", "utf8_bytes", "tokens"):
            if isinstance(figures.get(key), int):
                self._counted[key] = self._counted.get(key, 0) + figures[key]
        now = time.monotonic()
        if now - self._last >= self._interval and self._done + self._fresh < self._total:
            self._last = now
            left = (now - self._start) * (self._total - self._fresh - self._done) / self._done
            self._print(f"{self._done + self._fresh:,} of {self._total:,} parts{self._counts()}, {left:.0f} s left")

    def _counts(self) -> str:
        return "".join(f", {count:,} {key.replace('utf8_', '')}" for key, count in self._counted.items())

    def _print(self, text: str) -> None:
        print(f"{self._stage}: {text}", file=sys.stderr, flush=True)

    def __enter__(self) -> Progress:
        if self._fresh < self._total:
            known = f", {self._fresh:,} of them done before" if self._fresh else ""
            self._print(f"{self._total:,} part{'s' * (self._total != 1)}{known}")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if kind is not None:
            return
        seconds = time.monotonic() - self._start
        self._print("up to date" if self._fresh == self._total else f"done{self._counts()} in {seconds:.1f} s")
