"""From a job to text: shell scripts from templates, YAML documents with comments."""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping, Sequence
from typing import Any

import yaml

Document = Mapping[str, Any]


def script(template: str, **values: Any) -> str:
    """A file of `templates/`, filled in. A value that the template has and `values` lack is an error; `| quote` makes a
    value one word of a shell, `| lines` a command with each option on a line of its own."""
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("rlpt.launch"),
        undefined=jinja2.StrictUndefined,
        keep_trailing_newline=True,
        trim_blocks=True,
        lstrip_blocks=True,
        autoescape=False,  # shell, not HTML
    )
    environment.filters |= {"quote": quote, "lines": command_lines}
    return environment.get_template(f"{template}.j2").render(**values)


def quote(word: object) -> str:
    """One word of a shell. `$NAME` and `${...}` that a template's author put between <> are left for the shell:
    `--node-rank=<$NODE_RANK>` becomes --node-rank="$NODE_RANK"."""
    parts = re.split(r"<(\$[^<>]+)>", str(word))
    words = [f'"{part}"' if odd % 2 else shlex.quote(part) for odd, part in enumerate(parts) if part]
    return "".join(words) or "''"


def command_lines(words: Sequence[str], indent: str = "  ") -> str:
    """A command over several lines: a new one at each option."""
    lines: list[list[str]] = [[]]
    for word in words:
        if word.startswith("-") and lines[-1]:
            lines.append([])
        lines[-1].append(quote(word))
    return f" \\\n{indent}".join(" ".join(line) for line in lines)


class _Dumper(yaml.SafeDumper):
    """Lists are indented below their key, and texts of several lines are written as such."""

    def increase_indent(self, flow: bool = False, indentless: bool = False) -> None:
        super().increase_indent(flow, False)


def _text(dumper: _Dumper, text: str) -> yaml.ScalarNode:
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style="|" if "\n" in text else None)


_Dumper.add_representer(str, _text)


def documents(heading: str, parts: Sequence[tuple[str, Document]], comments: Mapping[str, str] | None = None) -> str:
    """Documents of one YAML file, each below a comment. `comments`: key -> what is said above the first line that has
    it. Raises KeyError for a comment whose key is nowhere."""
    waiting = dict(comments or {})
    text = _comment(heading)
    for note, document in parts:
        text += f"---\n{_comment(note)}"
        for line in yaml.dump(document, Dumper=_Dumper, sort_keys=False, width=1000).splitlines(keepends=True):
            key = re.match(r"[ -]*([A-Za-z_]+):", line)
            if key and key[1] in waiting and document.get("kind") != "ConfigMap":
                indent = line[: len(line) - len(line.lstrip())]
                text += _comment(waiting.pop(key[1]), indent)
            text += line
    if waiting:
        raise KeyError(f"no line has {sorted(waiting)}")
    return text


def _comment(text: str, indent: str = "") -> str:
    return "".join(f"{indent}# {line}".rstrip() + "\n" for line in text.splitlines())
