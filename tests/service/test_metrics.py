"""Figures: the table in the documents is what is sent, no request makes a series, times add up."""

import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from prometheus_client import generate_latest
from prometheus_client.parser import text_string_to_metric_families

from service.bundles import NAMED_TASKS, OPERATING_POINTS
from service.gpu import GpuCollector
from service.metrics import Metrics, Phase
from service.routes import TASKS
from tests.service.conftest import BETWEEN, BLACK, ROOT, Running, Serve, image, patient
from tests.tiny_bundle import PINK, RED

TABLE = (ROOT / "docs" / "metrics.md").read_text(encoding="utf-8")
PNG = {"Content-Type": "image/png"}
STATE: dict[str, Any] = {"ready": True, "faults": (), "canaries": (0.0, 0.001)}
Series = dict[tuple[str, ...], float]


def series(text: str) -> Series:
    """Name and label values (in order of the labels' names) of every sample → its value."""
    return {
        (sample.name, *(value for _, value in sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def scraped(client: httpx.Client) -> Series:
    return series(client.get("/metrics").text)


def shapes(text: str) -> dict[str, tuple[str, frozenset[str]]]:
    """Name of every family, as a query would have it → its type and its labels."""
    found = {}
    for family in text_string_to_metric_families(text):
        name = f"{family.name}_total" if family.type == "counter" else family.name
        labels = {label for sample in family.samples for label in sample.labels} - {"le"}
        found[name] = (family.type, frozenset(labels))
    return found


def documented(table: str) -> dict[str, tuple[str, frozenset[str]]]:
    rows = re.findall(
        r"^\| `(\w+)` \| (counter|gauge|histogram) \|([^|]*)\|", table, flags=re.MULTILINE
    )
    return {name: (kind, frozenset(re.findall(r"`(\w+)`", labels))) for name, kind, labels in rows}


@pytest.fixture
def up(serve: Serve) -> Iterator[Running]:
    with serve() as running:
        yield running


def test_table_of_the_documents_is_what_is_sent(up: Running) -> None:
    sent = shapes(up.client.get("/metrics").text)
    told = {name: row for name, row in documented(TABLE).items() if "_gpu_" not in name}
    assert sent == told


def test_table_guard_can_fail() -> None:
    rows = documented("| `endoclip_a_total` | counter | `b`, `c` | d |")
    assert rows == {"endoclip_a_total": ("counter", frozenset("bc"))}


def test_figures_of_gpus_are_documented_and_none_is_sent_without_one() -> None:
    families = list(GpuCollector().collect())
    told = {name for name in documented(TABLE) if "_gpu_" in name}
    assert {family.name for family in families} == told
    if not any(Path("/dev").glob("nvidia[0-9]*")):
        assert [family.samples for family in families] == [[], [], []]


def test_text_is_the_one_that_the_library_writes() -> None:
    metrics = Metrics(task.name for task in TASKS)
    metrics.expect_decisions(NAMED_TASKS.values(), OPERATING_POINTS, ["full_frame", "left"])
    metrics.name_model("m", 'odd "version"\\', "sha256:0", "CPUExecutionProvider")
    for seconds in (1e-6, 0.5, 1234567.25):
        metrics.observe(Phase.ENCODE, seconds)
    for _ in range(2):  # the second time from what was kept
        moment: dict[str, Any] = {"ready": True, "faults": ["starting"], "wait_s": 0.25}
        pending = {"frames": 3, "bytes": 10**9, "pixels": 0}
        canaries = (float("inf"), 1e-3)
        ours = metrics.render(**moment, canaries=canaries, pending=pending).decode()
        theirs = generate_latest(metrics._registry).decode()
        # The process' own figures move between the two.
        kept = [[x for x in text.split("\n") if "process_" not in x] for text in (ours, theirs)]
        assert kept[0] == kept[1]
        assert 'odd \\"version\\"' in ours


def test_phases_are_documented() -> None:
    phases = TABLE[TABLE.index("## Phases") :]
    assert re.findall(r"^\| `(\w+)` \|", phases, re.MULTILINE) == [*Phase]


def test_units_are_base_units(up: Running) -> None:
    names = shapes(up.client.get("/metrics").text)
    foreign = re.compile(r"_(ms|milliseconds?|us|mib|kb|mb|percent|minutes?)(_|$)")
    assert not [name for name in names if foreign.search(name)]
    assert all(name.endswith("_total") for name, (kind, _) in names.items() if kind == "counter")


def test_no_request_makes_a_series(up: Running) -> None:
    before = scraped(up.client).keys()
    client = up.client
    client.post("/v1/malignancy", json={"patients": [patient(image(), patient_id="dupont")]})
    client.post("/v1/malignancy", json={"patients": [patient(image())], "device": "unheard-of"})
    client.post("/v1/malignancy", json={"patients": [patient(b"x")], "operating_point": "mine"})
    labels = [{"label": name, "prompts": [name]} for name in ("of my own", "another")]
    client.post("/v1/zero-shot", json={"patients": [patient(image())], "labels": labels})
    client.post("/v1/embeddings", json={"texts": ["a word"]})
    client.get("/v1/anything?at=all")
    client.request("BREW", "/v1/malignancy", headers={"X-Request-ID": "dupont"})
    client.post("/v1/polyp-detection", json={"patients": [patient(image(BLACK), b"x")]})
    assert scraped(client).keys() == before


def test_frames_are_counted_by_status_and_reason(up: Running) -> None:
    document = {
        "patients": [patient(image(), b"broken", image(BLACK)), patient(b"", image(BETWEEN))]
    }
    assert up.client.post("/v1/malignancy", json=document).status_code == 200
    assert up.client.post("/v1/malignancy", content=b"", headers=PNG).status_code == 422
    found = scraped(up.client)
    frames = {key[1:]: value for key, value in found.items() if key[0] == "endoclip_frames_total"}
    # Sorted by the labels' names: reason, status.
    assert {key: value for key, value in frames.items() if value} == {
        ("", "scored"): 2,
        ("dark", "abstained"): 1,
        ("unsupported_format", "rejected"): 1,
        ("empty", "rejected"): 2,
    }


def test_decisions_are_counted_by_task_point_and_device(serve: Serve, tmp_path: Path) -> None:
    devices = tmp_path / "devices.json"
    devices.write_text('{"left": [0.0, 0.0, 0.5, 1.0]}')
    with serve(devices=devices) as up:
        document = {
            "operating_point": "sensitivity_first",
            "patients": [
                patient(image(RED), image(PINK)),
                patient(image(PINK)),
                patient(image(BLACK), device="left"),
                patient(image(RED), device="left"),
            ],
        }
        answer = up.client.post("/v1/malignancy", json=document).json()
        up.client.post("/v1/polyp-detection", content=image(BETWEEN), headers=PNG)
        found = scraped(up.client)

    def counted(name: str) -> Series:
        return {key[1:]: value for key, value in found.items() if key[0] == name and value}

    # Sorted by the labels' names: decision, device, operating_point, task.
    assert [one.get("decision") for one in answer["patients"]] == [
        "positive",
        "negative",
        None,
        "positive",
    ]
    at = ("sensitivity_first", "malignancy")
    low = ("abstained", "full_frame", "balanced", "polyp_detection")
    assert counted("endoclip_patient_decisions_total") == {
        ("positive", "full_frame", *at): 1,
        ("negative", "full_frame", *at): 1,
        ("unscored", "left", *at): 1,
        ("positive", "left", *at): 1,
        low: 1,
    }
    assert counted("endoclip_frame_decisions_total") == {
        ("positive", "full_frame", *at): 1,
        ("negative", "full_frame", *at): 2,
        ("positive", "left", *at): 1,
        low: 1,
    }
    assert counted("endoclip_patient_probability_count") == {
        ("full_frame", "malignancy"): 2,
        ("left", "malignancy"): 1,
        ("full_frame", "polyp_detection"): 1,
    }
    probabilities = [
        frame["probability"]
        for one in answer["patients"]
        for frame in one["frames"]
        if frame["status"] == "scored"
    ]
    sums = counted("endoclip_frame_probability_sum")
    assert sums["full_frame", "malignancy"] == pytest.approx(sum(probabilities[:3]))


def test_phases_are_observed_as_often_as_documented_and_make_up_the_request(up: Running) -> None:
    sent = {"patients": [patient(*[image(size=(600, 600))] * 6), patient(image(BLACK))]}
    assert up.client.post("/v1/malignancy", json=sent).status_code == 200
    assert up.client.post("/v1/embeddings", json={"texts": ["red"]}).status_code == 200
    found = scraped(up.client)
    counts = {
        key[1]: value for key, value in found.items() if key[0] == "endoclip_phase_seconds_count"
    }
    batches = found[("endoclip_batch_frames_count",)]
    assert counts == {
        "receive": 2,
        "turn": 7,
        "decode": 7,
        "queue": 6,
        "encode": batches,
        "text": 1,
        "unify": 1,
        "respond": 2,
    }
    assert found[("endoclip_batch_frames_sum",)] == 6
    sums = {key[1]: value for key, value in found.items() if key[0] == "endoclip_phase_seconds_sum"}
    whole = sum(value for key, value in found.items() if key[0] == "endoclip_request_seconds_sum")
    one_by_one = ("receive", "encode", "text", "unify", "respond")
    assert 0 < sum(sums[phase] for phase in one_by_one) < whole
    assert all(value > 0 for value in sums.values())


def test_limits_of_real_time_are_edges_of_the_buckets() -> None:
    metrics = Metrics(["a"])
    for seconds in (0.0769, 0.0771, 0.1199, 0.1201):
        metrics.observe(Phase.ENCODE, seconds)
    pending = {"frames": 0, "bytes": 0, "pixels": 0}
    found = series(metrics.render(**STATE, pending=pending, wait_s=0).decode())
    assert found[("endoclip_phase_seconds_bucket", "0.077", "encode")] == 1
    assert found[("endoclip_phase_seconds_bucket", "0.12", "encode")] == 3


def test_canaries_model_and_process_are_shown(up: Running) -> None:
    found = scraped(up.client)
    assert 0 <= found[("endoclip_canary_deviation",)] <= found[("endoclip_canary_tolerance",)]
    (model,) = [key for key in found if key[0] == "endoclip_model_info"]
    assert {"CPUExecutionProvider", "tiny", "1.0.0"} < set(model)
    assert found[("endoclip_usable_cores",)] >= 1
    if Path("/proc/self/stat").exists():
        assert found[("process_resident_memory_bytes",)] > 10_000_000


def test_scrape_costs_under_20_ms_with_many_devices() -> None:
    metrics = Metrics(task.name for task in TASKS)
    devices = [f"device-{number}" for number in range(10)]
    metrics.expect_decisions(NAMED_TASKS.values(), OPERATING_POINTS, devices)
    pending = {"frames": 1, "bytes": 1, "pixels": 1}
    costs = []
    for _ in range(9):
        # Processor time: on a shared machine the clock would time the others as well.
        started = time.thread_time()
        metrics.render(**STATE, pending=pending, wait_s=0.1)
        costs.append(time.thread_time() - started)
    assert sorted(costs)[4] < 0.02, costs
