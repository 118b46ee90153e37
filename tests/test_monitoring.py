"""Dashboards and alerts: complete, and true of a real service behind a real Prometheus."""

import importlib
import json
import re
import shutil
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from model_store.quality import QualityLimits
from model_store.reference import write_reference
from service.drift import LEAST_EARLIER, RECENT
from service.settings import Settings
from tests.service.conftest import BETWEEN, BLACK, edited, image, patient, running
from tests.service.test_drift import exam_as_sent
from tests.tiny_bundle import PINK, RED, build_tiny_bundle, image_tower
from tests.tiny_reference import tiny_reference
from tests.waiting import wait_until

ROOT = Path(__file__).resolve().parents[1]
ALERTS = ROOT / "docker" / "prometheus" / "alerts.yml"
RULES: list[dict[str, Any]] = yaml.safe_load(ALERTS.read_text("utf-8"))["groups"][0]["rules"]
RUNBOOK = (ROOT / "docs" / "runbooks" / "alerts.md").read_text("utf-8")
METRICS = (ROOT / "docs" / "metrics.md").read_text("utf-8")
EXPRESSIONS = {rule["alert"]: rule["expr"] for rule in RULES}
DASHBOARDS = sorted((ROOT / "docker" / "grafana" / "dashboards").glob("*.json"))
PANELS = [
    pytest.param(panel, id=f"{path.stem}: {panel['title']}")
    for path in DASHBOARDS
    for panel in json.loads(path.read_text("utf-8"))["panels"]
    if panel["type"] != "row"
]


# ---- as written ----------------------------------------------------------------------------------


def test_dashboards_are_what_their_script_writes(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.syspath_prepend(str(ROOT / "docker" / "grafana"))
    written = importlib.import_module("dashboards").written()
    assert {path.name: path.read_text("utf-8") for path in DASHBOARDS} == written


@pytest.mark.parametrize("panel", PANELS)
def test_panel_says_what_it_shows_and_in_which_unit(panel: dict[str, Any]):
    assert len(panel["description"]) > 20
    assert panel["fieldConfig"]["defaults"]["unit"]
    assert panel["targets"]
    assert panel["datasource"]["uid"] == "prometheus"


@pytest.mark.parametrize(
    ("title", "alert"),
    [
        ("Other images", "EndoClipImagesDrift"),
        ("Other prevalence", "EndoClipPrevalenceDrift"),
        ("Other optics", "EndoClipOpticsDrift"),
    ],
)
def test_panel_of_drift_draws_a_line_where_its_alert_fires(title: str, alert: str):
    (panel,) = [one.values[0] for one in PANELS if one.values[0]["title"] == title]
    bounds = set(re.findall(r"<= ([\d.]+)", EXPRESSIONS[alert]))
    line = panel["fieldConfig"]["defaults"]["thresholds"]["steps"][-1]["value"]
    assert [1 / float(bound) for bound in bounds] == [line]


def test_variables_of_queries_are_those_of_their_dashboard():
    for path in DASHBOARDS:
        board = json.loads(path.read_text("utf-8"))
        own = {variable["name"] for variable in board["templating"]["list"]}
        used = set(re.findall(r"\$(\w+)", json.dumps([p.get("targets") for p in board["panels"]])))
        assert used - {"__rate_interval"} <= own, path.name


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule["alert"])
def test_alert_has_a_runbook_a_summary_and_a_severity(rule: dict[str, Any]):
    assert rule["labels"]["severity"] in ("critical", "warning")
    assert rule["annotations"]["summary"]
    anchor = rule["annotations"]["runbook"]
    assert anchor == f"docs/runbooks/alerts.md#{rule['alert'].lower()}"
    section = RUNBOOK.partition(f"\n## {rule['alert']}\n")[2].partition("\n## ")[0]
    assert len(section) > 100


def test_every_runbook_is_of_an_alert():
    assert re.findall(r"^## (.+)$", RUNBOOK, flags=re.MULTILINE) == list(EXPRESSIONS)


def unknown_figures(text: str) -> set[str]:
    return {name for name in re.findall(r"endoclip_\w+", text) if f"`{name}`" not in METRICS}


def test_figures_that_a_runbook_sends_one_to_are_those_of_the_service():
    assert len(re.findall(r"`endoclip_\w+`", RUNBOOK)) >= 5
    assert not unknown_figures(RUNBOOK)
    assert unknown_figures("look at `endoclip_usable_core`") == {"endoclip_usable_core"}


