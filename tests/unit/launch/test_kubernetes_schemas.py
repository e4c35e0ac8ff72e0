"""Files for Kubernetes against the schemas of what reads them, offline and strictly: a key that nobody knows fails."""

import subprocess
from collections.abc import Mapping
from functools import cache

import pytest
import yaml
from helpers.launch_specs import render

utils = pytest.importorskip("kubernetes_validate.utils", reason="needs the extra k8s-test")
models = pytest.importorskip("kubeflow_trainer_api.models", reason="needs the extra k8s-test")

utils.schema_contents = cache(utils.schema_contents)  # megabytes, read at each call
VERSION = "1.31"
MODELS = {"JobSet": "JobsetV1alpha2JobSet", "TrainJob": "TrainerV1alpha1TrainJob"}
TARGETS = ["jobset", "kubernetes", "trainjob"]


def check(document):
    """Raises ValueError or a validation error where the document is not what its kind's schema says."""
    kind = document["kind"]
    if kind not in MODELS:
        utils.validate(document, VERSION, strict=True)
        return
    # These models take unknown keys in silence: what they give back lacks them.
    understood = getattr(models, MODELS[kind]).from_dict(document).to_dict()
    if understood != document:
        raise ValueError(f"{kind}: not all of it was understood")
    if kind == "JobSet":
        job = document["spec"]["replicatedJobs"][0]["template"]["spec"]
        check({"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": "one"}, "spec": job})


def documents(target, nodes=2):
    (text,) = render(target, nodes).values()
    return list(yaml.safe_load_all(text))


def paths(value, path=()):
    """Where the keys of the mappings are."""
    items = value.items() if isinstance(value, Mapping) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in items:
        if isinstance(value, Mapping):
            yield (*path, key)
        yield from paths(inner, (*path, key))


@pytest.mark.parametrize("nodes", [1, 12])
@pytest.mark.parametrize("target", TARGETS)
def test_files_are_what_the_schemas_say(target, nodes):
    for document in documents(target, nodes):
        check(document)


FREE = {"metadata", "labels", "data", "selector", "requests", "limits"}  # below these, names are the user's


@pytest.mark.parametrize("target", TARGETS)
def test_a_planted_typo_fails_wherever_it_stands(target):
    planted = set()
    for number, document in enumerate(documents(target)):
        for path in list(paths(document)):
            key = path[-1]
            if path[0] != "spec" or FREE & set(map(str, path[:-1])) or key in planted:
                continue
            broken = documents(target)[number]
            parent = broken
            for step in path[:-1]:
                parent = parent[step]
            parent[f"{key}x"] = parent.pop(key)
            with pytest.raises(Exception, match=r"(?s).+"):
                check(broken)
            planted.add(key)
    assert len(planted) > 30


@pytest.mark.parametrize("target", TARGETS)
def test_a_value_of_the_wrong_type_fails(target):
    document = documents(target)[-1]
    job = document["spec"]
    where = {"kubernetes": (job, "completions"), "trainjob": (job.get("trainer"), "numNodes")}
    parent, key = where.get(target) or (job["replicatedJobs"][0]["template"]["spec"], "completions")
    assert parent[key] == 2
    parent[key] = "two"
    with pytest.raises(Exception, match=r"two|int"):
        check(document)


def test_pods_are_told_to_stop_with_more_time_than_saving_takes():
    (job,) = (one for one in documents("kubernetes") if one["kind"] == "Job")
    pod = job["spec"]["template"]["spec"]
    command = pod["containers"][0]["command"]
    assert f"--shutdown-timeout={pod['terminationGracePeriodSeconds'] - 30}" in command
    assert {"name": "shm", "mountPath": "/dev/shm"} in pod["containers"][0]["volumeMounts"]


def test_pods_meet_where_the_service_says():
    config, service, job = documents("kubernetes", 4)
    spec = job["spec"]
    pod = spec["template"]["spec"]
    command = pod["containers"][0]["command"]
    assert pod["subdomain"] == service["metadata"]["name"]
    assert f"--rdzv-endpoint={job['metadata']['name']}-0.{pod['subdomain']}:29500" in command
    assert service["spec"]["selector"] == {"batch.kubernetes.io/job-name": job["metadata"]["name"]}
    for index, is_host in ((0, 1), (3, 0)):  # the shell that comes first tells who keeps the store
        probe = [*command[:4], "sh", "-c", "echo $PET_RDZV_CONF"]
        done = subprocess.run(probe, env={"JOB_COMPLETION_INDEX": str(index)}, capture_output=True, text=True)
        assert done.stdout == f"timeout=900,is_host={is_host}\n"
    assert (spec["completions"], spec["parallelism"], spec["completionMode"]) == (4, 4, "Indexed")
    assert config["metadata"]["name"] in {v["configMap"]["name"] for v in pod["volumes"] if "configMap" in v}
