"""Everything that is registered as a task, by field: what each is about, and why some of it can't be used here."""

from __future__ import annotations

import importlib.util
import inspect
import re
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

from pydantic import TypeAdapter

import rlpt.tasks  # noqa: F401  (registers)
from rlpt import registry
from rlpt.errors import ConfigError
from rlpt.registry import suggest
from rlpt.tasks.base import Task
from rlpt.tasks.environments.base import Environment
from rlpt.tasks.games.base import Game
from rlpt.tasks.reasoning_gym.catalogue import UNUSABLE

KINDS = ("task", "game", "environment")
PACKAGES = {"open_spiel": ("pyspiel", "games"), "reasoning_gym": ("reasoning_gym", "gym")}  # source: module, extra
SOURCES = ("native", *PACKAGES)
_CONTRACTS = (Task, Game, Environment)


@dataclass(frozen=True)
class Entry:
    """One registered task, or one that is known by name and can't be used: then one of the reasons is not empty."""

    name: str
    kind: str
    source: str
    field: str  # the folder that it lies in
    task_class: type[Task] | None = None
    unusable: str = ""  # why its answers can't be scored safely
    unavailable: str = ""  # what has to be installed first

    @property
    def is_usable(self) -> bool:
        """Whether problems can be drawn here and now."""
        return not self.unusable and not self.unavailable

    def create(self, options: Mapping[str, Any] | None = None) -> Task:
        """The task with these options. Raises ConfigError where it can't be used, or for a wrong option."""
        if self.task_class is None or not self.is_usable:
            raise ConfigError(f"task {self.name}: {self.unusable or self.unavailable}")
        return registry.build(self.task_class, options or {}, self.name)


def catalogue() -> list[Entry]:
    """All there is, by field, source, kind and name; fields that hold something native come first."""
    entries = [_entry(name, registry.lookup("task", name)) for name in registry.names("task")]
    gym = "reasoning_gym"
    entries += [Entry(f"{gym}.{name}", "task", gym, gym, unusable=reason) for name, reason in UNUSABLE.items()]
    native = {entry.field for entry in entries if entry.source == "native"}
    return sorted(
        entries, key=lambda e: (e.field not in native, e.field, SOURCES.index(e.source), KINDS.index(e.kind), e.name)
    )


def select(pattern: str = "", kind: str = "", source: str = "") -> list[Entry]:
    """Entries of a kind and source whose name or `field/name` matches a glob. A plain word that is no name matches
    where `field/name` holds it.

    Empty means any. Raises ConfigError with the near name where nothing matches.
    """
    for option, value, known in (("--kind", kind, KINDS), ("--source", source, SOURCES)):
        if value and value not in known:
            raise ConfigError(f"{option}: unknown {option[2:]} '{value}'{suggest(value, list(known))}")
    everything = catalogue()
    matching = [e for e in everything if e.name == pattern] or [e for e in everything if _matches(e, pattern)]
    chosen = [e for e in matching if kind in ("", e.kind) and source in ("", e.source)]
    if not chosen:
        words = sorted({word for e in everything for word in (e.name, e.field)})
        raise ConfigError(f"no {kind or 'task'} matches '{pattern}'{suggest(pattern, words)}")
    return chosen


def find(name: str) -> Entry:
    """The entry of exactly this name. Raises ConfigError with the near one."""
    entries = {entry.name: entry for entry in catalogue()}
    if name not in entries:
        raise ConfigError(f"unknown task '{name}'{suggest(name, list(entries))}")
    return entries[name]


def summarize(task_class: type[Task]) -> str:
    """What a native family asks, with an example: how its file begins. Empty for the others, which share a file."""
    text = sys.modules[task_class.__module__].__doc__ if task_class.source == "native" else None
    return _unwrapped(text or "").partition("\n\n")[0]


def describe(task_class: type[Task]) -> str:
    """Its docstring, and those of what it shares with its neighbours, below the contracts; a paragraph a line."""
    own = [cls for cls in task_class.__mro__ if issubclass(cls, Task) and cls not in _CONTRACTS]
    return "\n\n".join(_unwrapped(cls.__doc__) for cls in own if cls.__doc__)


def level_tables(task_class: type[Task]) -> dict[str, list[str]]:
    """The tables that `describe` mentions as `TABLE[l]`, by name: one text a level."""
    tables = {}
    for name in dict.fromkeys(re.findall(r"\b([A-Z][A-Z_]*)\[", describe(task_class))):
        for cls in task_class.__mro__:
            values = getattr(sys.modules[cls.__module__], name, None)
            if isinstance(values, tuple | list):
                tables[name] = [_plain(value) for value in values]
                break
    return tables


def options(task_class: type[Task]) -> list[dict[str, Any]]:
    """`{name, type, default}` of the options that a recipe may set."""
    properties = TypeAdapter(task_class).json_schema().get("properties", {})
    return [
        {"name": name, "type": _type_name(schema), "default": schema.get("default")}
        for name, schema in properties.items()
    ]


def _entry(name: str, task_class: type[Task]) -> Entry:
    field = task_class.__module__.removeprefix("rlpt.tasks.").partition(".")[0]
    missing = ""
    if task_class.source in PACKAGES:
        module, extra = PACKAGES[task_class.source]
        if importlib.util.find_spec(module) is None:
            missing = f"install rlpt[{extra}]"
    return Entry(name, task_class.kind, task_class.source, field, task_class, unavailable=missing)


def _matches(entry: Entry, pattern: str) -> bool:
    if any(mark in pattern for mark in "*?["):
        return fnmatchcase(entry.name, pattern) or fnmatchcase(f"{entry.field}/{entry.name}", pattern)
    return pattern in f"{entry.field}/{entry.name}"


def _unwrapped(docstring: str) -> str:
    """Without the line breaks inside paragraphs; indented lines stay as they are."""
    return re.sub(r"(?<=\S)\n(?=\S)", " ", inspect.cleandoc(docstring))


def _plain(value: Any) -> str:
    return "-".join(map(str, value)) if isinstance(value, tuple | list) else str(value) or "none"


def _type_name(schema: Mapping[str, Any]) -> str:
    if "enum" in schema:
        return " | ".join(map(str, schema["enum"]))
    if "anyOf" in schema:
        return " | ".join(_type_name(one) for one in schema["anyOf"])
    if "items" in schema:
        return f"list of {_type_name(schema['items'])}"
    return str(schema.get("type", "any"))
