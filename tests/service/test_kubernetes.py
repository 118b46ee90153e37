"""Kubernetes manifests: valid for the API, locked down, and of one mind with image and service."""

import copy
import re
from collections.abc import Callable
from pathlib import Path

import kubernetes_validate
import pytest
import yaml

from service import __version__
from service.errors import SettingsInvalid
from service.settings import Settings, read_settings
from tests.service.manifests import (
    CONTAINER,
    DEPLOYMENT,
    FOLDER,
    KUSTOMIZATION,
    MONITOR,
    OBJECTS,
    POD,
    ROOT,
    Object,
    environment_of,
    pod_of,
)

# The oldest that has all of preStop's sleep without a gate, and the newest whose schemas are known.
VERSIONS = ("1.34", "1.37")
DOCKERFILE = (ROOT / "docker" / "service.Dockerfile").read_text("utf-8")


# ---- the API -------------------------------------------------------------------------------------


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("name", OBJECTS)
def test_object_is_what_the_api_takes(name: str, version: str) -> None:
    assert kubernetes_validate.validate(OBJECTS[name], version, strict=True) == version


@pytest.mark.parametrize(
    ("name", "right", "wrong"),
    [
        ("deployment.yaml", "readOnlyRootFilesystem", "readonlyRootFilesystem"),
        ("deployment.yaml", "maxSkew: 1", "maxSkew: one"),
        ("service.yaml", "port: 8000", "port: http"),
        ("disruption.yaml", "maxUnavailable", "maxUnavailible"),
        ("autoscaler.yaml", "maxReplicas", "maximumReplicas"),
        ("network.yaml", "podSelector:\n    matchLabels", "podSelector:\n    labels"),
    ],
)
def test_guard_of_the_api_can_fail(name: str, right: str, wrong: str) -> None:
    text = (FOLDER / name).read_text("utf-8")
    assert right in text
    bad = yaml.safe_load(text.replace(right, wrong))
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(bad, VERSIONS[-1], strict=True)


def test_every_file_is_applied_or_said_not_to_be() -> None:
    files = {path.name for path in FOLDER.iterdir()}
    assert files == {*OBJECTS, "kustomization.yaml", "podmonitor.yaml", "ray.yaml"}


# ---- one mind ------------------------------------------------------------------------------------


def strays(objects: dict[str, Object], monitor: Object) -> list[str]:
    """Say which objects do not find the Deployment's pods or their port."""
    deployment = objects["deployment.yaml"]
    labels = deployment["spec"]["template"]["metadata"]["labels"]
    ports = {port["name"] for port in pod_of(deployment)["containers"][0]["ports"]}
    service = objects["service.yaml"]["spec"]
    network = objects["network.yaml"]["spec"]
    selectors = {
        "deployment": deployment["spec"]["selector"]["matchLabels"],
        "service": service["selector"],
        "disruption": objects["disruption.yaml"]["spec"]["selector"]["matchLabels"],
        "network": network["podSelector"]["matchLabels"],
        "monitor": monitor["spec"]["selector"]["matchLabels"],
    } | {
        f"spread over {spread['topologyKey']}": spread["labelSelector"]["matchLabels"]
        for spread in pod_of(deployment)["topologySpreadConstraints"]
    }
    faults = [
        name
        for name, wanted in selectors.items()
        if not wanted or not wanted.items() <= labels.items()
    ]
    asked = {
        "port of service": service["ports"][0]["targetPort"],
        "port of network": network["ingress"][0]["ports"][0]["port"],
        "port of monitor": monitor["spec"]["podMetricsEndpoints"][0]["port"],
    }
    faults += [name for name, port in asked.items() if port not in ports]
    scaled = objects["autoscaler.yaml"]["spec"]["scaleTargetRef"]
    if scaled != {
        "apiVersion": deployment["apiVersion"],
        "kind": deployment["kind"],
        "name": deployment["metadata"]["name"],
    }:
        faults.append("autoscaler")
    return faults


def test_objects_find_the_pods_and_their_port() -> None:
    assert strays(OBJECTS, MONITOR) == []


