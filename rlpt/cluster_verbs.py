"""Verbs about clusters: `rlpt plan` and `rlpt doctor`. They import what they need when they run."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

Overrides = Annotated[list[str] | None, typer.Argument(metavar="[KEY=VALUE]...", help="overrides of the recipe")]


def add_cluster_verbs(
    app: typer.Typer, print_table: Callable[..., None], run_ranks: Callable[[str, list[str], int, Any], int]
) -> None:
    """Adds the verbs to the command line."""

    @app.command()
    def plan(
        config: Annotated[Path, typer.Argument(metavar="CONFIG", help="a recipe, e.g. configs/sizes/7b.yaml")],
        overrides: Overrides = None,
        world_size: Annotated[
            int, typer.Option("--world-size", min=0, help="ranks; 0: tensor x pipeline x data of the recipe")
        ] = 0,
        hardware: Annotated[str, typer.Option(help="h200, h100, a100 or cpu")] = "h100",
        vocabulary: Annotated[int, typer.Option(min=0, help="tokens; 0: the prepared tokenizer's", metavar="N")] = 0,
        episode_tokens: Annotated[
            int,
            typer.Option("--episode-tokens", min=0, help="of an episode, prompt included; 0: the most the tasks allow"),
        ] = 0,
        sweep: Annotated[bool, typer.Option("--sweep", help="search layouts, and print the best few that fit")] = False,
        json_file: Annotated[Path | None, typer.Option("--json", metavar="FILE", help="write the plan here")] = None,
    ) -> None:
        """Plan a recipe on a cluster that is not there: memory, communication, time, what does not fit.

        Memory is measured on the model's own modules without allocating them; times are estimates. Exit code 1 where
        the recipe does not fit.

        [bold]rlpt plan configs/quickstart.yaml --hardware cpu[/bold]
        [bold]rlpt plan configs/sizes/7b.yaml --world-size 64 --vocabulary 128256 --sweep[/bold]
        """
        from rlpt.plan_verb import main as plan_recipe

        asked = (world_size, hardware, vocabulary, episode_tokens, sweep, json_file)
        if not plan_recipe(config, overrides or (), *asked, print_table):
            raise typer.Exit(1)

    @app.command()
    def doctor(
        config: Annotated[
            Path | None,
            typer.Argument(metavar="[CONFIG]", help="a recipe, whose groups, data and folder are tried too"),
        ] = None,
        overrides: Overrides = None,
        nproc: Annotated[int, typer.Option(min=0, help="ranks on this host; 0: those that the recipe asks for")] = 0,
    ) -> None:
        """Look for what would keep a recipe from training on this host, or, under torchrun, on all of them.

        Every process group of the recipe carries a real all-reduce. Exit code 1 where something fails.

        [bold]rlpt doctor[/bold]
        [bold]rlpt doctor configs/quickstart.yaml[/bold]
        [bold]torchrun --nnodes 2 ... -m rlpt.doctor configs/sizes/7b.yaml[/bold]
        """
        from rlpt.launcher import launch

        ranks = nproc or 1
        if config is not None and not nproc:
            from rlpt.config import load_config
            from rlpt.plan import default_ranks

            ranks = default_ranks(load_config(config, overrides or ()))
        arguments = [] if config is None else [str(config), *(overrides or ())]
        raise typer.Exit(run_ranks("rlpt.doctor", arguments, ranks, launch if ranks > 1 else _alone))


def _alone(module: str, arguments: list[str], ranks: int) -> int:
    """One rank needs no launcher, whose port would then be tried for nothing."""
    import subprocess
    import sys

    return subprocess.run([sys.executable, "-m", module, *arguments], check=False).returncode
