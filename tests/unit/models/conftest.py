"""Models of one rank, in the process of the tests."""

import pytest
from helpers.tiny_model import one_rank


@pytest.fixture(scope="module")
def rank():
    """Models can be built here; other modules' tests find the process as it was."""
    with one_rank():
        yield
