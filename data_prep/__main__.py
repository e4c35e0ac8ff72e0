"""The command line: `python -m data_prep STAGE CONFIG [key=value ...]`, e.g. `all configs/data/quickstart.yaml`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from rlpt.errors import ConfigError, UserError
from rlpt.registry import suggest

STAGE_HELP = {
    "ingest": "sources -> documents/NAME.jsonl",
    "synthesize": "tasks -> documents/solutions.jsonl",
    "split": "documents -> split/NAME-train.jsonl, NAME-valid.jsonl",
    "tokenizer": "train SentencePiece -> tokenizer/",
    "encode": "documents -> NAME-train.bin/.idx, NAME-valid.bin/.idx, solutions-train.bin/.idx",
    "manifest": "sizes, hashes and counts -> manifest.json",
    "inspect": "print what the shards hold",
    "verify": "check every hash",
    "all": "everything above in order, leaving out what is up to date",
}
app = typer.Typer(add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None)


@app.command(
    help="Prepare a corpus.\n\nStages:\n\n\b\n" + "\n".join(f"{name:11} {text}" for name, text in STAGE_HELP.items())
)
def main(
    stage: Annotated[str, typer.Argument(metavar="STAGE", help="one of the stages above")],
    config: Annotated[Path, typer.Argument(metavar="CONFIG", help="YAML file, e.g. configs/data/quickstart.yaml")],
    overrides: Annotated[
        list[str] | None, typer.Argument(metavar="[KEY=VALUE]...", help="overrides, e.g. tokenizer.vocab_size=1024")
    ] = None,
    debug: Annotated[bool, typer.Option("--debug", help="show the traceback of an error")] = False,
) -> None:
    """Runs one stage; errors go to stderr and their code is the exit status."""
    try:
        from data_prep.config import load_prep_config

        loaded = load_prep_config(config, overrides or ())
        if stage not in STAGE_HELP:
            raise ConfigError(f"unknown stage '{stage}'{suggest(stage, list(STAGE_HELP))}")
        from data_prep.pipeline import run

        run(stage, loaded)
    except UserError as error:
        if debug:
            raise
        typer.echo(f"error: {error}", err=True)
        raise typer.Exit(error.exit_code) from None
    except OSError as error:  # a full disk, a folder that can't be written
        if debug:
            raise
        where = error.filename or loaded.directory
        typer.echo(f"error: {where}: {error.strerror}; mend it, or set output=FOLDER to write elsewhere", err=True)
        raise typer.Exit(UserError.exit_code) from None


if __name__ == "__main__":
    app(prog_name="python -m data_prep")
