"""Reference of the configuration's keys, read from the fields themselves: type, default, description."""

from __future__ import annotations

import types
import typing
from collections.abc import Iterator
from dataclasses import dataclass

from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from rlpt.config import Config
from rlpt.errors import ConfigError
from rlpt.registry import suggest


@dataclass(frozen=True)
class Key:
    """One key of the configuration. Names that a recipe chooses itself stand as NAME, list indices as 0."""

    key: str
    type: str
    default: str
    description: str


def describe_keys(prefix: str = "") -> list[Key]:
    """All keys at or below `prefix` (all for ""). Raises ConfigError with the near name where there is none.

    `NAME.` and `0.` may be left out or be any name: `objectives.play.gate` means `objectives.NAME.gate`.
    """
    keys = list(_walk(Config, ""))
    if not prefix:
        return keys
    wanted = _plain(prefix)
    found = [key for key in keys if f"{_plain(key.key)}.".startswith(f"{wanted}.")]
    if not found:  # a name that the recipe chose: objectives.play.gate
        head, _, rest = prefix.partition(".")
        shorter = f"{head}.{rest.partition('.')[2]}".rstrip(".")
        found = [key for key in keys if f"{_plain(key.key)}.".startswith(f"{_plain(shorter)}.") and "NAME." in key.key]
    if not found:
        known = sorted({part for key in keys for part in (key.key, key.key.rpartition(".")[0]) if part})
        raise ConfigError(f"{prefix}: unknown key{suggest(prefix, known)}")
    return found


def _plain(key: str) -> str:
    return ".".join(part for part in key.split(".") if part != "NAME" and not part.isdigit())


def _walk(section: type[BaseModel], prefix: str) -> Iterator[Key]:
    for name, field in section.model_fields.items():
        inner, middle = _section_in(field.annotation)
        if inner is None or _is_scalar_too(field.annotation):
            yield Key(f"{prefix}{name}", _type_name(field.annotation), _default(field), field.description or "")
        if inner is not None:
            yield from _walk(inner, f"{prefix}{name}.{middle}")


def _section_in(annotation: typing.Any) -> tuple[type[BaseModel] | None, str]:
    """The section that an annotation holds, and what stands between the two keys."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation, ""
    middle = {dict: "NAME.", list: "0."}.get(typing.get_origin(annotation), "")  # type: ignore[arg-type]
    for argument in typing.get_args(annotation):
        inner, below = _section_in(argument)
        if inner is not None:
            return inner, middle + below
    return None, ""


def _is_scalar_too(annotation: typing.Any) -> bool:
    """Whether a plain value may stand where a section may: a number or a ramp."""
    is_union = typing.get_origin(annotation) in (typing.Union, types.UnionType)
    return is_union and any(argument in (int, float, str) for argument in typing.get_args(annotation))


def _type_name(annotation: typing.Any) -> str:
    if annotation is type(None):
        return "null"
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is typing.Literal:
        return " | ".join(str(argument) for argument in arguments)
    if origin in (typing.Union, types.UnionType):
        return " | ".join(_type_name(argument) for argument in arguments)
    if origin is list:
        return f"list of {_type_name(arguments[0])}"
    if origin is dict:
        return "{name: ..., **options}" if arguments[1] is typing.Any else f"{{NAME: {_type_name(arguments[1])}}}"
    known = {int: "integer", float: "number", str: "text", bool: "true | false"}
    return known.get(annotation, getattr(annotation, "__name__", str(annotation)).lower())


def _default(field: FieldInfo) -> str:
    value = field.get_default(call_default_factory=True)  # type: ignore[call-arg]
    if value is PydanticUndefined:
        return "required"
    shown = {None: "null", True: "true", False: "false", "": '""'}
    return f"default {shown[value] if isinstance(value, bool | None) or value == '' else value}"
