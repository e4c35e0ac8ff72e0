"""torchrun on machines that nothing schedules: one script, to be started on each of them."""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from rlpt.errors import ConfigError
from rlpt.launch.rendering import quote, script
from rlpt.launch.spec import LaunchSpec
from rlpt.registry import register

WRITTEN = "Written by `rlpt launch`, which writes it anew each time."


@register("launch target", "torchrun")
@dataclass(frozen=True)
class Torchrun:
    """`rendezvous`: c10d, where a node that comes back joins the others, or static. `master`: the name of node 0."""

    rendezvous: Literal["static", "c10d"] = "c10d"
    master: str = ""
    python: str = sys.executable
    workdir: str = ""  # of the checkout, on all nodes; "": where the command is given

    def render(self, spec: LaunchSpec, folder: str) -> dict[str, str]:
        """`node.sh`, the same on all nodes, and the recipe."""
        if spec.image:
            raise ConfigError("--image: torchrun starts processes, not containers; start it inside the container")
        return {
            "node.sh": node_script(spec, folder, self.rendezvous, self.python, self.workdir, spec.restarts),
            "config.yaml": spec.recipe,
        }

    def next_steps(self, spec: LaunchSpec, folder: str) -> list[str]:
        """The command line of each node."""
        path = quote(f"{folder}/node.sh")
        if spec.nodes == 1:
            return [f"bash {path}"]
        master = self.master or "HOST0"
        return [f"NODE_RANK={rank} MASTER_ADDR={master} bash {path}   # on node {rank}" for rank in range(spec.nodes)]

    def start(self, spec: LaunchSpec, folder: str) -> int:
        """Becomes this node's launcher. Raises ConfigError where the environment does not say which node this is."""
        if self.master:
            os.environ.setdefault("MASTER_ADDR", self.master)
        missing = [name for name in ("NODE_RANK", "MASTER_ADDR") if spec.nodes > 1 and not os.environ.get(name)]
        if missing:
            raise ConfigError(
                f"{' and '.join(missing)}: not set; on each of the {spec.nodes} nodes give the same command after "
                "NODE_RANK=I MASTER_ADDR=HOST0, or use --dry-run and start the script that it writes"
            )
        os.execvp("bash", ["bash", str(Path(folder) / "node.sh")])


def node_script(
    spec: LaunchSpec, folder: str, rendezvous: str, python: str, workdir: str, restarts: int, limited: bool = True
) -> str:
    """A script that starts one node's ranks. `limited`: it ends itself after the time limit."""
    if spec.nodes == 1:
        words = ["--standalone"]
    elif rendezvous == "static":
        words = spec.static_rendezvous("<$NODE_RANK>", "<$MASTER_ADDR>", "<$MASTER_PORT>")
    else:
        words = spec.elastic_rendezvous("<$MASTER_ADDR>", "<$MASTER_PORT>")
    limit = ["timeout", f"--kill-after={spec.grace}", str(spec.time_limit)] if spec.time_limit and limited else []
    return script(
        "node.sh",
        spec=spec,
        folder=folder,
        written=WRITTEN,
        workdir=workdir or os.getcwd(),
        hosting=spec.hosting("$is_host") if rendezvous == "c10d" else "",
        limited=limited,
        command=[*limit, python, *spec.ranks(words, f"{folder}/config.yaml", restarts)],
    )
