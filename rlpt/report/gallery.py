"""One HTML page of all tasks: what each asks, how it is solved, how hard and how fast it is. It loads nothing."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from html import escape
from itertools import groupby
from pathlib import Path
from statistics import harmonic_mean

from rlpt.report.gallery_style import SCRIPT, stylesheet
from rlpt.report.style import COLOURS
from rlpt.tasks.base import Task, train_seed
from rlpt.tasks.catalogue import Entry, describe, level_tables, options, summarize
from rlpt.tasks.environments.base import Environment
from rlpt.tasks.games.base import Game
from rlpt.tasks.profile import LevelProfile, throughput
from rlpt.types import Problem

Family = tuple[Entry, Sequence[LevelProfile]]  # no levels where it can't be used
EXAMPLES = 4  # problems shown of a family, spread over its levels
LONGEST = 4000  # characters of any one text
_EXAMPLE_SEED = train_seed(0, 1)
_CHART = (300, 92)  # drawing area, pixels
_NOTE = (
    "<p class=note>The charts show by level how often answers are right: of a <b>random</b> policy, for which all "
    "legal characters and the end are equally likely, and of a <b>reference</b> solver that slips once in 100 units "
    "of work. Problems/s are made and verified on one core, each level equally often.</p>"
)
_TAB_NAMES = ("easiest", "easy", "hard", "hardest")


def write_gallery(families: Sequence[Family], path: Path) -> Path:
    """Writes the page in one piece and returns its path."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.tmp")
    temporary.write_text(gallery_page(families), encoding="utf-8", errors="backslashreplace")
    temporary.replace(path)
    return path


def gallery_page(families: Sequence[Family]) -> str:
    """The whole page. Families of one field stand together, in the order given."""
    usable = [family for family in families if family[0].is_usable]
    others = [entry for entry, _ in families if not entry.is_usable]
    fields = [(field, list(group)) for field, group in groupby(usable, key=lambda family: family[0].field)]
    sections = "".join(_section(number, field, group) for number, (field, group) in enumerate(fields))
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1"><title>Tasks of rlpt</title>'
        f"<style>{stylesheet()}</style></head><body>"
        f"{_header(usable)}<div class=page>{_contents(fields, others)}<main>{_NOTE}{sections}{_others(others)}"
        "<p id=none hidden>Nothing matches.</p></main></div>"
        f"<script>{SCRIPT}</script></body></html>\n"
    )


def _header(usable: Sequence[Family]) -> str:
    rates = [throughput(levels) for entry, levels in usable if entry.source == "native" and levels]
    rate = f", <b>{harmonic_mean(rates):,.0f}</b> native problems/s in a uniform mixture" if rates else ""
    kinds = "".join(
        f'<button data-filter="{_text(value)}" aria-pressed=false>{_text(value.replace("_", "-"))}</button>'
        for value in dict.fromkeys([e.kind for e, _ in usable] + [e.source for e, _ in usable])
    )
    tabs = "".join(f"<button data-all={i} aria-pressed=false>{name}</button>" for i, name in enumerate(_TAB_NAMES))
    return (
        f"<header><h1>Tasks</h1><p><b id=shown>{len(usable)}</b> of {len(usable)} families{rate}. "
        "A program writes each problem, solves it and checks every answer.</p>"
        '<div class=tools><input id=search type=search placeholder="search  ( / )" aria-label="search tasks">'
        f'<span class=group role=group aria-label="kind and source">{kinds}</span>'
        f'<span class=group role=group aria-label="level of all examples">{tabs}</span></div></header>'
    )


def _contents(fields: Sequence[tuple[str, Sequence[Family]]], others: Sequence[Entry]) -> str:
    blocks = ""
    for number, (field, group) in enumerate(fields):
        names = [(entry.name, entry.name.removeprefix(f"{field}.")) for entry, _ in group]
        links = "".join(f'<a href="#{_anchor(name)}">{_text(short)}</a>' for name, short in names)
        blocks += (
            f'<div class=field style="--hue:var(--c{number % len(COLOURS)})">'
            f'<a class=title href="#{_anchor("field " + field)}">{_text(_title(field))}</a>{links}</div>'
        )
    if others:
        blocks += f'<div class=field><a class=title href="#not-used">Not used here ({len(others)})</a></div>'
    return f"<nav><details open><summary>Contents</summary>{blocks}</details></nav>"


