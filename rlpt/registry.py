"""Names in YAML -> classes. A component's options are its own dataclass fields, validated strictly.

`@register("task", "reverse")` names a class; `create("task", {"name": "reverse", "alphabet": 8}, where="tasks.0")`
builds it. Registration happens when the component's package is imported; each package's `__init__` lists its
files by explicit import lines.
"""

from __future__ import annotations

import dataclasses
import difflib
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from pydantic import TypeAdapter, ValidationError

from rlpt.errors import ConfigError

T = TypeVar("T")
_REGISTERED: dict[str, dict[str, type]] = {}


def register(kind: str, name: str) -> Callable[[type[T]], type[T]]:
    """Class decorator: `cls` (a dataclass) becomes `name` among the components of `kind`. A duplicate raises."""

    def decorate(cls: type[T]) -> type[T]:
        known = _REGISTERED.setdefault(kind, {})
        if name in known and known[name].__qualname__ != cls.__qualname__:
            raise ValueError(f"{kind} '{name}' is registered twice: {known[name]} and {cls}")
        known[name] = cls
        return cls

    return decorate


def names(kind: str) -> list[str]:
    """Registered names of `kind`, sorted."""
    return sorted(_REGISTERED.get(kind, {}))


def suggest(word: str, known: list[str]) -> str:
    """'; did you mean X?' when something near exists, else the list of what is known."""
    near = difflib.get_close_matches(word, known, n=1, cutoff=0.5)
    return f"; did you mean '{near[0]}'?" if near else f"; known: {', '.join(known) or 'none'}"


def lookup(kind: str, name: str, where: str = "") -> type:
    """The class registered as `name`. Raises ConfigError with the nearest name."""
    known = _REGISTERED.get(kind, {})
    if name not in known:
        prefix = f"{where}: " if where else ""
        raise ConfigError(f"{prefix}unknown {kind} '{name}'{suggest(name, sorted(known))}")
    return known[name]


def create(kind: str, spec: Mapping[str, Any], where: str = "") -> Any:
    """Builds a component from `{"name": ..., **options}`. Raises ConfigError naming the dotted key at fault."""
    where = where or kind
    options = dict(spec)
    if "name" not in options:
        raise ConfigError(f"{where}.name: missing; known {kind}s: {', '.join(names(kind))}")
    cls = lookup(kind, options.pop("name"), f"{where}.name")
    return build(cls, options, where)


def build(cls: type[T], options: Mapping[str, Any], where: str) -> T:
    """Builds the dataclass `cls` from a mapping, refusing unknown keys and wrong types."""
    fields = [field.name for field in dataclasses.fields(cls) if field.init]  # type: ignore[arg-type]
    for key in options:
        if key not in fields:
            raise ConfigError(f"{where}.{key}: unknown key{suggest(key, fields)}")
    try:
        return TypeAdapter(cls).validate_python(dict(options))
    except ValidationError as error:
        raise ConfigError(describe(error, where)) from None


def describe(error: ValidationError, where: str = "") -> str:
    """One line a pydantic error: dotted key, what is wrong, what was given."""
    lines = []
    for item in error.errors():
        key = ".".join([where, *map(str, item["loc"])] if where else map(str, item["loc"]))
        message = item["msg"].removeprefix("Value error, ")
        given = "" if item["type"] in ("missing", "value_error") else f" (given: {item['input']!r})"
        lines.append(f"{key}: {message}{given}" if key else message)
    return "\n".join(lines)
