"""Sets off every alert by its own fault, and draws every panel: `make monitoring`.

    python -m bench.monitoring --out runs/monitoring [--bundle BUNDLE]

A real Prometheus (Debian package `prometheus`) scrapes real services, each a process of its own:
the shipped bundle under load, and tiny bundles that are asked for trouble. The rules are those of
docker/prometheus/alerts.yml with their times divided (TIMES), nothing else: a fault of an hour is
not waited for. Before the first fault no alert may fire. Writes alerts.md (which fired, how long
after its fault) and one picture a dashboard; exit code 1 if an alert did not fire or fired before.
"""

import argparse
import contextlib
import json
import re
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import httpx
import yaml

from bench.pictures import DASHBOARDS, Line, draw
from bench.server import free_port, serving
from model_store.quality import QualityLimits
from model_store.reference import write_reference
from service.drift import LEAST_EARLIER, RECENT
from service.settings import newest_bundle
from tests import tiny_bundle
from tests.service.conftest import BETWEEN, BLACK, edited, image, patient
from tests.service.test_drift import exam_as_sent
from tests.service.test_errors import fails_without_red
from tests.tiny_reference import tiny_reference

ROOT = Path(__file__).parents[1]
ALERTS = ROOT / "docker" / "prometheus" / "alerts.yml"
TIMES = {"[15m]": "[30s]", "[1h]": "[240s]", "[1d]": "[240s]"}
"""Windows of the rules → those of this run; what is waited for (`for`) becomes seconds."""
PATIENCE_S = 150.0
Client = httpx.Client


def quickened(rules: str) -> str:
    """Divide the times of the rules."""
    for long, short in TIMES.items():
        rules = rules.replace(long, short)
    return re.sub(r"for: (\d+)m", r"for: \1s", rules)


class Watched:
    """A Prometheus, what it scrapes, and what it says."""

    def __init__(self, folder: Path) -> None:
        """Write its configuration; no service is scraped yet."""
        self.folder = folder
        self._targets = folder / "targets.json"
        self.scrape()
        (folder / "alerts.yml").write_text(quickened(ALERTS.read_text("utf-8")), "utf-8")
        found = {"job_name": "endo-clip", "file_sd_configs": [{"files": [str(self._targets)]}]}
        # A scrape that is late on a busy machine is no fault of the service.
        scrape = {"scrape_interval": "2s", "scrape_timeout": "2s"}
        times = {**scrape, "evaluation_interval": "1s"}
        config = {"global": times, "rule_files": ["alerts.yml"], "scrape_configs": [found]}
        (folder / "prometheus.yml").write_text(yaml.safe_dump(config), "utf-8")
        self.port = free_port()
        self.began = time.time()
        self.client = Client(base_url=f"http://127.0.0.1:{self.port}", timeout=60)

    @property
    def command(self) -> list[str]:
        """What starts it."""
        return [
            "prometheus",
            f"--config.file={self.folder / 'prometheus.yml'}",
            f"--storage.tsdb.path={self.folder / 'data'}",
            f"--web.listen-address=127.0.0.1:{self.port}",
        ]

    def scrape(self, *ports: int) -> None:
        """Scrape these and no others."""
        targets = [f"127.0.0.1:{port}" for port in ports]
        new = self._targets.with_suffix(".new")
        new.write_text(json.dumps([{"targets": targets}]))
        new.replace(self._targets)

    def firing(self) -> dict[str, str]:
        """Name and summary of each alert that fires."""
        alerts = self.client.get("/api/v1/alerts").json()["data"]["alerts"]
        return {
            one["labels"]["alertname"]: one["annotations"]["summary"]
            for one in alerts
            if one["state"] == "firing"
        }

    def lines(self, query: str) -> list[Line]:
        """Give what a query gave since the start, second by second."""
        span = {"start": self.began, "end": time.time(), "step": "2s"}
        answer = self.client.get("/api/v1/query_range", params={"query": query, **span}).json()
        return [
            (one["metric"], [(at - self.began, float(value)) for at, value in one["values"]])
            for one in answer["data"]["result"]
        ]


@contextmanager
def service(
    bundle: Path, port: int, *, files: int = 0, **settings: str
) -> Iterator[tuple[Client, "contextlib.ExitStack"]]:
    """Start a service; gives a client of it, and what ends it before its time.

    Args:
        bundle: that it serves.
        port: where.
        files: most open files, or 0.
        settings: by name.
    """
    chosen = {"bundle": str(bundle), "port": str(port), "log_level": "error", **settings}
    environment = {f"ENDOCLIP_{name.upper()}": value for name, value in chosen.items()}
    command = [sys.executable, "-m", "service"]
    if files:
        command = ["bash", "-c", f'ulimit -n {files}; exec "$@"', "bash", *command]
    ready = "/healthz" if settings.get("health_interval_s") == "3600" else "/readyz"
    with ExitStack() as life:
        life.enter_context(serving(command, port, environment=environment, ready_path=ready))
        client = Client(base_url=f"http://127.0.0.1:{port}", timeout=120)
        life.callback(client.close)
        yield client, life


