"""Documents made up by a rule: facts in random order, then questions about them, with their answers.

    a3,1x,b1,3z,2y,c2|b=1|2=y     one hop: the link of a key, the value of a link
    a3,1x,b1,3z,2y,c2|b:x         two hops: the value at the end of a key's chain
    a3,1x,b1,3z,2y,c2|b:u         chance: any value at all, whatever the facts say

A chain is a key, a link and a value, each drawn once a document. Every character is a token of its own to any tokenizer
of `data_prep`: letters stand between digits and signs, which it never merges with them. Document i depends on the source's
options and i alone.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import Literal

from pydantic import Field

from data_prep.documents import Document
from rlpt.config_objectives import Section
from rlpt.tasks.base import keyed_random

KEYS, LINKS, VALUES = "abcdefgh", "01234567", "pqrstuvw"


class LookUpsConfig(Section):
    """What the documents of one source ask."""

    ask: Literal["one_hop", "two_hops", "chance"] = Field(description="the kind of question")
    documents: int = Field(ge=1)
    chains: int = Field(3, ge=2, le=len(KEYS), description="key -> link -> value, two facts each")
    questions: int = Field(1, ge=1, le=len(KEYS), description="a document, no two the same")


def look_up_documents(config: LookUpsConfig, source: str) -> Iterator[Document]:
    """Its documents, in the same order in every process."""
    for index in range(config.documents):
        rng = keyed_random(f"look_ups {config.model_dump_json()}", index, config.chains)
        yield Document(_document(config, rng), f"{source}: look-up {index}")


def _document(config: LookUpsConfig, rng: random.Random) -> str:
    keys, links, values = (rng.sample(symbols, config.chains) for symbols in (KEYS, LINKS, VALUES))
    facts = [a + b for a, b in [*zip(keys, links), *zip(links, values)]]
    if config.ask == "one_hop":
        asked = [f"{fact[0]}={fact[1]}" for fact in facts]
    elif config.ask == "two_hops":
        asked = [f"{key}:{value}" for key, value in zip(keys, values)]
    else:
        asked = [f"{key}:{rng.choice(VALUES)}" for key in keys]
    rng.shuffle(facts)
    return "|".join([",".join(facts), *rng.sample(asked, min(config.questions, len(asked)))])
