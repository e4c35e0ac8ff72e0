"""Retrievers: which fact of a bank a query brings back. A query is a few characters, a fact's key two of them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rlpt import registry
from rlpt.errors import ConfigError
from rlpt.registry import register


@dataclass(frozen=True)
class Retriever(ABC):
    """Subclasses are frozen dataclasses whose fields are their YAML options."""

    @abstractmethod
    def index(self, keys: Sequence[str]) -> Any:
        """What `find` looks things up in; built once a bank. `keys` are distinct."""

    @abstractmethod
    def find(self, index: Any, query: str) -> str | None:
        """The key that fits `query` best; None where nothing fits. Total and deterministic."""


@register("retriever", "exact")
@dataclass(frozen=True)
class Exact(Retriever):
    """The key that is the query."""

    def index(self, keys: Sequence[str]) -> Any:
        """The set of keys."""
        return frozenset(keys)

    def find(self, index: Any, query: str) -> str | None:
        """The query itself where it is a key."""
        return query if query in index else None


@register("retriever", "bm25")
@dataclass(frozen=True)
class BM25(Retriever):
    """Okapi BM25 (Robertson and Zaragoza 2009) over the characters of the keys, by the package bm25s.

    At a tie the key that stands first in the bank wins. A query in another order, or with one right character, still
    brings something back, which an exact look-up does not.
    """

    k1: float = 1.5
    b: float = 0.75

    def index(self, keys: Sequence[str]) -> Any:
        """(bm25s index, keys). Raises ConfigError where bm25s is not installed."""
        try:
            import bm25s
        except ImportError:
            raise ConfigError("retriever 'bm25' needs the package bm25s: pip install 'rlpt[retrieval]'") from None
        index = bm25s.BM25(k1=self.k1, b=self.b)
        index.index([list(key) for key in keys], show_progress=False)
        return index, tuple(keys)

    def find(self, index: Any, query: str) -> str | None:
        """The key with the highest score, if that is above 0."""
        scorer, keys = index
        known = [character for character in query if character in scorer.vocab_dict]
        if not known:
            return None
        scores = scorer.get_scores(known)
        best = int(scores.argmax())
        return keys[best] if scores[best] > 0 else None


def create_retriever(spec: Mapping[str, Any], where: str = "retriever") -> Retriever:
    """The retriever of `{name: ..., **options}`."""
    retriever: Retriever = registry.create("retriever", spec, where)
    return retriever
