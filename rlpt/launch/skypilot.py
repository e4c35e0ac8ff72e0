"""SkyPilot: a managed job on clouds, started again elsewhere when its machines are taken away."""

from __future__ import annotations

import posixpath
from dataclasses import dataclass
from typing import Any

from rlpt.errors import PREEMPTED_EXIT_CODE
from rlpt.launch.rendering import command_lines, documents, quote
from rlpt.launch.spec import LaunchSpec
from rlpt.launch.torchrun import WRITTEN
from rlpt.registry import register

RECIPE = "~/rlpt-recipe/config.yaml"
SETUP = "python3 -m pip install --quiet -e ."


@register("launch target", "skypilot")
@dataclass(frozen=True)
class SkyPilot:
    """`accelerator`: a name that `sky show-gpus` lists; `bucket`: where runs are kept, mounted at the recipe's run
    folder's parent; `spot`: machines that may be taken away; `infra`: a cloud, a region or a Kubernetes context."""

    accelerator: str = "H100"
    bucket: str = ""
    spot: bool = True
    infra: str = ""
    cpus: int = 0
    python: str = "python3"
    workdir: str = "."  # what is copied to the nodes: the checkout

    def render(self, spec: LaunchSpec, folder: str) -> dict[str, str]:
        """`sky.yaml` and the recipe."""
        resources: dict[str, Any] = {"infra": self.infra} if self.infra else {}
        resources |= {"accelerators": f"{self.accelerator}:{spec.gpus}"} if spec.gpus else {}
        resources |= {"cpus": f"{self.cpus}+"} if self.cpus else {}
        resources |= {"image_id": f"docker:{spec.image}"} if spec.image else {}
        resources["use_spot"] = self.spot
        resources["job_recovery"] = {
            "max_restarts_on_errors": spec.restarts,
            "recover_on_exit_codes": [PREEMPTED_EXIT_CODE],
        }
        mounts: dict[str, Any] = {RECIPE: f"{folder}/config.yaml"}
        if self.bucket:
            target = posixpath.join("~/sky_workdir", posixpath.dirname(spec.run_dir))
            mounts[target] = {"source": self.bucket, "mode": "MOUNT"}
        task = {
            "name": spec.name,
            "num_nodes": spec.nodes,
            "workdir": self.workdir,
            "resources": resources,
            "file_mounts": mounts,
            "envs": dict(spec.environment),
            "setup": f"{SETUP}\n",
            "run": self._run(spec),
        }
        kept = "" if self.bucket else "\nWithout --option bucket=... checkpoints are lost with the machines."
        text = documents(
            f"The run {spec.name}: {spec.world_size} ranks on {spec.nodes} nodes. {WRITTEN}\n"
            f"sky jobs launch --secret WANDB_API_KEY {folder}/sky.yaml{kept}",
            [("", task)],
            {"job_recovery": "Machines that are taken away are always replaced; errors count."},
        )
        return {"sky.yaml": text, "config.yaml": spec.recipe}

    def _run(self, spec: LaunchSpec) -> str:
        """The script of each node."""
        words = ["--standalone"]
        lines = ["set -euo pipefail"]
        if spec.nodes > 1:
            words = spec.static_rendezvous("<$SKYPILOT_NODE_RANK>", "<$MASTER_ADDR>", str(spec.port))
            lines.append('MASTER_ADDR="$(head -n 1 <<< "$SKYPILOT_NODE_IPS")"')
        command = command_lines([self.python, *spec.ranks(words, f"<$HOME>{RECIPE.removeprefix('~')}")])
        return "\n".join([*lines, f"exec {command}", ""])

    def next_steps(self, spec: LaunchSpec, folder: str) -> list[str]:
        """How to start it."""
        return [f"sky jobs launch --secret WANDB_API_KEY {quote(f'{folder}/sky.yaml')}"]

    def start(self, spec: LaunchSpec, folder: str) -> None:
        """Nothing: it costs money, and SkyPilot asks before it spends any."""
