"""The verbs of `rlpt bench`. They import what they need when they run."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

bench_app = typer.Typer(no_args_is_help=True, help="Measure against peers, side by side, in paired runs.")


@bench_app.callback()
def bench() -> None:
    """Measure against peers, side by side, in paired runs."""


@bench_app.command("encode")
def bench_encode(
    megabytes: Annotated[int, typer.Option(min=1, help="of text, in UTF-8 bytes / 10^6; two such texts are made")] = 50,
    workers: Annotated[int, typer.Option(min=1, help="processes of each contender")] = 2,
    pairs: Annotated[int, typer.Option(min=1, help="runs of each contender, interleaved")] = 5,
    json_file: Annotated[Path | None, typer.Option("--json", metavar="FILE", help="write the figures here too")] = None,
    tokenizer: Annotated[
        Path | None,
        typer.Option(metavar="FOLDER", help="of data_prep with export_transformers; default: one is trained"),
    ] = None,
    megatron_script: Annotated[
        Path | None, typer.Option(metavar="PATH", help="Megatron-LM's tools/preprocess_data.py, run as it is")
    ] = None,
) -> None:
    """Encode text to Megatron shards: this project, Megatron-LM's way, and datasets.map, as whole processes.

    [bold]rlpt bench encode[/bold]
    [bold]rlpt bench encode --megabytes 10 --pairs 3 --json encode.json[/bold]
    """
    from rlpt.bench.encode import main as measure_encoding

    measure_encoding(megabytes, workers, pairs, json_file, tokenizer, megatron_script)
