"""A tiny corpus and the configuration that prepares it."""

import contextlib
import json
import os
import random

WORDS = (
    "the",
    "number",
    "of",
    "text",
    "in",
    "line",
    "and",
    "file",
    "with",
    "small",
    "old",
    "new",
    "path",
    "node",
    "left",
)


def write_config(folder, **sections):
    """The path of a configuration: 60 short files and 30 solutions, into FOLDER/out."""
    rng = random.Random(3)
    (folder / "text").mkdir(exist_ok=True)
    for index in range(60):
        words = [f"{rng.choice(WORDS)} {rng.randrange(100)}" for _ in range(40)]
        (folder / "text" / f"{index:02}.txt").write_text(" ".join(words) + f"\n  <|answer|> é\u2581 {index}\n")
    tasks = [
        {"task": {"name": "reverse"}, "levels": [0, 1], "documents": 20},
        {"task": {"name": "addition"}, "levels": [1], "documents": 10},
    ]
    values = {
        "name": "tiny",
        "output": str(folder / "out"),
        "sources": [{"name": "text", "paths": [str(folder / "text")]}],
        "synthesize": {"tasks": tasks},
        "split": {"valid_share": 0.2},
        "tokenizer": {"vocab_size": 400},
    } | sections
    path = folder / "config.yaml"
    path.write_text(json.dumps(values))
    return path


def tree(folder):
    """Every file's content but the lock's."""
    files = sorted(path for path in folder.rglob("*") if path.is_file() and path.name != ".lock")
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


SECTIONS = {
    "clean": {"unicode": "NFC", "min_words": 5},
    "dedup": {"near": True},
    "decontaminate": {"tasks": [{"task": {"name": "reverse"}, "level": 0, "problems": 16}]},
}


def many_parts(folder, **sections):
    """The same corpus in parts of a few files, some of which say the same."""
    path = write_config(folder, **sections)
    values = json.loads(path.read_text())
    values["sources"][0]["part_bytes"] = 5000
    for index in (7, 41):
        text = (folder / "text" / "03.txt").read_text()
        (folder / "text" / f"{index:02}.txt").write_text(text if index == 7 else text.replace("the", "The", 1))
    path.write_text(json.dumps(values))
    return path


@contextlib.contextmanager
def spoilt(path):
    """A text file whose second line is no text; on the way out it is as it was, its time included."""
    content, stat = path.read_bytes(), path.stat()
    path.write_bytes(b"fine\n\xff\n")
    try:
        yield path
    finally:
        path.write_bytes(content)
        os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))
