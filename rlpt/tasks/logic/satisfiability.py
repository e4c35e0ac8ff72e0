"""An assignment under which every clause holds a true literal: `sat abc: aB bC Ac` -> `111`, or `000`.

A capital is the negated variable; the answer has a bit for each variable that is listed, in order.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from functools import cache
from itertools import combinations
from typing import Any, ClassVar

from rlpt.registry import register
from rlpt.tasks.base import Task
from rlpt.tasks.search_trace import Option, check_search, show_search
from rlpt.tasks.search_trace import search as marked_search
from rlpt.types import Problem

VARIABLES = (1, 2, 3, 4, 4, 5, 6, 6, 7, 8)  # by level
WIDTH = (1, 2, 2, 2, 3, 3, 3, 3, 3, 3)  # literals in a clause, by level
CLAUSES = (1, 3, 5, 8, 11, 13, 16, 19, 22, 24)  # by level
LETTERS = "abcdefghijkl"  # that name variables


@cache
def variable_sets(variables: int, width: int) -> list[tuple[int, ...]]:
    """All choices of `width` variables."""
    return list(combinations(range(variables), width))


@cache
def literal_tables(variables: int) -> list[tuple[int, int]]:
    """For each variable the sets of assignments under which it is (false, true): bit j stands for the assignment whose
    bits, the first variable's the highest, write j."""
    assignments = range(1 << variables)
    true = [sum(1 << j for j in assignments if j >> (variables - 1 - i) & 1) for i in range(variables)]
    return [((1 << (1 << variables)) - 1 - table, table) for table in true]


def open_literals(clause: str, held: AbstractSet[str]) -> str | None:
    """The literals of a clause that are not yet false; None where one is true."""
    if not held.isdisjoint(clause):
        return None
    return "".join(literal for literal in clause if literal.swapcase() not in held)


def search(variables: str, clauses: Sequence[str]) -> list[str]:
    """The steps of a depth-first search with unit propagation (Davis, Logemann and Loveland, 1962) in satisfiable
    clauses: `?a` tries a literal, the first variable's that is free, true before false; `Abc:c` is forced by a clause;
    `AB:!` finds a clause false; a literal alone turns over the last one tried."""
    trail: list[str] = []  # literals held, in order
    tried: list[int] = []  # where on the trail the tried ones are
    steps: list[str] = []
    while True:
        held = set(trail)
        left = ((clause, open_literals(clause, held)) for clause in clauses)
        clause, literals = next(((c, o) for c, o in left if o is not None and len(o) < 2), ("", None))
        if literals:
            trail.append(literals)
            steps.append(f"{clause}:{literals}")
        elif literals == "":
            at = tried.pop()
            trail[at:] = [trail[at].swapcase()]
            steps += [f"{clause}:!", trail[at]]
        elif len(trail) < len(variables):
            tried.append(len(trail))
            trail.append(next(v for v in variables if v not in held and v.upper() not in held))
            steps.append(f"?{trail[-1]}")
        else:
            return steps


@dataclass(frozen=True)
class Assignments:
    """Sets of literals held, from none to one of each variable (`search_trace.Space`)."""

    revisits: ClassVar[bool] = False  # as each branch negates a literal of the others
    one_group_decides: ClassVar[bool] = True

    variables: str
    clauses: Sequence[str]
    start: frozenset[str] = frozenset()

    def groups(self, state: frozenset[str]) -> list[list[Option[frozenset[str]]]]:
        """`Ab:b` where a clause forces a literal, then `a` and `A` for each variable that is free."""
        left = {clause: open_literals(clause, state) for clause in self.clauses}
        if "" in left.values():
            return []
        forced = [[(f"{clause}:{rest}", rest)] for clause, rest in left.items() if rest and len(rest) == 1]
        free = [[(v, v), (v.upper(), v.upper())] for v in self.variables if not {v, v.upper()} & state]
        return [[Option(text, literal, state | {literal}) for text, literal in group] for group in forced + free]

    def checks(self, state: frozenset[str]) -> dict[str, bool]:
        """`AB!` for each clause that is false, or `aBc=`: all that is held, under which each clause is true."""
        false = {f"{clause}!": False for clause in self.clauses if open_literals(clause, state) == ""}
        return false or {"".join(v if v in state else v.upper() for v in self.variables) + "=": True}