def test_guard_of_selectors_can_fail() -> None:
    bad = copy.deepcopy(OBJECTS)
    bad["deployment.yaml"]["spec"]["template"]["metadata"]["labels"] = {"app": "other"}
    pod_of(bad["deployment.yaml"])["containers"][0]["ports"][0]["name"] = "web"
    bad["autoscaler.yaml"]["spec"]["scaleTargetRef"]["name"] = "endoclip"
    assert len(strays(bad, MONITOR)) == 5 + 2 + 3 + 1


def unlike(deployment: Object, dockerfile: str) -> list[str]:
    """Say in what the pod is not what the image expects."""
    [user] = re.findall(r"^USER (\d+:\d+)$", dockerfile, re.MULTILINE)
    [exposed] = re.findall(r"^EXPOSE (\d+)$", dockerfile, re.MULTILINE)
    context = pod_of(deployment)["securityContext"]
    ports = pod_of(deployment)["containers"][0]["ports"]
    wanted = {
        "account": f"{context['runAsUser']}:{context['runAsGroup']}" == user,
        "group of files": context["fsGroup"] == context["runAsGroup"],
        "port": [str(port["containerPort"]) for port in ports] == [exposed],
        "listens there": f"ENDOCLIP_HOST=0.0.0.0 ENDOCLIP_PORT={exposed}\n" in dockerfile,
    }
    return [fault for fault, holds in wanted.items() if not holds]


def test_pod_is_what_the_image_expects() -> None:
    assert unlike(DEPLOYMENT, DOCKERFILE) == []


@pytest.mark.parametrize(
    ("right", "wrong", "faults"),
    [
        ("USER 10001:10001", "USER 10002:10001", ["account"]),
        ("USER 10001:10001", "USER 10001:0", ["account"]),
        ("EXPOSE 8000", "EXPOSE 8080", ["port", "listens there"]),
        ("ENDOCLIP_HOST=0.0.0.0", "ENDOCLIP_HOST=127.0.0.1", ["listens there"]),
    ],
)
def test_guard_of_the_image_can_fail(right: str, wrong: str, faults: list[str]) -> None:
    assert right in DOCKERFILE
    assert unlike(DEPLOYMENT, DOCKERFILE.replace(right, wrong)) == faults


def test_image_is_named_once_and_with_its_version() -> None:
    [image] = KUSTOMIZATION["images"]
    assert image["name"] == CONTAINER["image"]
    assert image["newTag"] == __version__


def test_variables_are_settings() -> None:
    settings = read_settings(environment_of(DEPLOYMENT))
    assert settings.keys is not None
    assert not settings.allow_no_keys


def test_variable_that_is_none_is_noticed() -> None:
    bad = copy.deepcopy(DEPLOYMENT)
    pod_of(bad)["containers"][0]["env"].append({"name": "ENDOCLIP_KEY", "value": "x"})
    with pytest.raises(SettingsInvalid, match="ENDOCLIP_KEY is not a setting"):
        read_settings(environment_of(bad))


def test_links_that_would_pass_for_settings_are_off() -> None:
    # What a Service of the name `endoclip` puts into every pod of its namespace.
    with pytest.raises(SettingsInvalid, match="ENDOCLIP_PORT"):
        read_settings({"ENDOCLIP_PORT": "tcp://10.0.0.7:8000"})
    assert POD["enableServiceLinks"] is False


def test_keys_file_is_in_a_mounted_folder() -> None:
    keys = Path(environment_of(DEPLOYMENT)["ENDOCLIP_KEYS"])
    [mount] = [mount for mount in CONTAINER["volumeMounts"] if mount["name"] == "keys"]
    assert mount["mountPath"] == str(keys.parent)
    # A file mounted by itself is never taken over when the Secret changes.
    assert "subPath" not in mount
    [volume] = [volume for volume in POD["volumes"] if volume["name"] == "keys"]
    assert volume["secret"] == {"secretName": "endo-clip-keys", "defaultMode": 0o440}


def untold(manifests: str, documents: str) -> list[str]:
    """Say which Secrets have a value here, or are not told how to be made."""
    faults = ["a Secret"] if re.search(r"^kind: Secret$", manifests, re.MULTILINE) else []
    faults += ["an address with a password"] if re.search(r"://[^\s/]*:[^\s/]*@", manifests) else []
    named = r"(?:secretName|secretKeyRef: {name|credentials: {name): ([\w-]+)"
    return faults + [
        name
        for name in dict.fromkeys(re.findall(named, manifests))
        if f"create secret generic {name} " not in documents
    ]


