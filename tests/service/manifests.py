"""The Kubernetes manifests, read."""

from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / "docker" / "kubernetes"
Object = dict[str, Any]


def loaded(name: str) -> Object:
    """One object of the folder; a second one in a file would be an error of `safe_load`."""
    content: Object = yaml.safe_load((FOLDER / name).read_text("utf-8"))
    return content


KUSTOMIZATION = loaded("kustomization.yaml")
OBJECTS = {name: loaded(name) for name in KUSTOMIZATION["resources"]}
MONITOR = loaded("podmonitor.yaml")
DEPLOYMENT = OBJECTS["deployment.yaml"]


def pod_of(deployment: Object) -> Object:
    pod: Object = deployment["spec"]["template"]["spec"]
    return pod


POD = pod_of(DEPLOYMENT)
CONTAINER = POD["containers"][0]


def environment_of(deployment: Object) -> dict[str, str]:
    """The container's variables, those of Secrets empty as where an optional one is not there."""
    entries = pod_of(deployment)["containers"][0]["env"]
    return {entry["name"]: entry.get("value", "") for entry in entries}
