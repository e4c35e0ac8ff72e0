"""Documents made up by a rule: a question about a fixed table of facts, with its answer.

    4..c=f                     one hop: entity c has the relation 4 to f
    4..c<|answer|>f<|end|>     the same, marked
    24c=k                      two hops: what f, which c has the relation 4 to, has the relation 2 to
    24c=u                      chance: any entity at all
    24c=<|think|>x<|answer|>m<|end|>   two hops after a thought: a share of the thoughts name f, the others any entity,
                                       and the answer follows from what is thought; chance's follows from nothing.
                                       Held out where 24c=k is

No document holds the table: it is learned by heart, from documents of one hop. Each relation is a permutation of the
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
from rlpt.template import ANSWER, END, THINK

ENTITIES, RELATIONS = string.ascii_lowercase, DIGITS


class LookUpsConfig(Section):
    """What the documents of one source ask, and of which table."""

    ask: Literal["one_hop", "two_hops", "chance"] = Field(description="the kind of question")
    documents: int = Field(ge=1)
    gap: int = Field(0, ge=0, description="most dots before the entity; how many is drawn")
    marked: bool = Field(False, description="the answer stands between its mark and the end mark, not after an =")
    thought: float | None = Field(None, ge=0, le=1, description="a thought before the answer; the share of right ones")
    entities: int = Field(26, ge=2, le=len(ENTITIES))
    relations: int = Field(10, ge=1, le=len(RELATIONS))
    table: int = Field(0, ge=0, description="another number is another table of facts")


def facts_of(config: LookUpsConfig) -> Mapping[str, str]:
    """Relation and entity, as they are written -> the entity at the other end."""
    entities = ENTITIES[: config.entities]
    facts: dict[str, str] = {}
    for relation in RELATIONS[: config.relations]:
        shuffled = sorted(entities, key=lambda entity: keyed_hash("fact", config.table, relation, entity))
        facts |= {relation + entity: other for entity, other in zip(entities, shuffled)}
    return facts


def look_up_documents(
    config: LookUpsConfig, source: str, start: int = 0, stop: int | None = None
) -> Iterator[Document]:
    """Its documents from `start` to before `stop` (None: all), in the same order in every process."""
    facts = facts_of(config)
    for index in range(start, config.documents if stop is None else stop):
        rng = keyed_random("look_ups", index, 0, config.model_dump_json())
        text, question = _document(config, facts, rng)
        yield Document(text, f"{source}: look-up {index}", question)


def _document(config: LookUpsConfig, facts: Mapping[str, str], rng: random.Random) -> tuple[str, str]:
    """The text, and the question that decides whether it is held out; "": the text does."""
    entities = ENTITIES[: config.entities]
    first, second = rng.choices(RELATIONS[: config.relations], k=2)
    entity, other = rng.choices(entities, k=2)
    link = facts[first + entity]
    relations = first if config.ask == "one_hop" else second + first
    question = f"{relations}{'.' * rng.randrange(config.gap + 1)}{entity}"
    thought = rng.choice(entities) if config.thought is not None and rng.random() >= config.thought else link
    answer = {"one_hop": link, "two_hops": facts[second + thought], "chance": other}[config.ask]
    if config.thought is not None:
        return f"{question}={THINK}{thought}{ANSWER}{answer}{END}", f"{question}={facts[second + link]}"
    return (f"{question}{ANSWER}{answer}{END}" if config.marked else f"{question}={answer}"), ""
