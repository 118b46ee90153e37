"""The manifest for KubeRay: its parts are valid for the API, and of one mind with docker/ray.

No package of PyPI, npm or Debian has KubeRay's own schema, so the RayService around the parts is
held against the names of its fields that are used here, which are those of KubeRay's Go types.
"""

import copy
from typing import Any

import kubernetes_validate
import pytest
import yaml

from service.settings import Settings, read_settings
from tests.service.manifests import FOLDER, ROOT, Object
from tests.service.test_kubernetes import VERSIONS

RAY, SERVICE, DISRUPTION = yaml.safe_load_all((FOLDER / "ray.yaml").read_text("utf-8"))
CONFIG = yaml.safe_load((ROOT / "docker" / "ray" / "service.yaml").read_text("utf-8"))
SPEC = RAY["spec"]["rayClusterConfig"]
WORKER = SPEC["workerGroupSpecs"][0]
KNOWN = {
    "spec": {"serveConfigV2", "rayClusterConfig"},
    "cluster": {"rayVersion", "enableInTreeAutoscaling", "headGroupSpec", "workerGroupSpecs"},
    "head": {"rayStartParams", "template"},
    "worker": {"groupName", "replicas", "minReplicas", "maxReplicas", "rayStartParams", "template"},
}


def as_deployment(template: Object) -> Object:
    """A pod template where the API has one, with what it needs around it."""
    template = copy.deepcopy(template)
    labels = template.setdefault("metadata", {}).setdefault("labels", {"app": "x"})
    spec = {"selector": {"matchLabels": labels}, "template": template}
    return {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "x"}, "spec": spec}


def faults(ray: Object) -> list[str]:
    """Fields that KubeRay does not know, of those there are."""
    cluster = ray["spec"]["rayClusterConfig"]
    parts = {
        "spec": ray["spec"],
        "cluster": cluster,
        "head": cluster["headGroupSpec"],
        "worker": cluster["workerGroupSpecs"][0],
    }
    return [f"{name}: {key}" for name, part in parts.items() for key in set(part) - KNOWN[name]]


def served(ray: Object) -> dict[str, Any]:
    config: dict[str, Any] = yaml.safe_load(ray["spec"]["serveConfigV2"])
    return config


def without_numbers(config: dict[str, Any]) -> list[Any]:
    """What is deployed, but for how many replicas there are."""
    applications = copy.deepcopy(config["applications"])
    for deployment in applications[0]["deployments"]:
        deployment.pop("num_replicas", None)
        deployment.get("autoscaling_config", {}).pop("min_replicas", None)
    return list(applications)


@pytest.mark.parametrize("version", VERSIONS)
def test_parts_are_what_the_api_takes(version: str) -> None:
    templates = [SPEC["headGroupSpec"]["template"], WORKER["template"]]
    for one in [SERVICE, DISRUPTION, *map(as_deployment, templates)]:
        assert kubernetes_validate.validate(one, version, strict=True) == version


def test_guard_of_the_api_can_fail() -> None:
    bad = copy.deepcopy(WORKER["template"])
    bad["spec"]["containers"][0]["readinessprobe"] = {}
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(as_deployment(bad), VERSIONS[-1], strict=True)


def test_fields_are_those_of_a_ray_service() -> None:
    assert (RAY["apiVersion"], RAY["kind"]) == ("ray.io/v1", "RayService")
    assert faults(RAY) == []
    bad = copy.deepcopy(RAY)
    bad["spec"]["rayClusterConfig"]["workerGroups"] = []
    assert faults(bad) == ["cluster: workerGroups"]


def test_what_is_served_is_the_configuration_of_serve_run() -> None:
    assert without_numbers(served(RAY)) == without_numbers(CONFIG)


def test_pods_are_found_and_ask_the_service_itself() -> None:
    labels = WORKER["template"]["metadata"]["labels"]
    assert SERVICE["spec"]["selector"] == labels
    assert DISRUPTION["spec"]["selector"]["matchLabels"] == labels
    container = WORKER["template"]["spec"]["containers"][0]
    ports = {port["name"]: port["containerPort"] for port in container["ports"]}
    settings = settings_of(container)
    assert ports["http"] == settings.port
    assert container["readinessProbe"]["httpGet"] == {"path": "/readyz", "port": "http"}
    assert SERVICE["spec"]["ports"][0]["targetPort"] == "http"
    stop = WORKER["template"]["spec"]["terminationGracePeriodSeconds"]
    ingress = served(RAY)["applications"][0]["deployments"][0]
    assert stop > ingress["graceful_shutdown_timeout_s"] > settings.grace_s


def settings_of(container: Object) -> Settings:
    given = {one["name"]: one.get("value", "") for one in container["env"]}
    return read_settings({"ENDOCLIP_HOST": "0.0.0.0"} | given)


def test_workers_have_room_for_what_is_placed_on_them() -> None:
    ingress, encoder = served(RAY)["applications"][0]["deployments"]
    cores = int(WORKER["template"]["spec"]["containers"][0]["resources"]["limits"]["cpu"])
    wanted = ingress["num_replicas"] * ingress["ray_actor_options"]["num_cpus"]
    wanted += encoder["autoscaling_config"]["max_replicas"]
    assert WORKER["maxReplicas"] * cores >= wanted
    assert WORKER["minReplicas"] >= ingress["num_replicas"]


def test_only_the_autoscaler_s_pod_has_a_token_for_the_api() -> None:
    assert SPEC["enableInTreeAutoscaling"] is True
    head, worker = (one["template"]["spec"] for one in (SPEC["headGroupSpec"], WORKER))
    assert head.get("automountServiceAccountToken", True)
    assert worker["automountServiceAccountToken"] is False


def test_version_of_ray_is_the_pinned_one() -> None:
    pins = (ROOT / "requirements" / "ray.txt").read_text("utf-8")
    assert f"ray=={SPEC['rayVersion']} " in pins