def _section(number: int, field: str, group: Sequence[Family]) -> str:
    cards = "".join(_card(entry, levels) for entry, levels in group)
    return (
        f'<section id="{_anchor("field " + field)}" style="--hue:var(--c{number % len(COLOURS)})">'
        f"<h2>{_text(_title(field))}</h2><div class=cards>{cards}</div></section>"
    )


def _card(entry: Entry, levels: Sequence[LevelProfile]) -> str:
    task = entry.create()
    summary, description = summarize(type(task)), describe(type(task))
    forms = "one right answer" if task.unique_answer else "several right answers"
    badges = "".join(f"<span class=badge>{_text(text)}</span>" for text in (entry.kind, entry.source, forms))
    shown = sorted({round(task.max_level * index / (EXAMPLES - 1)) for index in range(EXAMPLES)})
    tabs = "".join(f"<button data-tab={i} aria-pressed=false>level {level}</button>" for i, level in enumerate(shown))
    examples = "".join(f"<div class=example>{_example(task, level)}</div>" for level in shown)
    search = " ".join((entry.name, entry.field, entry.kind, entry.source, summary, description)).lower()
    rate = f"<span class=rate><b>{throughput(levels):,.0f}</b> problems/s</span>" if levels else ""
    return (
        f'<article id="{_anchor(entry.name)}" data-kind="{_text(entry.kind)}" data-source="{_text(entry.source)}"'
        f' data-search="{_text(search)}"><h3><a href="#{_anchor(entry.name)}">{_text(entry.name)}</a>{rate}</h3>'
        f"<p class=badges>{badges}</p>{_paragraphs(summary, 'lead')}{_paragraphs(description)}"
        f"{_tables(task)}{_chart(levels)}"
        f"<div class=tabs role=group>{tabs}</div>{examples}</article>"
    )


def _example(task: Task, level: int) -> str:
    problem = task.sample(_EXAMPLE_SEED, level)
    parts = [f"<h4>Level {level}</h4>"]
    if isinstance(task, Environment):
        parts.append(_episode(task, problem))
    else:
        parts.append(_labelled("problem", f"<pre>{_text(problem.prompt)}</pre>"))
        if isinstance(task, Game):
            parts.append(_labelled("legal moves", _moves(task, problem)))
        if (trace := task.solution(problem)) != problem.answer:
            steps = "".join(f"<li>{_text(step)}</li>" for step in trace[:LONGEST].split())
            parts.append(_labelled("worked solution", f"<ol class=steps>{steps}</ol>"))
        parts.append(_labelled("answer", f"<pre class=answer>{_text(problem.answer)}</pre>"))
    document = task.document(problem, task.solution(problem))
    parts.append(f"<details><summary>as the corpus holds it</summary><pre>{_text(document)}</pre></details>")
    return "".join(parts)


def _moves(game: Game, problem: Problem) -> str:
    """Each legal move with its exact value, the best ones strong."""
    state = game.start(problem)
    values: Mapping[str, float] = game.values(state)
    best = max(values.values())
    moves = "".join(
        f"<li{' class=best' if values[move] == best else ''}>{_text(move)} <i>{values[move]:+.2f}</i></li>"
        for move in game.legal_moves(state)
    )
    return f"<ul class=steps>{moves}</ul>"


def _episode(environment: Environment, problem: Problem) -> str:
    """The oracle's episode: what is seen, the turn, what is seen then."""
    lines = [f"<li class=seen>{_text(environment.begin(problem).text)}</li>"]
    for text, after in environment.play(problem):
        lines.append(f"<li class=turn>{_text(text)}</li>")
        seen = f"{_text(after.text)} " if after.text else ""
        over = f"<i>score {after.score:.2f}{', over' if after.done else ''}</i>"
        lines.append(f"<li class=seen>{seen}{over}</li>")
    return _labelled("the oracle's episode", f"<ul class=episode>{''.join(lines)}</ul>")


