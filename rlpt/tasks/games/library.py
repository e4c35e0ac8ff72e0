"""The one place that imports OpenSpiel (Lanctot et al., 2019), which is optional."""

from __future__ import annotations

from functools import cache
from typing import Any

from rlpt.errors import ConfigError


def load_library() -> Any:
    """The module `pyspiel`. Raises ConfigError that says how to install it."""
    try:
        import pyspiel
    except ImportError:
        raise ConfigError("OpenSpiel is not installed; run: pip install 'rlpt[games]'") from None
    return pyspiel


@cache
def load_game(name: str) -> Any:
    """The OpenSpiel game of a name with parameters, like `hex(board_size=4)`."""
    return load_library().load_game(name)
