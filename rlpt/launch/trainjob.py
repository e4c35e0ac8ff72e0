"""Kubeflow Trainer v2: a TrainJob that refines the runtime `torch-distributed`."""

from __future__ import annotations

from dataclasses import dataclass

from rlpt.launch.pods import CONTAINER, RECIPE, Cluster, check_image
from rlpt.launch.rendering import documents
from rlpt.launch.spec import LaunchSpec
from rlpt.launch.torchrun import WRITTEN
from rlpt.registry import register


@register("launch target", "trainjob")
@dataclass(frozen=True)
class TrainJob(Cluster):
    """Needs Kubeflow Trainer 2.3 or newer (runtimePatches). How often a job restarts is the runtime's."""

    runtime: str = "torch-distributed"

    def render(self, spec: LaunchSpec, folder: str) -> dict[str, str]:
        """`trainjob.yaml`: ConfigMap and TrainJob. Nodes find each other by PET_* variables that the runtime sets."""
        check_image(spec)
        pod = {
            "terminationGracePeriodSeconds": spec.grace + 30,
            "securityContext": self.security(),
            "containers": [{"name": CONTAINER, "volumeMounts": self.volume_mounts()}],
            "volumes": self.volumes(spec),
        }
        # The runtime has no working directory: the shell goes to where the recipe's relative paths count from.
        command = [*("sh", "-c", 'cd "$0" && exec "$@"', self.mount, self.python), *spec.ranks([], RECIPE)]
        limit = {"activeDeadlineSeconds": spec.time_limit} if spec.time_limit else {}
        patch = {"replicatedJobs": [{"name": CONTAINER, "template": {"spec": {"template": {"spec": pod}}}}]}
        job = {
            "apiVersion": "trainer.kubeflow.org/v1alpha1",
            "kind": "TrainJob",
            "metadata": self.metadata(spec),
            "spec": {
                "runtimeRef": {
                    "apiGroup": "trainer.kubeflow.org",
                    "kind": "ClusterTrainingRuntime",
                    "name": self.runtime,
                },
                **limit,
                "trainer": {
                    "image": spec.image,
                    "command": command,
                    "env": self.env(spec),
                    "numNodes": spec.nodes,
                    "numProcPerNode": spec.processes,
                    "resourcesPerNode": self.resources(spec),
                },
                "runtimePatches": [
                    {"manager": "rlpt.dev/launch", "trainingRuntimeSpec": {"template": {"spec": patch}}}
                ],
            },
        }
        text = documents(
            f"The run {spec.name}: {spec.world_size} ranks on {spec.nodes} nodes. {WRITTEN}\n"
            f"kubectl apply -f {folder}/trainjob.yaml; kubectl delete -f the same file ends it.\n"
            f"Needs Kubeflow Trainer with the runtime {self.runtime} and the PersistentVolumeClaim {self.claim}.",
            [
                self.config_map(spec),
                ("A pod is a node; the runtime numbers them and says how often they restart.", job),
            ],
            self.comments(("runtimePatches", "What is not the trainer's own: volumes, rights, time to save.")),
        )
        return {"trainjob.yaml": text}