@dataclass
class Scene:
    """Services under watch, and what happened.

    Attributes:
        watched: the Prometheus.
        folder: for bundles.
        ports: what is scraped.
        fired: alert → (seconds after its fault, summary).
        stop: ends the load.
    """

    watched: Watched
    folder: Path
    ports: list[int] = field(default_factory=list)
    fired: dict[str, tuple[float, str]] = field(default_factory=dict)
    stop: threading.Event = field(default_factory=threading.Event)

    def also(self, port: int) -> None:
        """Scrape one more."""
        self.ports.append(port)
        self.watched.scrape(*self.ports)

    def expect(self, *names: str, fault: Callable[[], object]) -> None:
        """Do what is wrong, and wait for the alerts; one that does not come is told at the end."""
        began = time.monotonic()
        fault()  # on a busy machine this alone may take minutes
        end = time.monotonic() + PATIENCE_S
        while waiting := [name for name in names if name not in self.fired]:
            if time.monotonic() > end:
                say(f"not fired: {', '.join(waiting)}")
                return
            for name, summary in self.watched.firing().items():
                if name in waiting:
                    self.fired[name] = (time.monotonic() - began, summary)
                    say(f"{name} after {self.fired[name][0]:.0f} s: {summary}")
            time.sleep(0.5)


def say(line: str) -> None:
    """Tell the person who started this."""
    print(line, flush=True)


def post(client: Client, task: str, *patients: Mapping[str, Any], **headers: str) -> int:
    """Send patients; gives the status."""
    return client.post(
        f"/v1/{task}", json={"patients": list(patients)}, headers=headers
    ).status_code


def load(scene: Scene, port: int, frames: list[bytes]) -> None:
    """Ask the shipped bundle for everything, again and again, at the pace of a quiet clinic."""
    with Client(base_url=f"http://127.0.0.1:{port}", timeout=120) as client:
        for round_ in range(10_000):
            chosen = [frames[(round_ + step) % len(frames)] for step in range(1 + round_ % 3)]
            task = ("polyp-detection", "malignancy")[round_ % 2]
            point = ("balanced", "sensitivity_first", "specificity_first")[round_ % 3]
            document = {"patients": [patient(*chosen)], "operating_point": point}
            client.post(f"/v1/{task}", json=document)
            if round_ % 5 == 0:
                named = {"patients": [patient(chosen[0])], "labels": "malignancy"}
                client.post("/v1/zero-shot", json=named)
                client.post("/v1/embeddings", json={"texts": [f"polyp number {round_}"]})
            if scene.stop.wait(0.4):
                return


def flood(port: int, frames: list[bytes], until: Callable[[], bool]) -> None:
    """Keep the encode worker of a slow service busy from four sides."""

    def send() -> None:
        exam = patient(*(frames * 11)[:64])
        with Client(base_url=f"http://127.0.0.1:{port}", timeout=300) as client:
            while not until():
                post(client, "polyp-detection", exam)

    threads = [threading.Thread(target=send, daemon=True) for _ in range(4)]
    for thread in threads:
        thread.start()


def exams(client: Client, seeds: range, **change: int) -> None:
    """Send exams as the tiny bundle's reference has them, or changed."""
    for seed in seeds:
        post(client, "polyp-detection", exam_as_sent(seed, **change))


def ruin_frames(client: Client) -> None:
    """Send what a failing lamp, a broken export, another endoscope and a hurry would."""
    mixed = patient(*[image(BLACK)] * 240, *[b"broken"] * 100)
    unclear = [patient(image(BETWEEN)) for _ in range(15)]
    for _ in range(12):
        post(client, "polyp-detection", mixed, *unclear)
        client.post("/v1/malignancy", json={"patients": [mixed]}, headers={"X-Deadline-Ms": "1"})


def hold_open(port: int, count: int, stack: ExitStack) -> None:
    """Connect and say nothing."""
    for _ in range(count):
        with contextlib.suppress(OSError):
            stack.enter_context(socket.create_connection(("127.0.0.1", port), timeout=5))


def tiny(folder: Path, name: str) -> Path:
    """Write a tiny bundle that looks past a cast, with a reference of exams as met."""
    gate = QualityLimits.open_gate().as_dict() | {"min_lit_share": 0.2}
    more = {
        "image_tower.onnx": tiny_bundle.image_tower(blind=True),
        "reference.npz": write_reference(tiny_reference(blind=True)),
    }
    return tiny_bundle.build_tiny_bundle(folder / name, more=more, quality_gate=gate)


