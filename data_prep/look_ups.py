"""Documents made up by a rule: questions about a fixed table of facts, with their answers.

    4c=f,2f=k,7a=d     one hop: entity c has the relation 4 to f
    24c=k              two hops: what f, which c has the relation 4 to, has the relation 2 to
    24c=u              chance: any entity at all

The facts are in no document: they are learned by heart, from one-hop documents. Each relation is a permutation of the
entities, so that no part of a question alone says anything about its answer. Letters stand between digits and signs, so
every character is a token of its own to any tokenizer of `data_prep`. Document i depends on the options and i alone.
"""

from __future__ import annotations

import random
import string
from collections.abc import Iterator, Mapping
from typing import Literal

from pydantic import Field

from data_prep.documents import Document
from rlpt.config_objectives import Section
from rlpt.tasks.base import DIGITS, keyed_hash, keyed_random

ENTITIES, RELATIONS = string.ascii_lowercase, DIGITS


class LookUpsConfig(Section):
    """What the documents of one source ask, and of which table."""

    ask: Literal["one_hop", "two_hops", "chance"] = Field(description="the kind of question")
    documents: int = Field(ge=1)
    questions: int = Field(1, ge=1, description="a document")
    entities: int = Field(26, ge=2, le=len(ENTITIES))
    relations: int = Field(10, ge=1, le=len(RELATIONS))
    table: int = Field(0, ge=0, description="another number is another table of facts")


def facts_of(config: LookUpsConfig) -> Mapping[str, str]:
    """Relation and entity, as they are written -> the entity at the other end."""
    entities = ENTITIES[: config.entities]
    facts = {}
    for relation in RELATIONS[: config.relations]:
        shuffled = sorted(entities, key=lambda entity: keyed_hash("fact", config.table, relation, entity))
        facts |= {relation + entity: other for entity, other in zip(entities, shuffled)}
    return facts


def look_up_documents(config: LookUpsConfig, source: str) -> Iterator[Document]:
    """Its documents, in the same order in every process."""
    facts = facts_of(config)
    for index in range(config.documents):
        rng = keyed_random("look_ups", index, config.questions, config.ask)
        text = ",".join([_question(config, facts, rng) for _ in range(config.questions)])
        yield Document(text, f"{source}: look-up {index}")


def _question(config: LookUpsConfig, facts: Mapping[str, str], rng: random.Random) -> str:
    """One question and its answer."""
    entities = ENTITIES[: config.entities]
    first, second = rng.choices(RELATIONS[: config.relations], k=2)
    entity = rng.choice(entities)
    link = facts[first + entity]
    if config.ask == "one_hop":
        return f"{first}{entity}={link}"
    return f"{second}{first}{entity}={facts[second + link] if config.ask == 'two_hops' else rng.choice(entities)}"