MANIFESTS = "\n".join(path.read_text("utf-8") for path in sorted(FOLDER.iterdir()))


def test_no_secret_has_a_value_and_each_is_in_the_documents() -> None:
    assert untold(MANIFESTS, (ROOT / "docs" / "operations.md").read_text("utf-8")) == []


def test_guard_of_secrets_can_fail() -> None:
    bad = MANIFESTS + "\nkind: Secret\nstringData: {url: postgresql://me:mine@db/exams}\n"
    assert len(untold(bad, "")) == 2 + 3


# ---- as tight, as patient and as large as the documents say --------------------------------------


def loose(deployment: Object) -> list[str]:
    """Say what is not as tight as Kubernetes' restricted profile and the image allow."""
    pod, container = pod_of(deployment), pod_of(deployment)["containers"][0]
    own, of_all = container["securityContext"], pod["securityContext"]
    wanted = {
        "may be root": of_all.get("runAsNonRoot") is True and of_all.get("runAsUser", 0) > 0,
        "any system call": of_all.get("seccompProfile") == {"type": "RuntimeDefault"},
        "its root can be written": own.get("readOnlyRootFilesystem") is True,
        "it may gain privileges": own.get("allowPrivilegeEscalation") is False,
        "it has capabilities": own.get("capabilities") == {"drop": ["ALL"]},
        "it is privileged": not own.get("privileged"),
        "it has the cluster's token": pod.get("automountServiceAccountToken") is False,
        "it is in the host": not {"hostNetwork", "hostPID", "hostIPC"} & pod.keys(),
        "it mounts the host": all("hostPath" not in volume for volume in pod["volumes"]),
    }
    return [fault for fault, holds in wanted.items() if not holds]


def test_pod_is_locked_down() -> None:
    assert loose(DEPLOYMENT) == []


def test_lock_down_guard_can_fail() -> None:
    bad = copy.deepcopy(DEPLOYMENT)
    pod = pod_of(bad)
    pod |= {"hostNetwork": True, "securityContext": {}, "automountServiceAccountToken": True}
    pod["containers"][0]["securityContext"] = {"privileged": True}
    pod["volumes"].append({"name": "host", "hostPath": {"path": "/"}})
    assert len(loose(bad)) == 9


def doors(network: Object) -> list[str]:
    """Say which rules let everyone in, or everything out."""
    spec = network["spec"]
    faults = [kind for kind in ("Ingress", "Egress") if kind not in spec["policyTypes"]]
    for way, side in (("ingress", "from"), ("egress", "to")):
        for rule in spec[way]:
            peers = [labels for peer in rule.get(side, ()) for labels in peer.values()]
            # A rule without peers, and a peer without labels, is everyone; one without ports, all.
            if not peers or not all(peer.get("matchLabels") for peer in peers):
                faults.append(f"{way} of everyone")
            if not rule.get("ports"):
                faults.append(f"{way} of all ports")
    return faults


def test_only_what_is_named_comes_in_and_goes_out() -> None:
    assert doors(OBJECTS["network.yaml"]) == []


def test_guard_of_doors_can_fail() -> None:
    bad = copy.deepcopy(OBJECTS["network.yaml"])
    bad["spec"]["policyTypes"] = ["Ingress"]
    bad["spec"]["ingress"] = [{"from": [{"podSelector": {}}]}]
    bad["spec"]["egress"] = [{}]
    assert len(doors(bad)) == 5


def hasty(deployment: Object) -> list[str]:
    """Say where the cluster would not wait for what the service does."""
    pod, container = pod_of(deployment), pod_of(deployment)["containers"][0]
    settings = read_settings(environment_of(deployment))
    stop_s = container["lifecycle"]["preStop"]["sleep"]["seconds"] + settings.grace_s
    probes = {name: container[f"{name}Probe"] for name in ("startup", "readiness", "liveness")}
    patience = {
        name: one["periodSeconds"] * one["failureThreshold"] for name, one in probes.items()
    }
    wanted = {
        "stop": pod["terminationGracePeriodSeconds"] > stop_s + settings.drain_s,
        "start": patience["startup"] >= 60,
        # A restart loses what is in flight; a place in the balancer is given back.
        "liveness": patience["liveness"] > patience["readiness"],
        # A failed self-test is final and says why: a restart would take the reason away.
        "restart": all(
            probes[name]["httpGet"]["path"] == "/healthz" for name in ("startup", "liveness")
        ),
        "readiness": probes["readiness"]["httpGet"]["path"] == "/readyz",
    }
    return [fault for fault, holds in wanted.items() if not holds]