def play(scene: Scene, bundle: Path) -> None:
    """Go through all faults, each after the one before."""
    folder = scene.folder
    frames = [path.read_bytes() for path in sorted((ROOT / "examples").glob("*.jpg"))]
    whole = tiny(folder, "whole")
    big, small, ill, broken = (free_port() for _ in range(4))
    with ExitStack() as stack:
        stack.enter_context(service(bundle, big, max_batch="64", encode_threads="1"))
        client, life = stack.enter_context(service(whole, small, files=150, bundles=str(folder)))
        scene.also(small)
        loading = threading.Thread(target=load, args=(scene, big, frames))
        loading.start()
        stack.callback(loading.join)
        stack.callback(scene.stop.set)
        client.post("/v1/admin/models/shadow", json={"bundle": whole.name}).raise_for_status()
        exams(client, range(RECENT + LEAST_EARLIER))
        post(client, "malignancy", patient(image()), patient(image(BETWEEN)))
        time.sleep(20)
        early = scene.watched.firing()
        say(f"before any fault: {len(early)} alerts fire {early or ''}")
        scene.fired |= dict.fromkeys(early, (-1.0, "BEFORE ITS FAULT"))

        scene.expect(
            "EndoClipOpticsDrift", fault=lambda: exams(client, range(500, 500 + RECENT), cast=60)
        )
        scene.expect(
            "EndoClipImagesDrift", fault=lambda: exams(client, range(1000, 1000 + RECENT), shift=52)
        )
        scene.expect(
            "EndoClipPrevalenceDrift",
            fault=lambda: exams(client, range(2000, 2000 + RECENT), more=4),
        )
        scene.expect(
            "EndoClipFramesRejected",
            "EndoClipFramesSetAside",
            "EndoClipUndecided",
            "EndoClipOverloaded",
            fault=lambda: ruin_frames(client),
        )
        scene.expect("EndoClipFilesRunOut", fault=lambda: hold_open(small, 135, stack))
        scene.expect("EndoClipModelsDiffer", fault=lambda: scene.also(big))
        slow = ("EndoClipSlow", "EndoClipSaturated")
        scene.expect(
            *slow,
            fault=lambda: flood(
                big, frames, lambda: set(slow) <= set(scene.fired) or scene.stop.is_set()
            ),
        )
        scene.expect("EndoClipFails", fault=lambda: fail(scene, broken, stack))
        scene.expect(
            "EndoClipNotReady",
            "EndoClipCanariesDeviate",
            fault=lambda: fall_ill(scene, whole, ill, stack),
        )
        scene.expect("EndoClipDown", fault=life.close)
        scene.expect("EndoClipRestarts", fault=lambda: restart(scene, whole))
        scene.expect("EndoClipMissing", fault=lambda: scene.watched.scrape())


def fail(scene: Scene, port: int, stack: ExitStack) -> None:
    """Serve a graph that fails for frames without red, and send such frames."""
    original, tower = tiny_bundle.image_tower, fails_without_red()
    try:
        tiny_bundle.image_tower = lambda *_, **_more: tower
        bundle = tiny(scene.folder, "broken")
    finally:
        tiny_bundle.image_tower = original
    client, _ = stack.enter_context(service(bundle, port))
    scene.also(port)
    time.sleep(4)  # a counter rises from what a scrape has seen
    for _ in range(6):
        post(client, "malignancy", patient(image((40, 60, 180))))
        time.sleep(1)


def fall_ill(scene: Scene, whole: Path, port: int, stack: ExitStack) -> None:
    """Serve a bundle whose record of a canary is not what comes out."""

    def move(document: dict[str, Any]) -> None:
        document["frames"][0]["probability"]["malignancy"] += 0.01

    bundle = edited(whole, scene.folder / "ill", "canaries.json", move)
    stack.enter_context(service(bundle, port, health_interval_s="3600"))
    scene.also(port)


def restart(scene: Scene, bundle: Path) -> None:
    """Start a service six times on one port: discovery may miss the first."""
    port = free_port()
    scene.also(port)
    for _ in range(6):
        with service(bundle, port):
            time.sleep(5)


def report(scene: Scene, names: list[str]) -> str:
    """Write what fired as a table."""
    rows = ["| alert | seconds after its fault | what it said |", "|---|---|---|"]
    for name in names:
        seconds, summary = scene.fired.get(name, (-1.0, "DID NOT FIRE"))
        rows.append(f"| {name} | {seconds:.0f} | {summary} |")
    return "\n".join(rows) + "\n"


def main() -> int:
    """Play, draw, and tell what did not come."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("runs/monitoring"))
    parser.add_argument("--bundle", type=Path, default=None, help="(the newest shipped one)")
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    rules = yaml.safe_load(ALERTS.read_text("utf-8"))["groups"][0]["rules"]
    names = [rule["alert"] for rule in rules]
    with TemporaryDirectory() as scratch:
        watched = Watched(Path(scratch))
        scene = Scene(watched, Path(scratch))
        with serving(watched.command, watched.port, ready_path="/-/ready"):
            play(scene, args.bundle or newest_bundle())
            empty = []
            for board in sorted(DASHBOARDS.glob("*.json")):
                empty += draw(board, watched.lines, args.out / f"{board.stem}.png")
    (args.out / "alerts.md").write_text(report(scene, names), "utf-8")
    say(f"panels without data: {', '.join(empty) or 'none'}\nwritten: {args.out}")
    silent = [name for name in names if scene.fired.get(name, (-1.0, ""))[0] < 0]
    say(f"alerts that fired by their fault: {len(names) - len(silent)} of {len(names)}")
    return 1 if silent else 0


if __name__ == "__main__":
    sys.exit(main())
