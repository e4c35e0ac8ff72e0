"""`rlpt tasks show NAME`: one problem, how it is solved, and what several answers to it are worth."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from rlpt.config_files import apply_overrides
from rlpt.tasks.base import Task, keyed_random
from rlpt.tasks.catalogue import describe, find, summarize
from rlpt.tasks.environments.base import Environment
from rlpt.tasks.games.base import Game
from rlpt.types import Problem

JUNK = ("<|answer|>", "__import__('os')", "(" * 1000)
LONGEST_SHOWN = 60  # characters of an answer
LONGEST_META = 400  # characters


def show_task(name: str, level: int, seed: int, overrides: Sequence[str]) -> None:
    """Prints all about problem (seed, level). Raises ConfigError for a name, option or level that is not there."""
    task = find(name).create(apply_overrides({}, overrides))
    problem = task.sample(seed, level)
    console = Console(highlight=False)
    console.print(Text(f"{task.name}, {task.kind}, {task.source}: level {level}, seed {seed}", style="bold"))
    console.print(Text("\n\n".join(filter(None, (summarize(type(task)), describe(type(task))))), style="dim"))
    _print_problem(console, task, problem)
    if isinstance(task, Environment):
        _print_episode(console, task, problem)
    else:
        if isinstance(task, Game):
            _print_moves(console, task, problem)
        _print_solution(console, task, problem)
    _heading(console, "as the corpus holds it")
    console.print(Text(task.document(problem, task.solution(problem))), soft_wrap=True)
    _print_answers(console, task, problem)


def answers(task: Task, problem: Problem) -> Iterator[tuple[str, str]]:
    """(what it is, answer): the oracle's, none, a random policy's, the oracle's changed a little, junk."""
    oracle = problem.answer
    yield "oracle", oracle
    yield "empty", ""
    rng = keyed_random(task.name, problem.seed, problem.level, "shown answers")
    for _ in range(3):
        yield "random policy", task.random_answer(problem, rng)
    at = rng.randrange(len(oracle))
    others = [c for c in task.legal_characters(problem.level) if c != oracle[at]] or list(task.alphabet)
    yield "one changed", oracle[:at] + rng.choice(others) + oracle[at + 1 :]
    yield "last missing", oracle[:-1]
    yield "last twice", oracle + oracle[-1]
    for text in JUNK:
        yield "junk", text


def _print_problem(console: Console, task: Task, problem: Problem) -> None:
    _heading(console, "problem")
    meta = json.dumps(problem.meta, ensure_ascii=True, default=repr)
    legal = task.legal_characters(problem.level)
    rows = [
        ("prompt", problem.prompt),
        ("answer", problem.answer),
        ("may hold", f"up to {task.answer_limit(problem.level)} characters of {legal!r}"),
        ("meta", meta if len(meta) <= LONGEST_META else f"{meta[:LONGEST_META]}... ({len(meta)} characters)"),
    ]
    _print_rows(console, ("", ""), rows)


def _print_solution(console: Console, task: Task, problem: Problem) -> None:
    trace = task.solution(problem)
    _heading(console, "worked solution, step by step, as the verifier marks it")
    marks = task.verify_steps(problem, trace)
    steps = enumerate(zip(trace.split(), marks, strict=True), 1)
    _print_rows(console, ("", "step", "mark"), [(str(number), step, _mark(mark)) for number, (step, mark) in steps])


def _print_moves(console: Console, game: Game, problem: Problem) -> None:
    state = game.start(problem)
    values = game.values(state)
    best = max(values.values())
    _heading(console, f"legal moves of player {game.player(state)}, with what each is worth")
    rows = [(move, f"{values[move]:+.3f}", "best" if values[move] == best else "") for move in game.legal_moves(state)]
    _print_rows(console, ("move", "value", ""), rows)


def _print_episode(console: Console, environment: Environment, problem: Problem) -> None:
    first = environment.begin(problem)
    marks = environment.verify_steps(problem, problem.answer)
    _heading(console, "the oracle's episode")
    rows = [("", "", first.text, "", str(first.turns_left), "")]
    for number, (text, after) in enumerate(environment.play(problem), 1):
        seen = after.text if not after.done else f"{after.text} (over)".strip()
        score, mark = f"{after.score:.2f}", _mark(marks[number - 1])
        rows.append((str(number), text, seen, score, str(after.turns_left), mark))
    _print_rows(console, ("", "turn", "seen then", "score", "turns left", "mark"), rows)


def _print_answers(console: Console, task: Task, problem: Problem) -> None:
    _heading(console, "what answers are worth")
    rows = [(what, _shown(text), f"{task.verify(problem, text):.3f}") for what, text in answers(task, problem)]
    _print_rows(console, ("", "answer", "score"), rows)


def _mark(score: float) -> str:
    return "right" if score == 1 else f"wrong ({score:g})"


def _shown(text: str) -> str:
    """On one line, shortened, nothing unprintable."""
    plain = text if text.isprintable() else ascii(text)
    return plain if len(plain) <= LONGEST_SHOWN else f"{plain[:LONGEST_SHOWN]}... ({len(text):,} characters)"


def _heading(console: Console, text: str) -> None:
    console.print()
    console.print(Text(text, style="bold"))


def _print_rows(console: Console, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_header=any(columns))
    for column in columns:
        table.add_column(column, overflow="fold", justify="right" if column in ("score", "turns left") else "left")
    for row in rows:
        table.add_row(*map(Text, row))
    console.print(table)
