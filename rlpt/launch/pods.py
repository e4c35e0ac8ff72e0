"""What the targets on Kubernetes share: the pod of one node, the recipe as a ConfigMap, where files are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rlpt.errors import PREEMPTED_EXIT_CODE, ConfigError
from rlpt.launch.rendering import quote
from rlpt.launch.spec import SECRETS, LaunchSpec

CONTAINER = "node"
RECIPE_FOLDER = "/etc/rlpt"
RECIPE = f"{RECIPE_FOLDER}/config.yaml"
COMMENTS = {
    "terminationGracePeriodSeconds": "Longer than a checkpoint takes: ranks that are told to stop save first.",
    "emptyDir": "Ranks of a node exchange tensors in /dev/shm, which is 64 MiB where nothing is said.",
    "valueFrom": "Only its name stands here; made by: kubectl create secret generic {secret} --from-literal=NAME=VALUE",
}


@dataclass(frozen=True)
class Cluster:
    """`claim`: the PersistentVolumeClaim (ReadWriteMany) with data, tokenizer and runs; it is mounted at `mount`, from
    where the recipe's relative paths count. `secret`: the Secret with WANDB_API_KEY. `cpus` and `memory`: of a node."""

    namespace: str = "default"
    claim: str = "rlpt"
    mount: str = "/workspace"
    secret: str = "rlpt-secrets"
    cpus: int = 0
    memory: str = ""
    shm: str = "16Gi"
    user: int = 1000
    python: str = "python"

    def next_steps(self, spec: LaunchSpec, folder: str) -> list[str]:
        """How to send it to the cluster."""
        files = self.render(spec, folder)
        return [f"kubectl apply -f {quote(f'{folder}/{name}')}" for name in files if name != "config.yaml"]

    def render(self, spec: LaunchSpec, folder: str) -> dict[str, str]:
        raise NotImplementedError

    def start(self, spec: LaunchSpec, folder: str) -> None:
        """Nothing: which cluster kubectl speaks to is a person's choice."""

    def metadata(self, spec: LaunchSpec) -> dict[str, Any]:
        return {"name": spec.name, "namespace": self.namespace, "labels": {"app.kubernetes.io/name": "rlpt"}}

    def config_map(self, spec: LaunchSpec) -> tuple[str, Mapping[str, Any]]:
        """The recipe, as the ranks read it."""
        metadata = {**self.metadata(spec), "name": f"{spec.name}-recipe"}
        data = {"config.yaml": spec.recipe}
        return "The recipe with its bases and overrides laid together.", {
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": metadata,
            "data": data,
        }

    def comments(self, *extra: tuple[str, str]) -> dict[str, str]:
        return {key: text.format(secret=self.secret) for key, text in [*COMMENTS.items(), *extra]}

    def pod(self, spec: LaunchSpec, rendezvous: Sequence[str], before: Sequence[str] = ()) -> dict[str, Any]:
        """Pod spec of one node. `before`: a program that becomes the command. Raises ConfigError without image."""
        check_image(spec)
        container = {
            "name": CONTAINER,
            "image": spec.image,
            "workingDir": self.mount,
            "command": [*before, self.python, *spec.ranks(rendezvous, RECIPE)],
            "env": self.env(spec),
            "ports": [{"name": "rendezvous", "containerPort": spec.port, "protocol": "TCP"}],
            "resources": self.resources(spec),
            "securityContext": {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}},
            "volumeMounts": self.volume_mounts(),
        }
        return {
            "restartPolicy": "Never",
            "terminationGracePeriodSeconds": spec.grace + 30,
            "securityContext": self.security(),
            "containers": [container],
            "volumes": self.volumes(spec),
        }

    def env(self, spec: LaunchSpec) -> list[dict[str, Any]]:
        """The ranks' environment; secrets by reference."""
        plain: list[dict[str, Any]] = [{"name": name, "value": value} for name, value in spec.environment]
        for name in SECRETS:
            reference = {"name": self.secret, "key": name, "optional": True}
            plain.append({"name": name, "valueFrom": {"secretKeyRef": reference}})
        return plain

    def resources(self, spec: LaunchSpec) -> dict[str, Any]:
        requests: dict[str, Any] = {"cpu": str(self.cpus or spec.processes)}
        if self.memory:
            requests["memory"] = self.memory
        return {"requests": requests, **({"limits": {"nvidia.com/gpu": str(spec.gpus)}} if spec.gpus else {})}

    def security(self) -> dict[str, Any]:
        return {
            "runAsNonRoot": True,
            "runAsUser": self.user,
            "fsGroup": self.user,
            "seccompProfile": {"type": "RuntimeDefault"},
        }

    def volumes(self, spec: LaunchSpec) -> list[dict[str, Any]]:
        return [
            {"name": "files", "persistentVolumeClaim": {"claimName": self.claim}},
            {"name": "recipe", "configMap": {"name": f"{spec.name}-recipe"}},
            {"name": "shm", "emptyDir": {"medium": "Memory", "sizeLimit": self.shm}},
        ]

    def volume_mounts(self) -> list[dict[str, Any]]:
        return [
            {"name": "files", "mountPath": self.mount},
            {"name": "recipe", "mountPath": RECIPE_FOLDER, "readOnly": True},
            {"name": "shm", "mountPath": "/dev/shm"},
        ]


def check_image(spec: LaunchSpec) -> None:
    """Raises ConfigError without an image."""
    if not spec.image:
        raise ConfigError("--image is missing: the container image that holds rlpt, e.g. --image registry/rlpt:1")


def on_exit(action: str, codes: Sequence[int]) -> dict[str, Any]:
    """A rule of a pod failure policy."""
    return {"action": action, "onExitCodes": {"containerName": CONTAINER, "operator": "In", "values": list(codes)}}


def on_disruption(action: str) -> dict[str, Any]:
    """A rule for pods that the cluster took away: preemption, eviction, a drained node."""
    return {"action": action, "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}]}


def indexed_job(
    spec: LaunchSpec, pod: Mapping[str, Any], backoff_limit: int, interrupted: str, subdomain: str = ""
) -> dict[str, Any]:
    """Spec of a Job whose pods are the nodes. `interrupted`: what becomes of it when a pod is preempted, or its ranks
    saved because another was."""
    rules = [on_disruption(interrupted), on_exit(interrupted, [PREEMPTED_EXIT_CODE])]
    limit = {"activeDeadlineSeconds": spec.time_limit} if spec.time_limit else {}
    return {
        "completionMode": "Indexed",
        "completions": spec.nodes,
        "parallelism": spec.nodes,
        "backoffLimit": backoff_limit,
        **limit,
        "podFailurePolicy": {"rules": [*rules, on_exit("FailJob", spec.fatal_codes)]},
        "template": {"spec": {**({"subdomain": subdomain} if subdomain else {}), **pod}},
    }
