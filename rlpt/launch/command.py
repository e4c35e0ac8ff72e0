"""The verb `rlpt launch`."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

TargetName = Annotated[
    str, typer.Argument(metavar="TARGET", help="torchrun, slurm, kubernetes, jobset, trainjob or skypilot")
]
Recipe = Annotated[Path, typer.Argument(metavar="CONFIG", help="a recipe, e.g. configs/quickstart.yaml")]
Overrides = Annotated[list[str] | None, typer.Argument(metavar="[KEY=VALUE]...", help="overrides of the recipe")]


Nodes = Annotated[int, typer.Option(min=1, help="machines")]
Ranks = Annotated[
    int | None,
    typer.Option(
        "--gpus-per-node",
        "-g",
        min=1,
        help="ranks on each, one a GPU (device.kind=cpu: without GPUs); default: where parallel.data is set, what "
        "parallel.* leaves for each node",
    ),
]
Time = Annotated[str, typer.Option(help="time limit: of an attempt (slurm, jobset), else of the run; 12h, 1-06:00:00")]
Partition = Annotated[str, typer.Option(help="of Slurm; the same as --option partition=NAME")]
Image = Annotated[str, typer.Option(help="container image with rlpt; Kubernetes needs one")]
Env = Annotated[
    list[str] | None,
    typer.Option(metavar="NAME=VALUE", help="of the ranks, beside those of rlpt/launch/environment.yaml"),
]
Option = Annotated[
    list[str] | None, typer.Option("--option", "-o", metavar="KEY=VALUE", help="an option of the target, see above")
]
Restarts = Annotated[int, typer.Option(min=0, help="failed attempts after which it is tried again")]
Grace = Annotated[
    int, typer.Option(min=1, help="seconds between the order to save and the end; longer than a checkpoint takes")
]
Port = Annotated[int, typer.Option(min=1024, max=65535, help="of node 0, where the nodes meet")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="write the files and say what starts them")]
Out = Annotated[Path | None, typer.Option(metavar="FOLDER", help="where the files go; default RUN/launch/TARGET")]


def launch(
    target: TargetName,
    config: Recipe,
    overrides: Overrides = None,
    nodes: Nodes = 1,
    gpus_per_node: Ranks = None,
    time: Time = "",
    partition: Partition = "",
    image: Image = "",
    env: Env = None,
    option: Option = None,
    restarts: Restarts = 20,
    grace: Grace = 120,
    port: Port = 29500,
    dry_run: DryRun = False,
    out: Out = None,
) -> None:
    """Start a recipe on many nodes: write the files that the cluster wants, and hand them over.

    The files are short and commented; read them first, or change them and submit them yourself:

    [bold]rlpt launch slurm configs/quickstart.yaml --nodes 2 --gpus-per-node 8 --time 12h --dry-run[/bold]

    The ranks, nodes x gpus-per-node, must be what the recipe's parallel.* asks for. Every attempt goes on from the
    newest good checkpoint. Exit codes 2, 3, 4 and 78 end the job, because the next attempt would end the same way; any
    other failure starts it again. A run that was told to make room saves, leaves RUN/PREEMPTED and comes back.

    [bold]torchrun[/bold]: node.sh, to be started on each machine. Options: rendezvous (static, c10d), master, python,
    workdir.

    [bold]slurm[/bold]: job.sbatch, which requeues itself; submitted with sbatch. Options: partition, account, qos,
    constraint, cpus, memory, mounts, rendezvous, python, workdir.

    [bold]kubernetes[/bold]: an Indexed Job, no operator. Options: namespace, claim, mount, secret, cpus, memory, shm,
    user, python.

    [bold]jobset[/bold]: a JobSet, started anew as a whole. Options as for kubernetes.

    [bold]trainjob[/bold]: a Kubeflow TrainJob. Options as for kubernetes, and runtime.

    [bold]skypilot[/bold]: a managed job on clouds. Options: accelerator, bucket, spot, infra, cpus, python, workdir.

    Secrets are never written: WANDB_API_KEY reaches the ranks from your environment, a Secret, or --secret.
    """
    from rlpt import registry
    from rlpt.config import load_config
    from rlpt.config_files import apply_overrides
    from rlpt.launch import targets  # noqa: F401 (registers)
    from rlpt.launch.spec import Target, make_spec, seconds

    resolved = load_config(config, overrides or ())
    options = apply_overrides({}, option or ()) | ({"partition": partition} if partition else {})
    kind: Target = registry.create("launch target", {**options, "name": target}, f"rlpt launch {target}")
    spec = make_spec(
        resolved,
        nodes,
        gpus_per_node,
        image=image,
        time_limit=seconds(time) if time else 0,
        grace=grace,
        restarts=restarts,
        port=port,
        extra=env or (),
        environ=os.environ,
    )
    folder = (out or resolved.directory / "launch" / target).absolute()
    _write(folder, kind.render(spec, str(folder)))
    if resolved.parallel.tensor > spec.processes:
        typer.echo(
            f"note: parallel.tensor={resolved.parallel.tensor} spans nodes of {spec.processes} ranks; its ranks talk "
            "at every layer and belong on one node",
            err=True,
        )
    code = None if dry_run else kind.start(spec, str(folder))
    if code is not None:
        raise typer.Exit(code)
    typer.echo("\n".join(["start it with:", *(f"  {line}" for line in kind.next_steps(spec, str(folder)))]))


def _write(folder: Path, files: dict[str, str]) -> None:
    from rlpt.errors import ConfigError

    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, text in files.items():
            (folder / name).write_text(text, encoding="utf-8")
            typer.echo(f"wrote {folder / name}")
    except OSError as error:
        raise ConfigError(f"{folder}: can't be written: {error}; name another folder with --out") from None
