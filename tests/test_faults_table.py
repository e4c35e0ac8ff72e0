"""docs/faults.md names tests that are there."""

import re
from pathlib import Path

ROOT = Path(__file__).parents[1]
NAMED = re.compile(r"`(tests/[\w/]+\.py)::(\w+)`")


def test_every_test_that_the_table_names_is_there():
    rows = [line for line in (ROOT / "docs" / "faults.md").read_text().splitlines() if line.startswith("| ")][1:]
    named = [NAMED.search(row) for row in rows]
    missing = [row for row, found in zip(rows, named) if not found and "| the same |" not in row]
    assert len(rows) >= 30
    assert missing == []
    for path, name in {found.groups() for found in named if found}:
        assert f"def {name}(" in (ROOT / path).read_text(), f"{path}::{name}"