def test_cluster_waits_for_the_service() -> None:
    assert hasty(DEPLOYMENT) == []


@pytest.mark.parametrize(
    ("fault", "edit"),
    [
        ("stop", lambda pod, _: pod.update(terminationGracePeriodSeconds=40)),
        ("stop", lambda _, own: own["env"].append({"name": "ENDOCLIP_DRAIN_S", "value": "20"})),
        ("start", lambda _, own: own["startupProbe"].update(failureThreshold=3)),
        ("liveness", lambda _, own: own["livenessProbe"].update(failureThreshold=1)),
        ("restart", lambda _, own: own["livenessProbe"].update(httpGet={"path": "/readyz"})),
        ("readiness", lambda _, own: own["readinessProbe"].update(httpGet={"path": "/healthz"})),
    ],
)
def test_guard_of_waiting_can_fail(fault: str, edit: Callable[[Object, Object], None]) -> None:
    bad = copy.deepcopy(DEPLOYMENT)
    edit(pod_of(bad), pod_of(bad)["containers"][0])
    assert hasty(bad) == [fault]


def tight(deployment: Object) -> list[str]:
    """Say what the pod has too little of, by the formula of docs/operations.md, "Sizing"."""
    resources = pod_of(deployment)["containers"][0]["resources"]
    settings = read_settings(environment_of(deployment))
    cpu, memory = resources["limits"]["cpu"], resources["limits"]["memory"]
    # What is decoded at once, with transparency; the threads follow the quota unless they are set.
    own = "decode_threads" in settings.model_fields_set
    threads = settings.decode_threads if own else max(2, int(float(cpu)))
    worst = 0.4 * 2**30 + 3 * settings.max_pending_bytes + threads * settings.max_frame_pixels * 14
    wanted = {
        "whole cores": cpu.isdecimal(),
        "memory": worst < int(memory.removesuffix("Gi")) * 2**30,
        "asked for in full": resources["requests"] == resources["limits"],
    }
    return [fault for fault, holds in wanted.items() if not holds]


def test_memory_and_cores_are_those_of_the_sizing_table() -> None:
    assert tight(DEPLOYMENT) == []


@pytest.mark.parametrize(
    ("faults", "limits"),
    [
        (["whole cores"], {"cpu": "1.5", "memory": "4Gi"}),
        (["memory"], {"cpu": "2", "memory": "3Gi"}),
        (["memory"], {"cpu": "8", "memory": "4Gi"}),
    ],
)
def test_guard_of_size_can_fail(faults: list[str], limits: dict[str, str]) -> None:
    bad = copy.deepcopy(DEPLOYMENT)
    pod_of(bad)["containers"][0]["resources"] = {"requests": limits, "limits": limits}
    assert tight(bad) == faults


def test_a_second_replica_is_there_whenever_one_goes() -> None:
    spec = OBJECTS["autoscaler.yaml"]["spec"]
    assert spec["minReplicas"] > OBJECTS["disruption.yaml"]["spec"]["maxUnavailable"]
    assert DEPLOYMENT["spec"]["strategy"]["rollingUpdate"]["maxUnavailable"] == 0
    # Both would write the number of replicas.
    assert "replicas" not in DEPLOYMENT["spec"]


# ---- figures ------------------------------------------------------------------------------------


def test_job_has_the_name_that_alerts_ask_for() -> None:
    labels = DEPLOYMENT["spec"]["template"]["metadata"]["labels"]
    job = labels[MONITOR["spec"]["jobLabel"]]
    alerts = (ROOT / "docker" / "prometheus" / "alerts.yml").read_text("utf-8")
    assert set(re.findall(r'job="([^"]+)"', alerts)) == {job}


def test_defaults_of_the_service_are_those_the_manifest_repeats() -> None:
    assert read_settings(environment_of(DEPLOYMENT)).grace_s == Settings().grace_s
