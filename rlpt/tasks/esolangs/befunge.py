"""An interpreter of Befunge-93 that touches nothing outside itself and always ends.

A program is written in one line, its rows divided by `;` (which is no instruction): `1&v;00g>...`. The grid is a torus
as wide as the longest row and as high as there are rows, at most 80 x 25; characters that are no instruction do
nothing. Numbers are 32-bit and wrap. Division and remainder round towards 0, and are 0 by 0. An empty stack gives 0, as
do a `g` off the grid and a `&` at the end of the input; `~` gives -1 there; a `p` off the grid does nothing. `?` turns
by a sequence that depends on the run's key alone.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache

INSTRUCTIONS = '0123456789+-*/%!`><^v?_|":\\$.,#gp&~@ '
ROW_END = ";"
WIDTH, HEIGHT = 80, 25
RIGHT, DOWN, LEFT, UP = range(4)
_DIRECTIONS = {ord(">"): RIGHT, ord("v"): DOWN, ord("<"): LEFT, ord("^"): UP}
_INTEGER = re.compile(r"-?[0-9]{1,10}")
_HALF = 1 << 31
# What a cell does, by its number: DIGIT and the other groups, looked up once a step.
DIGIT, CALCULATE, TURN, DUPLICATE, BRANCH, SKIP, SWAP, GET, PUT, PRINT, STRING, NOT, DROP, READ, RANDOM, STOP, REST = (
    range(17)
)
_GROUPS = {
    **dict.fromkeys("0123456789", DIGIT),
    **dict.fromkeys("+-*/%`", CALCULATE),
    **dict.fromkeys("><^v", TURN),
    **dict.fromkeys("_|", BRANCH),
    **dict.fromkeys(".,", PRINT),
    **dict.fromkeys("&~", READ),
    **{":": DUPLICATE, "#": SKIP, "\\": SWAP, "g": GET, "p": PUT, '"': STRING, "!": NOT, "$": DROP, "?": RANDOM},
    "@": STOP,
}
GROUPS = tuple(_GROUPS.get(chr(code), REST) for code in range(128))


@dataclass(frozen=True)
class Limits:
    """What a run may use."""

    steps: int = 500  # cells executed, spaces and characters of strings included
    stack: int = 64  # numbers
    output: int = 64  # characters


LIMITS = Limits()


@dataclass(frozen=True, slots=True)
class Run:
    """What a run did."""

    output: str  # characters 0..255
    steps: int
    ended: str  # end | steps | stack (too high) | output (too much) | syntax (not a program)
    stack: tuple[int, ...]  # when it ended, bottom first


def wrapped(number: int) -> int:
    """The 32-bit number that is congruent to `number`."""
    return (number + _HALF) % (2 * _HALF) - _HALF


def calculate(operator: int, left: int, right: int) -> int:
    """`left operator right` for the code of a binary instruction."""
    if operator == 43:  # +
        value = left + right
    elif operator == 45:  # -
        value = left - right
    elif operator == 42:  # *
        value = left * right
    elif operator == 96:  # `
        value = int(left > right)
    elif right == 0:
        value = 0
    else:
        quotient = abs(left) // abs(right) * (1 if (left < 0) == (right < 0) else -1)
        value = quotient if operator == 47 else left - quotient * right  # / and %
    return value if -_HALF <= value < _HALF else wrapped(value)


@lru_cache(maxsize=256)
def neighbours(width: int, height: int) -> tuple[tuple[int, ...], ...]:
    """For each direction the cell after each cell of a torus, in reading order."""
    cells = [(y, x) for y in range(height) for x in range(width)]
    return tuple(
        tuple((y + down) % height * width + (x + right) % width for y, x in cells)
        for down, right in ((0, 1), (1, 0), (0, -1), (-1, 0))
    )


def parse(text: str) -> tuple[list[int], int, int] | None:
    """(cells in reading order, width, height); None where rows are too long, too many, or not printable ASCII."""
    rows = text.split(ROW_END)
    width, height = max(map(len, rows)), len(rows)
    if not 1 <= width <= WIDTH or height > HEIGHT or not (text.isascii() and text.isprintable()):
        return None
    return list("".join([row.ljust(width) for row in rows]).encode()), width, height


def run(
    text: str, given: str = "", limits: Limits = LIMITS, key: int = 0, log: list[tuple[int, int, int]] | None = None
) -> Run:
    """Runs a program from its upper left cell to the right; `&` and `~` read `given`.

    A step appends (its cell in reading order, number on top, characters printed so far) to `log` where that is given.
    """
    parsed = parse(text)
    if parsed is None:
        return Run("", 0, "syntax", ())
    cells, width, height = parsed
    tables = neighbours(width, height)
    ways, at, read = tables[RIGHT], 0, 0
    stack: list[int] = []
    output, ended, in_string = "", "steps", False
    most_steps, most_stack = limits.steps, limits.stack
    changes = 0  # of the grid and of the key
    mark_at, mark_step, mark = -1, 8, None  # where, when and how a run was; one that comes back to that never ends
    for steps in range(1, most_steps + 1):
        if at == mark_at and mark == (ways, in_string, read, changes, output, stack):
            steps = most_steps
            break
        if steps == mark_step:
            mark_at, mark_step, mark = at, 2 * steps, (ways, in_string, read, changes, output, stack.copy())
        here, cell = at, cells[at]
        group = GROUPS[cell] if 0 <= cell < 128 else REST
        if in_string and group != STRING:
            stack.append(cell)
        elif group == DIGIT:
            stack.append(cell - 48)
        elif group == CALCULATE:
            right = stack.pop() if stack else 0
            left = stack.pop() if stack else 0
            stack.append(calculate(cell, left, right))
        elif group == TURN:
            ways = tables[_DIRECTIONS[cell]]
        elif group == DUPLICATE:
            if not stack:
                stack.append(0)
            stack.append(stack[-1])
        elif group == BRANCH:
            back = bool(stack.pop()) if stack else False
            ways = tables[(DOWN if cell == 124 else RIGHT) + 2 * back]
        elif group == SKIP:
            at = ways[at]
        elif group == STRING:
            in_string = not in_string
        elif group in (PUT, GET):
            changes += group == PUT
            _reach(group, stack, cells, width, height)
        elif group == PRINT:
            value = stack.pop() if stack else 0
            printed = f"{value} " if cell == 46 else chr(value & 255)
            if len(output) + len(printed) > limits.output:
                ended = "output"
                break
            output += printed
        elif group == STOP:
            ended = "end"
            if log is not None:
                log.append((here, stack[-1] if stack else 0, len(output)))
            break
        elif group == RANDOM:
            key = (key * 6364136223846793005 + 1442695040888963407) % (1 << 64)
            changes += 1
            ways = tables[key >> 62]
        elif group != REST:
            read = _rearrange(group, cell, stack, given, read)
        if log is not None:
            log.append((here, stack[-1] if stack else 0, len(output)))
        at = ways[at]
        if len(stack) > most_stack:
            ended = "stack"
            break
    return Run(output, steps, ended, tuple(stack))


def _reach(group: int, stack: list[int], cells: list[int], width: int, height: int) -> None:
    """`g` and `p`."""
    y = stack.pop() if stack else 0
    x = stack.pop() if stack else 0
    inside = 0 <= x < width and 0 <= y < height
    if group == GET:
        stack.append(cells[y * width + x] if inside else 0)
    else:
        value = stack.pop() if stack else 0
        if inside:
            cells[y * width + x] = value


def _rearrange(group: int, cell: int, stack: list[int], given: str, read: int) -> int:
    """`\\`, `!`, `$`, `&` and `~` on the stack; returns how much of `given` has been read."""
    if group == READ:
        if cell == 126:
            stack.append(ord(given[read]) & 255 if read < len(given) else -1)
            return read + 1
        found = _INTEGER.search(given, read)
        stack.append(wrapped(int(found[0])) if found else 0)
        return found.end() if found else len(given)
    top = stack.pop() if stack else 0
    if group == SWAP:
        below = stack.pop() if stack else 0
        stack += [top, below]
    elif group == NOT:
        stack.append(int(not top))
    return read
