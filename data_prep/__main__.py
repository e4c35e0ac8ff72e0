"""The command line: `python -m data_prep STAGE CONFIG [key=value ...]`, e.g. `all configs/data/quickstart.yaml`."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from rlpt.errors import ConfigError, UserError
from rlpt.registry import suggest

STAGE_HELP = {
    "ingest": "sources -> documents/NAME/",
    "synthesize": "tasks -> documents/solutions/",
    "clean": "documents/ -> clean/",
    "dedup": "clean/ -> signatures/ -> duplicates/   (phases: sign, dedup)",
    "decontaminate": "clean/, documents/solutions/ -> contaminated/",
    "split": "what is kept -> split/NAME-train/, NAME-valid/",
    "tokenizer": "a sample of split/ -> tokenizer/   (phases: sample, tokenizer)",
    "encode": "split/ -> NAME-train.bin/.idx, NAME-valid.bin/.idx   (phases: encode, merge)",
    "manifest": "sizes, hashes and counts -> manifest.json",
    "phases": "what a cluster is to run: a phase, tasks and a folder for logs a line (--tasks)",
    "all": "everything above in order, leaving out what is done; then verify",
    "verify": "check every hash",
    "inspect": "show what the shards hold (--html FILE: a page with plots)",
    "recall": "plant near-duplicates among the documents and measure how many dedup finds",
}
PHASES = ("sign", "sample", "merge")
app = typer.Typer(add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None)


@app.command(
    help="Prepare a corpus.\n\nWhatever ends a run, what was finished stays, and the same command goes on.\n\n"
    "Stages:\n\n\b\n" + "\n".join(f"{name:13} {text}" for name, text in STAGE_HELP.items())
)
def main(
    stage: Annotated[str, typer.Argument(metavar="STAGE", help="one of the stages above")],
    config: Annotated[Path, typer.Argument(metavar="CONFIG", help="YAML file, e.g. configs/data/quickstart.yaml")],
    overrides: Annotated[
        list[str] | None, typer.Argument(metavar="[KEY=VALUE]...", help="overrides, e.g. tokenizer.vocab_size=1024")
    ] = None,
    workers: Annotated[int, typer.Option(help="processes; 0: one a core. Any number gives the same bytes", min=0)] = 0,
    skip_bad: Annotated[
        int | None, typer.Option(help="bad records of a source that are left out and counted, e.g. 100", min=0)
    ] = None,
    task: Annotated[
        str | None, typer.Option(help="INDEX/COUNT: do this share of one phase, beside other machines", metavar="I/N")
    ] = None,
    executor: Annotated[
        str | None, typer.Option(help="local, slurm or ray: by datatrove, as --tasks tasks a phase", metavar="NAME")
    ] = None,
    tasks: Annotated[int, typer.Option(help="with --executor and phases: tasks a phase", min=1)] = 16,
    option: Annotated[
        list[str] | None, typer.Option(help="with --executor: one of its own, e.g. partition=cpu", metavar="KEY=VALUE")
    ] = None,
    html: Annotated[Path | None, typer.Option(help="inspect: write a page here", metavar="FILE")] = None,
    debug: Annotated[bool, typer.Option("--debug", help="show the traceback of an error")] = False,
) -> None:
    """Runs one stage; errors go to stderr and their code is the exit status."""
    try:
        from data_prep.config import load_prep_config

        extra = [] if skip_bad is None else [f"skip_bad={skip_bad}"]
        loaded = load_prep_config(config, [*(overrides or ()), *extra])
        known = [*STAGE_HELP, *PHASES]
        if stage not in known:
            raise ConfigError(f"unknown stage '{stage}'{suggest(stage, known)}")
        if html is not None and stage != "inspect":
            raise ConfigError(f"--html belongs to inspect, not to {stage}")
        from data_prep.cluster import show_phases, submit
        from data_prep.pipeline import Share, run

        if stage == "phases":
            return show_phases(loaded, tasks)
        if executor is not None:
            return submit(stage, loaded, executor, tasks, option or ())
        share = None if task is None else Share.parse(task)
        run(stage, loaded, workers or os.cpu_count() or 1, share, html)
    except UserError as error:
        if debug:
            raise
        typer.echo(f"error: {error}", err=True)
        raise typer.Exit(error.exit_code) from None
    except OSError as error:  # a full disk, a folder that can't be written
        if debug:
            raise
        where = error.filename or loaded.directory
        typer.echo(
            f"error: {where}: {error.strerror}; what was finished stays: mend it and run again, or set output=FOLDER "
            "to write elsewhere",
            err=True,
        )
        raise typer.Exit(UserError.exit_code) from None


if __name__ == "__main__":
    app(prog_name="python -m data_prep")