def promtool(*arguments: object) -> subprocess.CompletedProcess[str]:
    if shutil.which("promtool") is None:
        pytest.skip("promtool (Debian package prometheus) is not installed")
    command = ["promtool", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_alerts_fire_by_their_faults_and_not_without():
    done = promtool("test", "rules", ROOT / "tests" / "alerts_test.yml")
    assert done.returncode == 0, done.stdout + done.stderr
    cases = yaml.safe_load((ROOT / "tests" / "alerts_test.yml").read_text("utf-8"))["tests"]
    checks = [check for case in cases for check in case["alert_rule_test"]]
    fired = [check["alertname"] for check in checks if check.get("exp_alerts")]
    assert fired == list(EXPRESSIONS)
    quiet = {check["alertname"] for check in checks if not check.get("exp_alerts")}
    assert quiet == set(EXPRESSIONS)


def test_alert_guard_can_fail(tmp_path: Path):
    rules = ALERTS.read_text("utf-8").replace("endoclip_ready == 0", "endoclip_ready == 2")
    (tmp_path / "alerts.yml").write_text(rules)
    cases = (ROOT / "tests" / "alerts_test.yml").read_text("utf-8")
    cases = cases.replace("../docker/prometheus/alerts.yml", "alerts.yml")
    (tmp_path / "alerts_test.yml").write_text(cases)
    assert "EndoClipNotReady" in promtool("test", "rules", tmp_path / "alerts_test.yml").stderr


@pytest.mark.parametrize("name", ["prometheus.yml", "local.yml"])
def test_configuration_of_prometheus_is_valid(name: str):
    done = promtool("check", "config", ROOT / "docker" / "prometheus" / name)
    assert done.returncode == 0, done.stdout + done.stderr


# ---- as measured ---------------------------------------------------------------------------------

Vector = list[tuple[dict[str, str], float]]
Ask = Callable[[str], Vector]


@pytest.fixture(scope="module")
def scraped(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Ask, httpx.Client, str]]:
    """A Prometheus that scrapes two services: one that works, one whose canaries were changed.

    Yields:
        (asks Prometheus, a client of the working service, that service's instance)
    """
    if shutil.which("prometheus") is None:
        pytest.skip("prometheus (Debian package prometheus) is not installed")
    folder = tmp_path_factory.mktemp("monitoring")
    gate = QualityLimits.open_gate().as_dict() | {"min_lit_share": 0.2}
    more = {
        "image_tower.onnx": image_tower(blind=True),
        "reference.npz": write_reference(tiny_reference(blind=True)),
    }
    bundle = build_tiny_bundle(folder / "tiny", more=more, quality_gate=gate)

    def shift(document: dict[str, Any]) -> None:
        document["frames"][0]["probability"]["malignancy"] += 0.01

    changed = edited(bundle, folder / "changed", "canaries.json", shift)
    with (
        running(Settings(bundle=bundle, bundles=folder)) as up,
        running(Settings(bundle=changed)) as ill,
    ):
        instances = [f"127.0.0.1:{one.port}" for one in (up, ill)]
        with prometheus(folder, instances) as ask:
            yield ask, up.client, instances[0]


@contextmanager
def prometheus(folder: Path, instances: list[str]) -> Iterator[Ask]:
    scrape = {"job_name": "endo-clip", "static_configs": [{"targets": instances}]}
    times = {"scrape_interval": "1s", "evaluation_interval": "1s"}
    config = {"global": times, "rule_files": [str(ALERTS)], "scrape_configs": [scrape]}
    (folder / "prometheus.yml").write_text(yaml.safe_dump(config))
    with socket.create_server(("127.0.0.1", 0)) as free:
        address = f"127.0.0.1:{free.getsockname()[1]}"
    command = [
        "prometheus",
        f"--config.file={folder / 'prometheus.yml'}",
        f"--storage.tsdb.path={folder / 'data'}",
        f"--web.listen-address={address}",
    ]
    with (
        (folder / "prometheus.log").open("w") as log,
        subprocess.Popen(command, stdout=log, stderr=log) as process,
        httpx.Client(base_url=f"http://{address}", timeout=30) as client,
    ):
        try:
            wait_until(lambda: ready(client))
            yield lambda query: vector(client, query)
        finally:
            process.terminate()


def ready(client: httpx.Client) -> bool:
    try:
        return client.get("/-/ready").status_code == 200
    except httpx.TransportError:
        return False


def vector(client: httpx.Client, query: str) -> Vector:
    answer = client.get("/api/v1/query", params={"query": query}).json()
    assert answer["status"] == "success", f"{query}: {answer}"
    result = answer["data"]["result"]
    return [(one["metric"], float(one["value"][1])) for one in result]


FRAMES_OF_EVERY_KIND = 29


