"""Shares by datatrove's executors, on this machine: the same bytes, errors in one line, options that are checked."""

import pytest
from unit.data_prep.test_data_prep_pipeline import SECTIONS, many_parts


def test_locally_any_number_of_tasks_gives_the_same_bytes(tmp_path):
    pytest.importorskip("datatrove")
    path = many_parts(tmp_path, **SECTIONS)