@register("task", "satisfiability")
@dataclass(frozen=True)
class Satisfiability(Task):
    """Level l: `CLAUSES[l]` different clauses of `WIDTH[l]` literals over `VARIABLES[l]` variables.

    Right is any satisfying assignment; the oracle's is the first in order, true before false. Else the credit adds
    0.2 x the share of the variables that have a bit and 0.8 x the share of clauses satisfied beyond the number that a
    random assignment is expected to satisfy. At level 0 the answer is one bit, guessed with the end mark: 1 in 9.
    """

    name: ClassVar[str] = "satisfiability"
    unique_answer: ClassVar[bool] = False
    alphabet: ClassVar[str] = "01"
    thought_alphabet: ClassVar[str] = LETTERS + LETTERS.upper() + ":?! "

    search_trace: bool = False  # worked traces mark what reasoning does in the search

    def __post_init__(self) -> None:
        if self.search_trace:
            show_search(self, LETTERS + LETTERS.upper() + ":=!")

    def answer_limit(self, level: int) -> int:
        """A bit for each variable."""
        return VARIABLES[level]

    def generate(self, rng: random.Random, level: int) -> tuple[str, str, Mapping[str, Any]]:
        """Uniform among the clauses that hold under a hidden assignment."""
        count, width = VARIABLES[level], WIDTH[level]
        variables = "".join(sorted(rng.sample(LETTERS, count)))
        hidden, patterns = rng.getrandbits(count), (1 << width) - 1  # each pattern has a literal that holds
        tables, sets = literal_tables(count), variable_sets(count, width)
        solutions, clauses = (1 << (1 << count)) - 1, []
        for index in rng.sample(range(len(sets) * patterns), CLAUSES[level]):
            chosen, agree = sets[index // patterns], index % patterns + 1
            satisfying, clause = 0, ""
            for i in chosen:
                positive = (hidden >> i ^ ~agree) & 1
                agree >>= 1
                satisfying |= tables[i][positive]
                clause += variables[i] if positive else variables[i].upper()
            solutions &= satisfying
            clauses.append(clause)
        answer = f"{solutions.bit_length() - 1:0{count}b}"
        return f"sat {variables}: {' '.join(clauses)}", answer, {"variables": variables, "clauses": clauses}

    def solution(self, problem: Problem) -> str:
        """`?a bA:b Bc:c`: see `search`. With `search_trace`, `a|A Ab:b ?AB! <A aC:C bc:b ?AbC=`: see the module of that
        name; `|A` says that a literal may be turned over, and `<A` that it is."""
        if self.search_trace:
            return " ".join(marked_search(self._space(problem)).steps)
        return " ".join(search(problem.meta["variables"], problem.meta["clauses"]))

    def check_steps(self, problem: Problem, trace: str) -> list[float]:
        """Any order of propagation and any literal tried is right, as long as clauses force what they are said to, and
        after a clause is found false the last literal tried is turned over. With `search_trace` a false clause must be
        found before the search goes on."""
        if self.search_trace:
            return check_search(self._space(problem), trace)
        literals = problem.meta["variables"] + problem.meta["variables"].upper()
        clauses = set(problem.meta["clauses"])
        trail: list[str] = []
        tried: list[int] = []
        contradiction, scores = False, []
        for step in trace.split():
            clause, _, literal = step.rpartition(":")
            if contradiction:
                right = bool(tried) and step == trail[tried[-1]].swapcase()
                if right:
                    trail[tried.pop() :] = [step]
                contradiction = not right
            elif clause in clauses:
                right = open_literals(clause, set(trail)) == (literal if literal != "!" else "") and len(literal) == 1
                contradiction = right and literal == "!"
                trail += [literal] if right and not contradiction else []
            else:
                right = step in {f"?{free}" for free in literals if not {free, free.swapcase()} & set(trail)}
                if right:
                    tried.append(len(trail))
                    trail.append(step[1:])
            scores.append(float(right))
        return scores

    def grade(self, problem: Problem, answer: str) -> float:
        """See the class."""
        variables, clauses = problem.meta["variables"], problem.meta["clauses"]
        held = {variable if bit == "1" else variable.upper() for variable, bit in zip(variables, answer)}
        satisfied = sum(not held.isdisjoint(clause) for clause in clauses)
        if satisfied == len(clauses) and len(answer) == len(variables):
            return 1.0
        chance = sum(1 - 0.5 ** len(clause) for clause in clauses)
        beyond = max(0.0, (satisfied - chance) / (len(clauses) - chance))
        return 0.2 * len(answer) / len(variables) + 0.8 * beyond

    def _space(self, problem: Problem) -> Assignments:
        return Assignments(problem.meta["variables"], problem.meta["clauses"])
