"""Records that can't be used: the first is an error, unless the user allows some; those are counted and reported."""

from __future__ import annotations

from rlpt.errors import DataError

_EXAMPLES = 5


class BadRecords:
    """Counts lines, rows, records, members and files that were left out; at most `limit` of them, 0 by default.

    `count` is how many were left out, `examples` what was wrong with the first five.
    """

    def __init__(self, limit: int = 0) -> None:
        self.limit, self.count = limit, 0
        self.examples: list[str] = []

    def meet(self, error: DataError) -> None:
        """Leaves one record out. Raises `error` itself, without counting it, when that would be more than `limit`."""
        if self.count >= self.limit:
            raise error
        self.count += 1
        if len(self.examples) < _EXAMPLES:
            self.examples.append(str(error))