def ask_of_every_kind(client: httpx.Client) -> None:
    """Have every figure move: all tasks, points and fates, a refusal, a free text."""
    for task in ("polyp-detection", "malignancy"):
        for point in ("balanced", "sensitivity_first", "specificity_first"):
            patients = [patient(image(RED), image(PINK), image(PINK)), patient(image(PINK))]
            document = {"operating_point": point, "patients": patients}
            assert client.post(f"/v1/{task}", json=document).status_code == 200
    fates = {"patients": [patient(image(), image(BLACK), b"broken"), patient(image(BETWEEN))]}
    assert client.post("/v1/malignancy", json=fates).status_code == 200
    named = {"patients": [patient(image())], "labels": "malignancy"}
    assert client.post("/v1/zero-shot", json=named).status_code == 200
    assert client.post("/v1/embeddings", json={"texts": ["a red frame"]}).status_code == 200
    assert client.post("/v1/malignancy", json=[]).status_code == 422


FRAMES_OF_AN_EXAM = 8


def ask_of_exams(client: httpx.Client, seeds: range, **change: int) -> None:
    """Send exams as the reference's are, or changed."""
    for start in range(seeds.start, seeds.stop, 16):
        chosen = seeds[start - seeds.start :][:16]
        document = {"patients": [exam_as_sent(seed, **change) for seed in chosen]}
        assert client.post("/v1/polyp-detection", json=document).status_code == 200


def be_faulty(client: httpx.Client) -> None:
    """Send what a failing lamp, a broken export, another endoscope and a hurry would."""
    mixed = patient(*[image(BLACK)] * 280, *[b"broken"] * 120)
    unclear = [patient(image(BETWEEN)) for _ in range(10)]
    for _ in range(12):
        document = {"patients": [mixed, *unclear]}
        assert client.post("/v1/polyp-detection", json=document).status_code == 200
        hurried = client.post("/v1/malignancy", json=document, headers={"X-Deadline-Ms": "1"})
        assert hurried.status_code == 504


def expanded(query: str) -> str:
    """Put in what Grafana would: everything chosen, windows that hold all of the test."""
    query = query.replace("$__rate_interval", "5m").replace("$window", "5m")
    query = re.sub(r"\$(instance|task|device|operating_point)\b", ".*", query)
    assert "$" not in query, query
    return query


@pytest.mark.slow
def test_every_panel_and_alert_has_its_data_and_real_faults_set_alerts_off(
    scraped: tuple[Ask, httpx.Client, str],
):
    ask, client, instance = scraped
    frames = f'sum(endoclip_frames_total{{instance="{instance}"}})'
    wait_until(lambda: ask(frames))
    shadow = client.post("/v1/admin/models/shadow", json={"bundle": "tiny"})
    assert shadow.status_code == 200, shadow.text
    for _ in range(6):
        ask_of_every_kind(client)
        time.sleep(0.5)
    exams = RECENT + LEAST_EARLIER
    ask_of_exams(client, range(exams))
    wait_until(lambda: ask(frames)[0][1] == 6 * FRAMES_OF_EVERY_KIND + exams * FRAMES_OF_AN_EXAM)
    time.sleep(2)  # a rate takes two scrapes

    compared = 'endoclip_shadow_decisions_total{of="patient", agreement="same"} > 0'
    wait_until(lambda: len(ask(compared)) == 2)
    assert empty_queries(ask) == ["GPU", "GPU"]
    for name, expression in EXPRESSIONS.items():
        about = [labels.get("instance") for labels, _ in ask(expression)]
        assert instance not in about, f"{name} without a fault"
        if name != "EndoClipMissing":
            looks_at = re.sub(r"\s(>|==|<=) [\d.]+", "", expression)
            assert ask(looks_at), f"{name} looks at nothing"

    drifted = {
        "EndoClipOpticsDrift": {"cast": 60},
        "EndoClipImagesDrift": {"shift": 52},
        "EndoClipPrevalenceDrift": {"more": 4},
    }
    for at, (name, change) in enumerate(drifted.items(), 1):
        assert not ask(EXPRESSIONS[name]), f"{name} before its fault"
        ask_of_exams(client, range(1000 * at, 1000 * at + RECENT), **change)
        wait_until(lambda name=name: ask(EXPRESSIONS[name]))
    be_faulty(client)
    faults = {
        "EndoClipNotReady",
        "EndoClipCanariesDeviate",
        "EndoClipModelsDiffer",
        "EndoClipFramesRejected",
        "EndoClipFramesSetAside",
        "EndoClipUndecided",
        "EndoClipOverloaded",
    }
    wait_until(lambda: faults <= {name for name, query in EXPRESSIONS.items() if ask(query)})


def empty_queries(ask: Ask) -> list[str]:
    """Titles of the panels' queries that give nothing, or no number."""
    return [
        panel["title"]
        for panel in (param.values[0] for param in PANELS)
        for target in panel["targets"]
        if not any(value == value for _, value in ask(expanded(target["expr"])))
    ]