def _chart(levels: Sequence[LevelProfile]) -> str:
    """Random and reference success by level, as two lines in one small picture."""
    if not levels:
        return ""
    width, height = _CHART
    left, top, step = 34, 14, width / max(len(levels) - 1, 1)

    def line(name: str, value: Callable[[LevelProfile], float]) -> str:
        points = [(left + i * step, top + height * (1 - value(level))) for i, level in enumerate(levels)]
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
        dots = "".join(
            f"<circle cx={x:.1f} cy={y:.1f} r=2.6><title>level {one.level}, {name}: {value(one):.1%}</title></circle>"
            for (x, y), one in zip(points, levels)
        )
        at = max(min(points[-1][1] + 4, top + height - (0 if name == "random" else 12)), top)
        label = f"<text x={left + width + 8} y={at:.1f}>{name}</text>"
        return f"<g class={name}><polyline points='{path}'/>{dots}{label}</g>"

    rules = "".join(
        f"<line x1={left} x2={left + width} y1={top + height * (1 - share):.1f} y2={top + height * (1 - share):.1f} />"
        f"<text x={left - 6} y={top + height * (1 - share) + 4:.1f} text-anchor=end>{share:.0%}</text>"
        for share in (0, 0.5, 1)
    )
    names = "".join(
        f"<text x={left + i * step:.1f} y={top + height + 17} text-anchor=middle>{one.level}</text>"
        for i, one in enumerate(levels)
    )
    lines = line("reference", lambda one: one.reference_success) + line("random", lambda one: one.random_success)
    box = f"0 0 {left + width + 72} {top + height + 34}"
    caption = f"<text x={left + width / 2} y={top + height + 31} text-anchor=middle>level</text>"
    return f'<svg viewBox="{box}" role=img aria-label="success by level">{rules}{names}{caption}{lines}</svg>'


def _tables(task: Task) -> str:
    """The level tables that the description names, and the options."""
    rows = "".join(
        f"<tr><th>{_text(name)}</th>{''.join(f'<td>{_text(value)}</td>' for value in values)}</tr>"
        for name, values in level_tables(type(task)).items()
    )
    numbers = "".join(f"<td>{level}</td>" for level in range(task.max_level + 1))
    tables = f"<div class=scroll><table><tr><th>level</th>{numbers}</tr>{rows}</table></div>" if rows else ""
    items = "".join(
        f"<li><code>{_text(one['name'])}</code>: {_text(one['type'])}, default {_text(str(one['default']))}</li>"
        for one in options(type(task))
    )
    choices = f"<p>Options</p><ul>{items}</ul>" if items else ""
    both = " and ".join(name for name, there in (("level tables", tables), ("options", choices)) if there)
    return f"<details><summary>{both}</summary>{tables}{choices}</details>" if both else ""


def _others(entries: Iterable[Entry]) -> str:
    rows = "".join(
        f"<tr><th>{_text(e.name)}</th><td>{_text(e.source)}</td><td>{_text(e.unusable or e.unavailable)}</td></tr>"
        for e in entries
    )
    if not rows:
        return ""
    table = f"<div class=scroll><table class=why>{rows}</table></div>"
    return f'<section id="not-used"><h2>Not used here</h2>{table}</section>'


def _labelled(label: str, body: str) -> str:
    return f"<div class=part><span class=label>{label}</span>{body}</div>"


def _paragraphs(text: str, style: str = "about") -> str:
    """Escaped; blank lines part paragraphs, and what stands in backticks is code."""
    marked = re.sub(r"`([^`]+)`", r"<code>\1</code>", _text(text))
    return "".join(f"<p class={style}>{paragraph}</p>" for paragraph in re.split(r"\n\s*\n", marked) if paragraph)


def _text(text: str) -> str:
    """Escaped, cut where it is long, nothing unprintable but line breaks."""
    cut = text if len(text) <= LONGEST else f"{text[:LONGEST]}... ({len(text):,} characters)"
    return escape("".join(c if c.isprintable() or c == "\n" else ascii(c)[1:-1] for c in cut))


def _title(field: str) -> str:
    return field.replace("_", " ").capitalize()


def _anchor(text: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")
