"""The command line: `rlpt VERB ...` or `python -m rlpt VERB ...`. Verbs import what they need when they run."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from rlpt.bench.commands import bench_app
from rlpt.cluster_verbs import add_cluster_verbs
from rlpt.errors import DataError, UserError
from rlpt.launch.command import launch as launch_verb

app = typer.Typer(
    name="rlpt",
    no_args_is_help=True,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Reinforcement pre-training: one model learns text and its own episodes in the same optimizer steps.",
    epilog="First run: [bold]bash launch/quickstart.sh[/bold]. Exit codes: 2 configuration, 3 data, 4 checkpoint, "
    "75 try again, 78 training must not go on, 85 told to stop and saved, 1 anything else.",
)
config_app = typer.Typer(
    no_args_is_help=True, help="Look at configurations: what a recipe resolves to, what a key means."
)
app.add_typer(config_app, name="config")


class ListByDefault(TyperGroup):
    """Commands of which `list` is meant where none is named."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """`tasks 'graph*' --json` is `tasks list 'graph*' --json`."""
        named = bool(args) and args[0] in {*self.commands, *ctx.help_option_names}
        return super().parse_args(ctx, args if named else ["list", *args])


tasks_app = typer.Typer(
    cls=ListByDefault,
    help="List, show and picture the tasks. [bold]rlpt tasks PATTERN[/bold] is rlpt tasks list PATTERN.",
)
app.add_typer(tasks_app, name="tasks")

app.add_typer(bench_app, name="bench")

ConfigFile = Annotated[Path, typer.Argument(metavar="CONFIG", help="a recipe, e.g. configs/quickstart.yaml")]
Overrides = Annotated[
    list[str] | None,
    typer.Argument(metavar="[KEY=VALUE]...", help="overrides, e.g. schedule.steps=50 objectives.play=null"),
]
RunFolder = Annotated[Path, typer.Argument(metavar="RUN", help="a run's folder, e.g. runs/quickstart")]
Nproc = Annotated[
    int | None,
    typer.Option(min=1, help="ranks on this host; default: parallel.tensor x pipeline x data of the recipe"),
]
Pattern = Annotated[
    str, typer.Argument(metavar="PATTERN", help="a glob over names, e.g. 'graph_*', or a part of FIELD/NAME")
]
Kind = Annotated[str, typer.Option(help="only this kind: task, game or environment")]
Source = Annotated[str, typer.Option(help="only this source: native, open_spiel or reasoning_gym")]
BLEND_COLUMNS = ("shard", "tokens", "share at first", "at last", "rows", "epochs")
NumProblems = Annotated[
    int, typer.Option("--problems", min=0, help="problems to measure at each level; 0: as many as 0.3 s a task allow")
]


@app.callback()
def root(
    debug: Annotated[bool, typer.Option("--debug", help="show tracebacks of errors (or set RLPT_DEBUG=1)")] = False,
) -> None:
    """Options before the verb. `main` takes --debug out of the arguments wherever it stands."""


@app.command()
def train(
    config: ConfigFile,
    overrides: Overrides = None,
    nproc: Nproc = None,
    resume: Annotated[
        bool | None,
        typer.Option(
            "--resume/--no-resume",
            help="go on from the newest good checkpoint, or refuse to; default: resume where the run has checkpoints",
        ),
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="check the recipe, print what it amounts to, and stop")
    ] = False,
) -> None:
    """Train a recipe on this host.

    Starts the ranks itself; under torchrun (several hosts: launch/torchrun.sh) it becomes one of them.

    [bold]rlpt train configs/quickstart.yaml[/bold]
    [bold]rlpt train configs/quickstart.yaml schedule.steps=50 name=short --nproc 2[/bold]
    [bold]rlpt train configs/quickstart.yaml objectives.play=null --dry-run[/bold]
    """
    from rlpt.config import check_world, load_config
    from rlpt.launcher import launch
    from rlpt.plan import check_components, default_ranks, first_hits, make_plan, missing_data, planned_blends

    resolved = load_config(config, overrides or ())
    ranks = nproc or int(os.environ.get("WORLD_SIZE", 0)) or default_ranks(resolved)
    if dry_run:
        plan = make_plan(resolved, ranks)
        check_components(resolved)
        _print_table(plan.name, [*plan.rows(), *first_hits(resolved)])
        for name, (shards, warnings) in planned_blends(resolved).items():
            _print_table(f"{name}: blend", [shard.cells() for shard in shards], BLEND_COLUMNS)
            for warning in warnings:
                typer.echo(warning)
        return
    check_world(resolved, ranks)
    if missing := missing_data(resolved):
        raise DataError(f"{missing[0]}: no such file; prepare the data first: python -m data_prep all DATA_CONFIG")
    arguments = [str(config), *(overrides or ())]
    if resume is not None:
        arguments.append("--resume" if resume else "--no-resume")
    raise typer.Exit(_run_ranks("rlpt.train", arguments, ranks, launch))


app.command(name="launch")(launch_verb)


@app.command()
def evaluate(run: RunFolder, nproc: Nproc = None) -> None:
    """Evaluate the newest checkpoint of a run on held-out text and problems.

    Writes RUN/evaluation.json and prints the table.

    [bold]rlpt evaluate runs/quickstart[/bold]
    """
    from rlpt.config import load_config
    from rlpt.launcher import launch
    from rlpt.plan import default_ranks

    resolved = load_config(run / "config.yaml")
    raise typer.Exit(_run_ranks("rlpt.evaluate", [str(run)], nproc or default_ranks(resolved), launch))


@app.command()
def experiment(
    name: Annotated[
        str | None, typer.Argument(metavar="NAME|PATH", help="a name in configs/experiments, or a file")
    ] = None,
    show_list: Annotated[bool, typer.Option("--list", help="list the experiments and how far each is")] = False,
    jobs: Annotated[
        int,
        typer.Option("--jobs", "-j", min=1, help="arms that run at the same time; their output goes to RUN/log.txt"),
    ] = 1,
) -> None:
    """Run an experiment: arms by seeds over a recipe, then its claims with their bounds.

    Finished arms are kept and an interrupted one goes on, so running it again is cheap. A claim that does not hold
    is reported, and is no error.

    [bold]rlpt experiment --list[/bold]
    [bold]rlpt experiment quickstart_control[/bold]
    [bold]rlpt experiment interleaved --jobs 2[/bold]
    """
    from rlpt.experiment import find_experiment, list_experiments, print_claims, run_experiment

    if show_list or name is None:
        _print_table("experiments", list_experiments())
        return
    print_claims(run_experiment(find_experiment(name), jobs))


@app.command()
def export(
    run: RunFolder,
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="a new folder for the model")],
) -> None:
    """Write a run's newest checkpoint as a transformers model, adapters merged into the weights.

    `transformers.AutoModelForCausalLM.from_pretrained(FOLDER)` reads it.

    [bold]rlpt export runs/quickstart models/quickstart[/bold]
    """
    from rlpt.export import main as write_model

    write_model(run, folder)


Game = Annotated[str, typer.Option("--game", metavar="GAME", help="a game; rlpt tasks --kind game lists them")]
GameLevel = Annotated[int, typer.Option("--level", min=0, help="of the game: its size, where sizes differ")]
Simulations = Annotated[
    int, typer.Option("--search", min=0, metavar="N", help="simulations of a tree search at each move; 0: no search")
]
LeafValues = Annotated[str, typer.Option("--leaf", help="what judges a search's leaves: value (head) or rollouts")]


@app.command()
def play(
    run: RunFolder,
    game: Game = "tic_tac_toe",
    level: GameLevel = 0,
    seat: Annotated[int, typer.Option(min=0, help="yours, from 0 (moves first)")] = 0,
    seed: Annotated[int, typer.Option(help="of the game's opening and of chance in it")] = 0,
    search: Simulations = 0,
    leaf: LeafValues = "value",
    temperature: Annotated[float, typer.Option(min=0, help="of the policy's moves; 0: the likeliest")] = 0.0,
) -> None:
    """Play a game against a run's newest checkpoint, here in the terminal.

    Before each of its moves the policy shows what it thinks of all of them, with --search also what it tried.

    [bold]rlpt play runs/experiments/tic_tac_toe/distilled-seed1[/bold]
    [bold]rlpt play runs/mine --game nim --level 2 --seat 1 --search 100[/bold]
    """
    from rlpt.play import main as play_at_terminal

    play_at_terminal(run, game, level, seat, seed, search, leaf, temperature)


@app.command()
def arena(
    players: Annotated[
        list[str],
        typer.Argument(
            metavar="PLAYER PLAYER ...", help="runs' folders, and bots: random, solver, minimax, mcts:simulations=200"
        ),
    ],
    game: Game = "tic_tac_toe",
    level: GameLevel = 0,
    games: Annotated[int, typer.Option(min=2, help="a pair of players; each start is played from both seats")] = 100,
    random_moves: Annotated[int, typer.Option(min=0, help="up to so many of them begin each game")] = 2,
    search: Simulations = 0,
    leaf: LeafValues = "value",
    temperature: Annotated[float, typer.Option(min=0, help="of policies that do not search; 0: the likeliest")] = 0.0,
) -> None:
    """Let checkpoints and bots play each other, and print their Elo ratings with intervals.

    Games are the same whenever the players are: openings and bots' draws are keyed.

    [bold]rlpt arena runs/a runs/b random solver[/bold]
    [bold]rlpt arena runs/a mcts:simulations=100 --game open_spiel.connect_four --search 50 --games 40[/bold]
    """
    from rlpt.arena import main as hold_arena

    hold_arena(players, game, level, games, random_moves, search, leaf, temperature)


@app.command()
def proposals(
    run: RunFolder,
    file: Annotated[Path, typer.Argument(metavar="FILE", help="where to write them, a JSON line each")],
    objective: Annotated[str, typer.Option(help="that proposes; default: the only one that does")] = "",
) -> None:
    """Write the problems that a run's policy made for itself, with their programs, inputs, outputs and solve rates.

    Another run begins with them by `selfplay: {name: propose, initial: FILE}`; they are run again when they are read.

    [bold]rlpt proposals runs/propose proposals.jsonl[/bold]
    """
    from rlpt.proposals import main as export_proposals

    export_proposals(run, file, objective)


@app.command()
def report(run: RunFolder) -> None:
    """Draw a run's learning curves into RUN/learning.png (also while it trains).

    [bold]rlpt report runs/quickstart[/bold]
    """
    from rlpt.report.learning import plot_learning

    typer.echo(str(plot_learning(run)))


@config_app.command()
def show(config: ConfigFile, overrides: Overrides = None) -> None:
    """Print the resolved configuration: bases, file and overrides laid together, defaults filled in.

    [bold]rlpt config show configs/quickstart.yaml optimizer.lr=3e-3[/bold]
    """
    from rlpt.config import dump_config, load_config

    typer.echo(dump_config(load_config(config, overrides or ())), nl=False)


@config_app.command()
def docs(key: Annotated[str, typer.Argument(metavar="[KEY]", help="a key or section, e.g. optimizer.lr")] = "") -> None:
    """Print keys with type, default and meaning.

    [bold]rlpt config docs[/bold]
    [bold]rlpt config docs optimizer[/bold]
    [bold]rlpt config docs objectives.gate.floor[/bold]
    """
    from rlpt.config_reference import describe_keys

    for row in describe_keys(key):
        typer.echo(
            f"{row.key}\n    {row.type}, {row.default}" + (f"\n    {row.description}" if row.description else "")
        )


@tasks_app.command("list")
def list_tasks(
    pattern: Pattern = "",
    kind: Kind = "",
    source: Source = "",
    num_problems: NumProblems = 0,
    fast: Annotated[bool, typer.Option("--fast", help="names and levels, without measuring")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="one JSON list on stdout, and nothing else there")] = False,
) -> None:
    """List what is registered as a task, and measure it: how hard by level, how fast.

    random: how often uniformly random answers are right; reference solver: one that slips once in 100 units of work.

    [bold]rlpt tasks[/bold]
    [bold]rlpt tasks graphs --problems 500[/bold]
    [bold]rlpt tasks --kind game --json[/bold]
    """
    from rlpt import task_browser

    task_browser.list_tasks(pattern, kind, source, num_problems, fast, as_json)


@tasks_app.command("show")
def show_task(
    name: Annotated[str, typer.Argument(metavar="NAME", help="a task, e.g. countdown")],
    level: Annotated[int, typer.Option(help="0 is the easiest")] = 0,
    seed: Annotated[int, typer.Option(help="of the problem")] = 0,
    option: Annotated[list[str] | None, typer.Option(metavar="KEY=VALUE", help="an option of the task")] = None,
) -> None:
    """Print one problem, how it is solved, and what several answers to it are worth.

    [bold]rlpt tasks show countdown --level 3 --seed 7[/bold]
    [bold]rlpt tasks show addition --level 2 --option reversed_answer=true[/bold]
    """
    from rlpt import task_display

    task_display.show_task(name, level, seed, option or ())


@tasks_app.command()
def gallery(
    pattern: Pattern = "",
    kind: Kind = "",
    source: Source = "",
    num_problems: NumProblems = 0,
    out: Annotated[Path, typer.Option(metavar="FILE", help="where to write the page")] = Path(
        "runs/tasks/gallery.html"
    ),
) -> None:
    """Write one HTML page of all tasks, to look at in a browser; it needs no network.

    [bold]rlpt tasks gallery[/bold]
    """
    from rlpt import task_browser

    typer.echo(str(task_browser.build_gallery(pattern, kind, source, num_problems, out)))


def _run_ranks(module: str, arguments: list[str], ranks: int, launch: Any) -> int:
    """Launches ranks, or, where a launcher has already started this process as one, becomes the module."""
    if "RANK" in os.environ:
        os.execv(sys.executable, [sys.executable, "-m", module, *arguments])
    return int(launch(module, arguments, ranks))


def _print_table(title: str, rows: Sequence[tuple[str, ...]], columns: Sequence[str] = ()) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(*columns, title=title, show_header=bool(columns), title_justify="left")
    for row in rows:
        table.add_row(*map(Text, row))
    Console().print(table)


add_cluster_verbs(app, _print_table, _run_ranks)


def main(arguments: list[str] | None = None) -> None:
    """Entry of the console script. A UserError is one line on stderr and its exit code; --debug shows the rest."""
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    if "--debug" in arguments:
        arguments = [argument for argument in arguments if argument != "--debug"]
        os.environ["RLPT_DEBUG"] = "1"  # inherited by the ranks
    try:
        app(arguments)
    except UserError as error:
        if os.environ.get("RLPT_DEBUG") == "1":
            raise
        print(f"error: {error}", file=sys.stderr)
        sys.exit(error.exit_code)


if __name__ == "__main__":
    main()
