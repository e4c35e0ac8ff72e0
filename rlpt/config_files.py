"""YAML files -> plain values: `base:` lists underneath, dotted overrides on top; unknown keys, and keys given twice."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, get_args, get_origin

import yaml
from pydantic import BaseModel

from rlpt.errors import ConfigError
from rlpt.registry import suggest


class _Loader(yaml.SafeLoader):
    """YAML 1.1 reads 1e-3 as text; here it is a number. A key written twice is an error."""


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"^[-+]?(\d[\d_]*\.?[\d_]*|\.[\d_]+)[eE][-+]?\d+$"),
    list("-+0123456789."),
)


def _unique_mapping(loader: _Loader, node: yaml.MappingNode) -> dict[Any, Any]:
    seen: set[Any] = set()
    for key_node, _ in node.value:
        key = loader.construct_object(key_node)
        if key in seen:
            mark = key_node.start_mark
            raise ConfigError(f"{mark.name}:{mark.line + 1}: key '{key}' is given twice")
        seen.add(key)
    return dict(loader.construct_pairs(node, deep=True))


_Loader.add_constructor("tag:yaml.org,2002:map", _unique_mapping)


def parse_yaml(text: str, name: str = "<text>") -> Any:
    """YAML text -> value. Raises ConfigError with file and line."""
    try:
        loader = _Loader(text)
        loader.name = name
        try:
            return loader.get_single_data()
        finally:
            loader.dispose()
    except yaml.YAMLError as error:
        raise ConfigError(f"{name}: not valid YAML: {' '.join(str(error).split())}") from None


def merge(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """`over` laid upon `base`: mappings merge, everything else is replaced. A mapping whose `name` changes
    replaces the base's whole (another component has other options)."""
    if "name" in base and "name" in over and base["name"] != over["name"] and "objectives" not in base:
        return dict(over)
    merged = dict(base)
    for key, value in over.items():
        old = merged.get(key)
        merged[key] = merge(old, value) if isinstance(old, Mapping) and isinstance(value, Mapping) else value
    return merged


def load_yaml(path: Path) -> dict[str, Any]:
    """A YAML file with its `base:` files (paths relative to it) laid underneath, in order."""
    return _load_yaml(Path(path), ())


def _load_yaml(path: Path, above: tuple[Path, ...]) -> dict[str, Any]:
    if path.resolve() in above:
        raise ConfigError(f"{path}: base: files include each other in a circle")
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        near = sorted(p.name for p in path.parent.glob("*.y*ml")) if path.parent.is_dir() else []
        raise ConfigError(f"{path}: no such configuration file{suggest(path.name, near)}") from None
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: can't be read: {error}") from None
    values = parse_yaml(text, str(path)) or {}
    if not isinstance(values, Mapping):
        raise ConfigError(f"{path}: must be a mapping of keys, is a {type(values).__name__}")
    values = dict(values)
    bases = values.pop("base", [])
    merged: dict[str, Any] = {}
    for base in [bases] if isinstance(bases, str) else bases:
        merged = merge(merged, _load_yaml(path.parent / base, (*above, path.resolve())))
    return merge(merged, values)


def apply_overrides(values: Mapping[str, Any], overrides: Iterable[str]) -> dict[str, Any]:
    """`a.b.0.c=value` assignments, values read as YAML. Raises ConfigError for anything else."""
    result = dict(values)
    for override in overrides:
        key, equals, text = override.partition("=")
        if not equals or not key:
            raise ConfigError(f"'{override}': an override is written key=value, e.g. schedule.steps=50")
        result = _assign(result, key.split("."), parse_yaml(text, override), key)
    return result


def _assign(node: Any, path: list[str], value: Any, key: str) -> Any:
    head, rest = path[0], path[1:]
    if isinstance(node, list):
        if not head.isdigit() or int(head) >= len(node):
            raise ConfigError(f"{key}: '{head}' is not an index of a list of {len(node)}")
        return [(_assign(v, rest, value, key) if rest else value) if i == int(head) else v for i, v in enumerate(node)]
    if node is not None and not isinstance(node, Mapping):
        raise ConfigError(f"{key}: '{head}' is below a value, not below a section")
    result = dict(node or {})
    result[head] = _assign(result.get(head), rest, value, key) if rest else value
    return result


def as_written(lines: list[str]) -> list[str]:
    """Of pydantic's lines for a value that may be a number or a ramp, those of what was written, by its own key."""
    keys = [line.partition(":")[0] for line in lines]
    ramps = {key.partition(".Ramp.")[0] for key in keys if ".Ramp." in key}
    kept = []
    for key, line in zip(keys, lines):
        number = key.removesuffix(".float")
        if key.endswith(".Ramp") or (key != number and number in ramps):
            continue
        kept.append(number.replace(".Ramp.", ".") + line.removeprefix(key))
    return kept


def unknown_keys(section: type[BaseModel], values: Any, prefix: str) -> Iterable[str]:
    """`key: unknown key; did you mean ...` for each key of `values` that the section does not have."""
    if not isinstance(values, Mapping):
        return
    fields = section.model_fields
    for key, value in values.items():
        if key not in fields:
            yield f"{prefix}{key}: unknown key{suggest(f'{prefix}{key}', [prefix + field for field in fields])}"
            continue
        annotation = fields[key].annotation
        inner = next((one for one in (annotation, *get_args(annotation)) if _is_section(one)), None)
        if inner is None:
            continue
        items: Iterable[tuple[Any, Any]]
        if isinstance(value, list):
            items = enumerate(value)
        elif get_origin(annotation) is dict and isinstance(value, Mapping):
            items = value.items()
        else:
            yield from unknown_keys(inner, value, f"{prefix}{key}.")
            continue
        for name, item in items:
            yield from unknown_keys(inner, item, f"{prefix}{key}.{name}.")


def _is_section(annotation: Any) -> bool:
    return isinstance(annotation, type) and issubclass(annotation, BaseModel)
