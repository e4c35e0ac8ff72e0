"""What follows from facts by rules `if all of these, then that`, one bit each: `implies a: a>b bc>d; bd` -> `10`."""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import dataclass
from string import ascii_lowercase
from typing import Any, ClassVar

from rlpt.registry import register
from rlpt.tasks.base import Task, position_credit
from rlpt.types import Problem

FACTS = (1, 1, 1, 2, 2, 2, 3, 3, 3, 4)  # by level
DERIVED = (1, 2, 3, 3, 4, 5, 6, 7, 8, 9)  # symbols that follow, beyond the facts, by level
OTHERS = (2, 2, 2, 3, 3, 4, 4, 5, 6, 7)  # symbols that do not, by level
QUERIES = (1, 2, 2, 3, 4, 4, 5, 6, 7, 8)  # by level
TWO_PREMISES = (0.0, 0.0, 0.2, 0.3, 0.4, 0.4, 0.5, 0.5, 0.5, 0.5)  # share of the rules, by level
_CHAINED = 0.6  # share of the derived symbols that rest on the one derived just before


def pick(rng: random.Random, symbols: str) -> str:
    """A uniform one."""
    return symbols[int(rng.random() * len(symbols))]


def fired(facts: str, rules: list[str]) -> list[str]:
    """The rules `premises>conclusion` that forward chaining uses: in passes over them, those that add a symbol."""
    known, count = set(facts), -1
    used: list[str] = []
    while count < len(used):
        count = len(used)
        for rule in rules:
            if rule[-1] not in known and known.issuperset(rule[:-2]):
                known.add(rule[-1])
                used.append(rule)
    return used


@register("task", "implication")
@dataclass(frozen=True)
class Implication(Task):
    """Level l: `FACTS[l]` facts, a rule for each of `DERIVED[l]` symbols that follow and of `OTHERS[l]` that do not,
    and `QUERIES[l]` symbols that are asked for. Credit: share of bits right.

    Every symbol but the facts is the conclusion of one rule, so that only chaining tells which of them follow. At level
    0 the answer is one bit, guessed with the end mark: 1 in 9.
    """

    name: ClassVar[str] = "implication"
    alphabet: ClassVar[str] = "01"
    thought_alphabet: ClassVar[str] = ascii_lowercase + "01>= "

    def answer_limit(self, level: int) -> int:
        """A bit for each query."""
        return QUERIES[level]

    def generate(self, rng: random.Random, level: int) -> tuple[str, str, Mapping[str, Any]]:
        """Rules for derived symbols rest on symbols before them; each of the others' rules on another of the others."""
        symbols = "".join(rng.sample(ascii_lowercase, FACTS[level] + DERIVED[level] + OTHERS[level]))
        facts, holding = symbols[: FACTS[level]], symbols[: -OTHERS[level]]
        derived, others = holding[FACTS[level] :], symbols[len(holding) :]
        rules = []
        for at in range(FACTS[level], len(holding)):
            chained = at > FACTS[level] and rng.random() < _CHAINED
            premises = holding[at - 1] if chained else pick(rng, holding[:at])
            if at > 1 and rng.random() < TWO_PREMISES[level]:
                premises += pick(rng, holding[:at].replace(premises, ""))
            rules.append(f"{premises}>{holding[at]}")
        for symbol in others:
            premises = pick(rng, others.replace(symbol, ""))
            if rng.random() < TWO_PREMISES[level]:
                premises = pick(rng, holding) + premises
            rules.append(f"{premises}>{symbol}")
        rng.shuffle(rules)
        pools = (list(others), list(derived))  # the last, so the deepest, is asked first
        asked = ""
        for _ in range(QUERIES[level]):
            follows = rng.random() < 0.5
            asked += (pools[follows] or pools[not follows]).pop()
        answer = "".join("1" if symbol in derived else "0" for symbol in asked)
        prompt = f"implies {facts}: {' '.join(rules)}; {asked}"
        return prompt, answer, {"facts": facts, "rules": rules, "asked": asked}

    def solution(self, problem: Problem) -> str:
        """`a>b b=1 d=0`: the rules of forward chaining as they add a symbol, then each query with its bit."""
        verdicts = [f"{symbol}={bit}" for symbol, bit in zip(problem.meta["asked"], problem.answer)]
        return " ".join(fired(problem.meta["facts"], problem.meta["rules"]) + verdicts)

    def check_steps(self, problem: Problem, trace: str) -> list[float]:
        """A rule is right when its premises are known by then and its conclusion is not; `symbol=bit` when it is true
        and the next query. The order of the rules is free."""
        known, rules = set(problem.meta["facts"]), set(problem.meta["rules"])
        verdicts = [f"{symbol}={bit}" for symbol, bit in zip(problem.meta["asked"], problem.answer)]
        scores = []
        for step in trace.split():
            verdict = step in verdicts[:1]
            adds = step in rules and known.issuperset(step[:-2]) and step[-1] not in known
            if adds:
                known.add(step[-1])
            if verdict:
                verdicts.pop(0)
            scores.append(float(verdict or adds))
        return scores

    def grade(self, problem: Problem, answer: str) -> float:
        """Share of bits right."""
        return position_credit(answer, problem.answer)
