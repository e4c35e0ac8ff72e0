"""Texts in Befunge-93. Write a program that prints one: `befunge_print abc: "c` -> `ba",,,@`; tell what one prints:
`befunge_print_output "cab"\\,,@` -> `ab`."""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import dataclass
from string import ascii_lowercase
from typing import Any, ClassVar

from rlpt.registry import register
from rlpt.tasks.esolangs import befunge
from rlpt.tasks.esolangs.output_prediction import OutputPrediction
from rlpt.tasks.esolangs.program_writing import BefungeWriting, Draft

LENGTHS = (1, 2, 3, 3, 4, 5, 8, 9, 11, 13)  # letters to print, by level
MISSING = (1, 3, 5, 8, 11, 13, 12, 13, 15, 17)  # pieces to write, by level; from level 4 on all
LOOP = ">:#,_"  # prints until a 0, which an empty stack gives
LOOP_LEVEL = 6  # from here on our program has it

OUTPUTS = (1, 2, 3, 4, 5, 6, 7, 8, 10, 12)  # letters printed, by level
LETTERS = (3, 4, 6, 8, 26, 26, 26, 26, 26, 26)  # by level
SHUFFLES = (0, 0, 1, 2, 3, 4, 5, 6, 7, 9)  # copies, swaps and drops, by level
LOOP_SHARE = 0.5  # of the programs from `LOOP_LEVEL` on that print the rest by the loop


@register("task", "befunge_print")
@dataclass(frozen=True)
class BefungePrint(BefungeWriting):
    """Level l: print `LENGTHS[l]` letters; the whole program from level 4 on, 3 letters at most before.

    At level 0 the stop is missing; three instructions and the end mark are guessed: 1 in 16.
    """

    name: ClassVar[str] = "befunge_print"
    alphabet: ClassVar[str] = ascii_lowercase + '",@:>#_'
    thought_alphabet: ClassVar[str] = ascii_lowercase + '",@:>#_-0123456789= '
    lengths: ClassVar[tuple[int, ...]] = (1, 3, 5, 8, 12, 13, 20, 22, 26, 30)
    legal: ClassVar[tuple[str, ...]] = ("@,:", "@,:", *(ascii_lowercase + '",@',) * 2, *(alphabet,) * 6)

    def draft(self, rng: random.Random, level: int) -> Draft:
        """The letters from the last to the first, then a print for each."""
        text = "".join(rng.choice(ascii_lowercase) for _ in range(LENGTHS[level]))
        prints = (LOOP,) if level >= LOOP_LEVEL else (",",) * len(text)
        return Draft(text, ('"', *text[::-1], '"', *prints, "@"), MISSING[level], (("", text),))


@register("task", "befunge_print_output")
@dataclass(frozen=True)
class BefungePrintOutput(OutputPrediction):
    """Level l: `OUTPUTS[l]` of the first `LETTERS[l]` letters, with `SHUFFLES[l]` copies, swaps and drops between.

    At level 0 one of three letters and the end mark are guessed: 1 in 16.
    """

    name: ClassVar[str] = "befunge_print_output"
    alphabet: ClassVar[str] = ascii_lowercase
    thought_alphabet: ClassVar[str] = ascii_lowercase + ',.:\\$"= '
    lengths: ClassVar[tuple[int, ...]] = OUTPUTS
    legal: ClassVar[tuple[str, ...]] = tuple(ascii_lowercase[:count] for count in LETTERS)

    def generate(self, rng: random.Random, level: int) -> tuple[str, str, Mapping[str, Any]]:
        """One letter more than prints, which come in a random order with shuffles that leave enough letters."""
        text = "".join(rng.choice(self.legal[level]) for _ in range(OUTPUTS[level] + 1))
        places = sorted(rng.randrange(OUTPUTS[level]) for _ in range(SHUFFLES[level]))  # prints before each shuffle
        body, done, size = "", 0, len(text)
        for place in places:
            body += "," * (place - done)
            size -= place - done
            done = place
            shuffle = rng.choice(":\\$")
            if (shuffle == "$" and size == OUTPUTS[level] - done) or (shuffle == "\\" and size == 1):
                shuffle = ":"
            size += {":": 1, "\\": 0, "$": -1}[shuffle]
            body += shuffle
        left = OUTPUTS[level] - done
        if level >= LOOP_LEVEL and rng.random() < LOOP_SHARE:
            body += "$" * (size - left)
            tail = LOOP
        else:
            tail = "," * left
        program = f'"{text}"{body}{tail}@'
        return f"{self.name} {program}", befunge.run(program).output, {"text": text, "body": body + "," * left}

    def steps(self, meta: Mapping[str, Any]) -> list[str]:
        """`"cab"=cab \\=cba ,a=cb ,b=c`: the stack, bottom first, after each instruction, the loop unrolled."""
        stack = meta["text"]
        steps = [f'"{stack}"={stack}']
        for instruction in meta["body"]:
            printed = ""
            if instruction == ":":
                stack += stack[-1]
            elif instruction == "\\":
                stack = stack[:-2] + stack[-1] + stack[-2]
            else:
                printed = stack[-1] if instruction == "," else ""
                stack = stack[:-1]
            steps.append(f"{instruction}{printed}={stack}")
        return steps
