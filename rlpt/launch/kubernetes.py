"""Kubernetes without an operator: an Indexed Job whose pods find each other through a headless Service."""

from __future__ import annotations

from dataclasses import dataclass

from rlpt.launch.pods import Cluster, indexed_job
from rlpt.launch.rendering import documents
from rlpt.launch.spec import LaunchSpec
from rlpt.launch.torchrun import WRITTEN
from rlpt.registry import register


@register("launch target", "kubernetes")
@dataclass(frozen=True)
class Kubernetes(Cluster):
    """Needs nothing but Kubernetes 1.31 or newer."""

    def render(self, spec: LaunchSpec, folder: str) -> dict[str, str]:
        """`job.yaml`: ConfigMap, Service and Job.

        Pods are replaced one by one: nodes meet elastically. Pod 0 keeps the store; when it goes, the others fail, too.
        """
        host = f"{spec.name}-0.{spec.name}"
        rank = '"$JOB_COMPLETION_INDEX" = 0'
        script = f'if [ {rank} ]; then h=1; else h=0; fi; export {spec.hosting("$h")}; exec "$@"'
        pod = self.pod(spec, spec.elastic_rendezvous(host, str(spec.port)), ["sh", "-c", script, "sh"])
        service = {
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": self.metadata(spec),
            "spec": {
                "clusterIP": "None",
                "publishNotReadyAddresses": True,
                "selector": {"batch.kubernetes.io/job-name": spec.name},
                "ports": [{"name": "rendezvous", "port": spec.port, "protocol": "TCP"}],
            },
        }
        job = {
            "apiVersion": "batch/v1",
            "kind": "Job",
            "metadata": self.metadata(spec),
            "spec": indexed_job(spec, pod, spec.restarts * spec.nodes, "Ignore", subdomain=spec.name),
        }
        text = documents(
            f"The run {spec.name}: {spec.world_size} ranks on {spec.nodes} nodes. {WRITTEN}\n"
            f"kubectl apply -f {folder}/job.yaml; kubectl delete -f the same file ends it.\n"
            f"Needs the PersistentVolumeClaim {self.claim} (ReadWriteMany).",
            [
                self.config_map(spec),
                (f"Gives pod I the name {spec.name}-I.{spec.name}, from the moment it is there.", service),
                ("A pod is a node; its index is the node's rank.", job),
            ],
            self.comments(
                (
                    "backoffLimit",
                    "Failures of pods after which it is given up; one failure takes all nodes' ranks down.",
                ),
                (
                    "podFailurePolicy",
                    "The first rule that fits counts: preempted pods, and ranks that saved because of them (85), are\n"
                    "replaced for nothing; errors that would come back end the job.",
                ),
            ),
        )
        return {"job.yaml": text}
