"""JobSet (jobset.x-k8s.io): one Indexed Job that is started anew as a whole."""

from __future__ import annotations

from dataclasses import dataclass

from rlpt.errors import PREEMPTED_EXIT_CODE
from rlpt.launch.pods import Cluster, indexed_job
from rlpt.launch.rendering import documents
from rlpt.launch.spec import LaunchSpec
from rlpt.launch.torchrun import WRITTEN
from rlpt.registry import register

JOB = "nodes"


@register("launch target", "jobset")
@dataclass(frozen=True)
class JobSet(Cluster):
    """Needs the JobSet controller, 0.9 or newer (patterns of failure messages)."""

    def render(self, spec: LaunchSpec, folder: str) -> dict[str, str]:
        """`jobset.yaml`: ConfigMap and JobSet. All pods are made anew together, so that ranks meet statically."""
        host = f"{spec.name}-{JOB}-0-0.{spec.name}"
        rendezvous = spec.static_rendezvous("$(JOB_COMPLETION_INDEX)", host, str(spec.port))
        interrupted = [".*DisruptionTarget.*", f".*exit code {PREEMPTED_EXIT_CODE} .*"]
        jobset = {
            "apiVersion": "jobset.x-k8s.io/v1alpha2",
            "kind": "JobSet",
            "metadata": self.metadata(spec),
            "spec": {
                "network": {"enableDNSHostnames": True, "subdomain": spec.name, "publishNotReadyAddresses": True},
                "failurePolicy": {
                    "maxRestarts": spec.restarts,
                    "rules": [
                        {
                            "name": "preempted",
                            "action": "RestartJobSetAndIgnoreMaxRestarts",
                            "onJobFailureReasons": ["PodFailurePolicy"],
                            "onJobFailureMessagePatterns": interrupted,
                        },
                        {"name": "fatal", "action": "FailJobSet", "onJobFailureReasons": ["PodFailurePolicy"]},
                    ],
                },
                "replicatedJobs": [
                    {
                        "name": JOB,
                        "replicas": 1,
                        "template": {"spec": indexed_job(spec, self.pod(spec, rendezvous), 0, "FailJob")},
                    }
                ],
            },
        }
        text = documents(
            f"The run {spec.name}: {spec.world_size} ranks on {spec.nodes} nodes. {WRITTEN}\n"
            f"kubectl apply -f {folder}/jobset.yaml; kubectl delete -f the same file ends it.\n"
            f"Needs the JobSet controller and the PersistentVolumeClaim {self.claim} (ReadWriteMany).",
            [self.config_map(spec), ("A pod is a node; where one fails, all are made anew.", jobset)],
            self.comments(
                ("failurePolicy", "Other failures restart the set, maxRestarts times."),
                (
                    "podFailurePolicy",
                    "Ends the Job at once in these cases, for the reason that the rules above look for.",
                ),
            ),
        )
        return {"jobset.yaml": text}
