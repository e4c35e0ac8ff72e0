"""Knights always speak the truth, knaves never do; who is a knight (1)? `knights a:!a&b b:a? ab` -> `00`.

The islanders are those of Smullyan, What Is the Name of This Book? (1978). `!a&b` says that a is a knave and b a
knight, `a=b` that they are of one kind.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any, ClassVar

from rlpt.registry import register
from rlpt.tasks.base import Task, position_credit
from rlpt.tasks.logic.formula import VALUES, with_values
from rlpt.types import Problem

ISLANDERS = (2, 3, 3, 4, 4, 5, 6, 7, 8, 9)  # by level
ASKED = (1, 2, 3, 3, 4, 5, 6, 7, 8, 9)  # islanders whose kind is asked, by level
COMPOUND = (0.0, 0.0, 0.4, 0.4, 0.6, 0.6, 0.7, 0.7, 0.8, 0.9)  # share of statements about two islanders, by level
NAMES = "abcdefghij"
# (operator, value) -> truths of the two sides that give the value; and those from which, with the second side known,
# the first one follows.
SIDES = {
    (operator, value): [(a, b) for a, b in product("01", repeat=2) if VALUES[a + operator + b] == value]
    for operator in "&|="
    for value in "01"
}
REVEALING = {
    (operator, value): [(a, b) for a, b in sides if VALUES[("1" if a == "0" else "0") + operator + b] != value]
    for (operator, value), sides in SIDES.items()
}
# What a first speaker says of himself (a) and another (b), by the kinds of the two, such that it gives away both.
ANCHORS = {"00": "!a&b", "01": "!a&!b", "10": "!a|!b", "11": "!a|b"}


def literal(islander: str, truth: str, kinds: Mapping[str, str]) -> str:
    """`a` or `!a`, whichever has this truth value."""
    return islander if kinds[islander] == truth else "!" + islander


def compound(
    rng: random.Random,
    table: Mapping[tuple[str, str], list[tuple[str, str]]],
    pair: Sequence[str],
    value: str,
    kinds: Mapping[str, str],
) -> str:
    """A statement of this truth value about two islanders, with the truths of its sides out of `table`."""
    operator = rng.choice("&|=")
    sides = rng.choice(table[operator, value])
    return literal(pair[0], sides[0], kinds) + operator + literal(pair[1], sides[1], kinds)


def statements(rng: random.Random, order: Sequence[str], kinds: Mapping[str, str], share: float) -> dict[str, str]:
    """What each islander says, so that their kinds follow one after the other in `order`, the first from what he says
    of himself; the second is known with him or (where they compare themselves) before him."""
    first, second = order[0], order[1]
    said: dict[str, str] = {}
    if rng.random() < 0.5:
        said[first] = ANCHORS[kinds[first] + kinds[second]].translate(str.maketrans("ab", first + second))
        spare = [second]  # known, and yet to say something
    else:
        said[first] = ("" if kinds[second] == "1" else "!") + f"{first}={second}"
        said[second] = literal(first, kinds[second], kinds)
        spare = []
    for at in range(2, len(order)):
        islander, reveal = order[at], bool(spare) and rng.random() < 0.6
        speaker = spare.pop(rng.randrange(len(spare))) if reveal else islander
        if reveal:
            spare.append(islander)
        if rng.random() < share:
            pair = [islander, rng.choice(order[:at])] if reveal else rng.sample(order[:at], 2)
            said[speaker] = compound(rng, REVEALING if reveal else SIDES, pair, kinds[speaker], kinds)
        else:
            said[speaker] = literal(islander if reveal else rng.choice(order[:at]), kinds[speaker], kinds)
    for speaker in spare:
        others = [islander for islander in order if islander != speaker]
        if len(others) > 1 and rng.random() < share:
            said[speaker] = compound(rng, SIDES, rng.sample(others, 2), kinds[speaker], kinds)
        else:
            said[speaker] = literal(rng.choice(others), kinds[speaker], kinds)
    return said


def conclusions(speaker: str, statement: str, known: Mapping[str, str]) -> dict[str, str]:
    """Kinds that this one statement adds to those known: what all cases have in common in which it is true just if the
    speaker is a knight."""
    unknown = sorted({speaker, *filter(str.isalpha, statement)} - set(known))
    cases = []
    for bits in product("01", repeat=len(unknown)):
        case = {**known, **dict(zip(unknown, bits))}
        if VALUES[with_values(statement, case)] == case[speaker]:
            cases.append(bits)
    return {name: bits[0] for name, bits in zip(unknown, zip(*cases)) if len(set(bits)) == 1}


def premise(speaker: str, statement: str, known: Mapping[str, str]) -> str:
    """`a1:!c`: the speaker, with his kind where it is known, and what he says, with the known kinds written in."""
    return f"{speaker}{known.get(speaker, '')}:{with_values(statement, known)}"


@register("task", "knights_knaves")
@dataclass(frozen=True)
class KnightsKnaves(Task):
    """Level l: `ISLANDERS[l]` islanders, `ASKED[l]` of them asked for. Credit: share of bits right.

    The kinds follow one after the other, each from a single statement and the kinds known by then, so there is just one
    solution. At level 0 the answer is one bit, guessed with the end mark: 1 in 9.
    """

    name: ClassVar[str] = "knights_knaves"
    alphabet: ClassVar[str] = "01"
    thought_alphabet: ClassVar[str] = NAMES + "01!&|=:> "

    def answer_limit(self, level: int) -> int:
        """A bit for each islander who is asked for."""
        return ASKED[level]

    def generate(self, rng: random.Random, level: int) -> tuple[str, str, Mapping[str, Any]]:
        """Uniform kinds, and statements that give them away in a random order."""
        order = rng.sample(NAMES, ISLANDERS[level])
        kinds = {islander: rng.choice("01") for islander in order}
        said = statements(rng, order, kinds, COMPOUND[level])
        lines = [f"{islander}:{said[islander]}" for islander in sorted(order)]
        asked = "".join(sorted(rng.sample(order, ASKED[level])))
        prompt = f"knights {' '.join(lines)}? {asked}"
        return prompt, "".join(kinds[islander] for islander in asked), {"said": lines, "asked": asked}

    def solution(self, problem: Problem) -> str:
        """`a:!a&b>a0 a0:1&b>b0`: a statement with what is known written in, and a kind that follows, until all who are
        asked for are known."""
        known: dict[str, str] = {}
        steps = []
        while not known.keys() >= set(problem.meta["asked"]):
            speaker, statement, found = next(
                (line[0], line[2:], found)
                for line in problem.meta["said"]
                if (found := conclusions(line[0], line[2:], known))
            )
            name = speaker if speaker in found else min(found)
            steps.append(f"{premise(speaker, statement, known)}>{name}{found[name]}")
            known[name] = found[name]
        return " ".join(steps)

    def check_steps(self, problem: Problem, trace: str) -> list[float]:
        """A step is right when its statement, with what earlier right steps found written in, leads to its kind."""
        said = {line[0]: line[2:] for line in problem.meta["said"]}
        known: dict[str, str] = {}
        scores = []
        for step in trace.split():
            speaker, name, kind = step[0], step[-2:-1], step[-1]
            right = (
                speaker in said
                and step == f"{premise(speaker, said[speaker], known)}>{name}{kind}"
                and conclusions(speaker, said[speaker], known).get(name) == kind
            )
            if right:
                known[name] = kind
            scores.append(float(right))
        return scores

    def grade(self, problem: Problem, answer: str) -> float:
        """Share of bits right."""
        return position_credit(answer, problem.answer)
