"""`rlpt bench encode`: text to Megatron shards, this project beside Megatron-LM's way and `datasets.map`.

Every contender is a whole process with the same number of workers, from the same JSON lines to the same shard, and
whoever writes other bytes is shown as different. A one-line file gives what a process costs before it does any work.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from rlpt.bench.encode_texts import random_words, source_code, write_jsonl
from rlpt.bench.paired import machine, print_table, ratios, run_paired, summarize, time_process, write_figures
from rlpt.data.manifest import sha256_file
from rlpt.errors import DataError

_SEED = 1
_OURS, _LIMIT = "rlpt", "bytes"
_TEXTS = {"source code": source_code, "random words by Zipf's law": random_words}
_PREPARATION = """\
name: bench
seed: 1
sources:
  - {name: text, python_library: true, max_bytes: 4_000_000}
tokenizer: {vocab_size: 16_384, export_transformers: true}
"""
_NOTES = (
    "MB: 10^6 bytes of UTF-8 text. Whole processes, imports included; at work: less what a file of one line takes.",
    "megatron-style: our restatement of Megatron-LM's tools/preprocess_data.py with the same calls, not the script.",
    "bytes: the limit, a token for each byte through our reader and writer.",
)


@dataclass(frozen=True)
class Contender:
    """One way to encode: `command(source, prefix)` is the process, `written` the prefix's suffix that it adds."""

    command: Callable[[Path, Path], list[str]]
    written: str = ""


def main(
    megabytes: int,
    workers: int,
    pairs: int,
    json_file: Path | None,
    tokenizer: Path | None,
    megatron_script: Path | None,
) -> None:
    """Measures both texts, prints a table of each, and writes the figures to `json_file`."""
    with tempfile.TemporaryDirectory(prefix="rlpt-bench-") as name:
        folder = Path(name)
        tokenizer = tokenizer or _train_tokenizer(folder)
        if not (tokenizer / "tokenizer.json").is_file():
            raise DataError(f"{tokenizer}: no tokenizer.json; prepare it with tokenizer.export_transformers=true")
        contenders = make_contenders(tokenizer, workers, megatron_script)
        figures: dict[str, Any] = {"machine": machine(), "workers": workers, "pairs": pairs, "versions": _versions()}
        figures["texts"] = {}
        startup = _measure_startup(contenders, folder)
        for title, texts in _TEXTS.items():
            source = folder / "text.jsonl"
            num_bytes = write_jsonl(source, texts(_SEED), megabytes * 1_000_000)
            figures["texts"][title] = measure(contenders, source, num_bytes, pairs, startup, folder)
            _print(title, figures["texts"][title], workers, pairs)
    if json_file is not None:
        write_figures(json_file, figures)


def make_contenders(tokenizer: Path, workers: int, megatron_script: Path | None) -> dict[str, Contender]:
    """Every contender by name; with Megatron-LM's own script where a path to it is given."""

    def module(*start: str) -> Contender:
        def command(source: Path, prefix: Path) -> list[str]:
            arguments = [str(source), str(prefix), str(tokenizer), "--workers", str(workers)]
            return [sys.executable, "-m", *start, *arguments]

        return Contender(command)

    def script(source: Path, prefix: Path) -> list[str]:
        options = {
            "--input": source,
            "--output-prefix": prefix,
            "--tokenizer-type": "SentencePieceTokenizer",
            "--tokenizer-model": tokenizer / "tokenizer.model",
            "--workers": workers,
        }
        flat = [str(word) for option in options.items() for word in option]
        return [sys.executable, str(megatron_script), *flat, "--append-eod"]

    contenders = {
        _OURS: module("rlpt.data.encoding"),
        "megatron-style": module("rlpt.bench.encode_peers", "megatron-style"),
        "datasets.map": module("rlpt.bench.encode_peers", "datasets"),
        _LIMIT: module("rlpt.bench.encode_peers", "bytes"),
    }
    if megatron_script is not None:
        contenders["megatron-script"] = Contender(script, "_text_document")
    return contenders


def measure(
    contenders: Mapping[str, Contender],
    source: Path,
    num_bytes: int,
    pairs: int,
    startup: Mapping[str, float],
    folder: Path,
) -> dict[str, Any]:
    """{contender: figures} for one text; seconds are those of whole processes."""

    def runner(name: str) -> Callable[[], float]:
        prefix = folder / f"shard-{name}"
        return lambda: time_process(contenders[name].command(source, prefix), folder / "log.txt")

    seconds = run_paired({name: runner(name) for name in contenders}, pairs)
    slower = ratios(seconds, _OURS)
    at_work = {name: [max(value - startup[name], 1e-9) for value in values] for name, values in seconds.items()}
    slower_at_work = ratios(at_work, _OURS)
    written = {name: _hashes(folder / f"shard-{name}{each.written}") for name, each in contenders.items()}
    return {
        name: {
            "bytes": num_bytes,
            "seconds": summarize(seconds[name]),
            "startup_seconds": startup[name],
            "mb_per_second": summarize([num_bytes / 1e6 / value for value in seconds[name]]),
            "mb_per_second_at_work": summarize([num_bytes / 1e6 / value for value in at_work[name]]),
            "times_ours": slower[name],
            "times_ours_at_work": slower_at_work[name],
            "equal": written[name] == written[_OURS],
        }
        for name in contenders
    }


def _measure_startup(contenders: Mapping[str, Contender], folder: Path) -> dict[str, float]:
    """Seconds of each contender for a file of one short line, the smaller of two runs."""
    source = folder / "line.jsonl"
    source.write_text('{"text": "a"}\n', encoding="utf-8")
    runs = {
        name: [time_process(each.command(source, folder / "line"), folder / "log.txt") for _ in range(2)]
        for name, each in contenders.items()
    }
    return {name: min(seconds) for name, seconds in runs.items()}


def _train_tokenizer(folder: Path) -> Path:
    """A tokenizer as data preparation makes it, in a process of its own."""
    config = folder / "preparation.yaml"
    config.write_text(_PREPARATION, encoding="utf-8")
    output = folder / "preparation"
    command = [sys.executable, "-m", "data_prep", "all", str(config), f"output={output}"]
    time_process(command, folder / "preparation.log")
    return output / "tokenizer"


def _hashes(prefix: Path) -> tuple[str, str]:
    return sha256_file(Path(f"{prefix}.bin")), sha256_file(Path(f"{prefix}.idx"))


def _versions() -> dict[str, str]:
    found = {}
    for package in ("sentencepiece", "megatron-core", "datasets", "transformers", "tokenizers", "numpy"):
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "not installed"
    return found


def _print(title: str, figures: Mapping[str, Any], workers: int, pairs: int) -> None:
    rows = []
    for name, figure in figures.items():
        bound = name == _LIMIT
        rows.append(
            [
                name,
                figure["seconds"].show(),
                figure["mb_per_second"].show(1),
                figure["mb_per_second_at_work"].show(1),
                figure["times_ours"].show(),
                figure["times_ours_at_work"].show(),
                "limit" if bound else "equal" if figure["equal"] else "DIFFERENT",
            ]
        )
    size = next(iter(figures.values()))["bytes"]
    print_table(
        f"encode {title}: {size / 1e6:.1f} MB, {workers} workers, {pairs} paired runs, median (range)",
        ["contender", "seconds", "MB/s", "MB/s at work", "time / ours", "at work", "output"],
        rows,
        _NOTES,
    )
