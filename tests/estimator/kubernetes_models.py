"""Checks objects of Kubernetes by the systems' own models; run by the python of an environment that has them.

Reads a list of objects (JSON) on standard input and prints a list of complaints. Core kinds: kubernetes-validate, strict, so that a
field that does not exist is a complaint. JobSet: the models of kubeflow-trainer-api, read and written back, so that what they do not
know is missing afterwards; its Jobs as core kinds. TFJob: the models of kubeflow-training, member by member; its pods as core kinds.
"""

import json
import sys

import kubernetes_validate
from kubeflow.training import models as training
from kubeflow_trainer_api.models.jobset_v1alpha2_job_set import JobsetV1alpha2JobSet
from kubernetes.client import models as core

VERSION = "1.31"


def check_core(thing, where):
    try:
        kubernetes_validate.validate(thing, VERSION, strict=True)
    except kubernetes_validate.ValidationError as error:
        yield f"{where}: {'/'.join(map(str, error.path))}: {error.message}"


def differences(ours, theirs, path):
    if isinstance(ours, dict) and isinstance(theirs, dict):
        for name, value in ours.items():
            yield from differences(value, theirs[name], f"{path}.{name}") if name in theirs else [f"{path}.{name} is not known"]
    elif isinstance(ours, list) and isinstance(theirs, list) and len(ours) == len(theirs):
        for index, value in enumerate(ours):
            yield from differences(value, theirs[index], f"{path}[{index}]")
    elif ours != theirs and str(ours) != str(theirs):
        yield f"{path}: {ours!r} is read as {theirs!r}"


def check_jobset(thing, where):
    if thing["apiVersion"] != "jobset.x-k8s.io/v1alpha2":
        yield f"{where}: apiVersion {thing['apiVersion']}"
    read = JobsetV1alpha2JobSet.from_dict(thing)
    yield from differences(thing, json.loads(read.to_json()), where)
    for part in thing["spec"]["replicatedJobs"]:
        job = {"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": "x"}, "spec": part["template"]["spec"]}
        yield from check_core(job, f"{where}.{part['name']}")


def check_members(value, kind, path):
    """By the generated classes: `kind` is a class's name, list[KIND], dict(str, KIND), or a plain type."""
    if kind.startswith("list["):
        for index, one in enumerate(value):
            yield from check_members(one, kind[5:-1], f"{path}[{index}]")
    elif kind.startswith("dict("):
        for name, one in value.items():
            yield from check_members(one, kind[5:-1].split(", ")[1], f"{path}.{name}")
    else:
        model = getattr(training, kind, None) or getattr(core, kind, None)
        if model is None:
            expected = {"str": str, "int": int, "bool": bool, "float": (int, float)}.get(kind, object)
            if not isinstance(value, expected):
                yield f"{path}: {value!r} is no {kind}"
            return
        members = {json_name: model.openapi_types[name] for name, json_name in model.attribute_map.items()}
        for name, one in value.items():
            yield from check_members(one, members[name], f"{path}.{name}") if name in members else [f"{path}.{name} is not known"]


def check_tfjob(thing, where):
    yield from check_members(thing, "KubeflowOrgV1TFJob", where)
    for kind, part in thing["spec"]["tfReplicaSpecs"].items():
        pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "x"},
               "spec": {**part["template"]["spec"], "restartPolicy": part["restartPolicy"]}}
        yield from check_core(pod, f"{where}.{kind}")
        if "tensorflow" not in [container["name"] for container in part["template"]["spec"]["containers"]]:
            yield f"{where}.{kind}: no container is called tensorflow"


def main():
    complaints = []
    for thing in json.load(sys.stdin):
        check = {"JobSet": check_jobset, "TFJob": check_tfjob}.get(thing["kind"], check_core)
        complaints += check(thing, f"{thing['kind']} {thing['metadata'].get('name', '')}")
    json.dump(complaints, sys.stdout)


if __name__ == "__main__":
    main()
