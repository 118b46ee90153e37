"""From drawn raw data to a packed bundle by the one command, killed on the way."""

import csv
import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

pytest.importorskip("torch", reason="needs torch (extra `train`)")
pytest.importorskip("presidio_analyzer", reason="needs presidio-analyzer (extra `train`)")

from model_store.bundle import Bundle
from training.__main__ import main
from training.phantom_hospital import write_hospital
from training.records import read

QUICK = [
    *("cleansing.steps=2", "attunement.steps=2", "unification.steps=2", "bundle.canaries=2"),
    *("bundle.text_precision=fp32", "compute.checkpoint_s=0.01"),
]


@pytest.fixture(scope="module")
def hospital(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("raw") / "hospital"
    write_hospital(out, 72, 7)
    return out


def test_raw_data_holds_identities_labels_and_its_recipe(hospital: Path) -> None:
    with (hospital / "reports.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 72
    assert all(row["patient"] in row["report"] for row in rows)
    assert all(list((hospital / row["folder"]).iterdir()) for row in rows)
    with (hospital / "labels.csv").open(encoding="utf-8", newline="") as file:
        assert {row["lesion"] for row in csv.DictReader(file)} == {"yes", "no"}


@pytest.mark.slow
def test_the_way_from_raw_data_to_a_bundle_survives_two_kills(
    hospital: Path, tmp_path: Path
) -> None:
    out = tmp_path / "run"
    command = [sys.executable, "-m", "training", "run", "--config", str(hospital / "hospital.toml")]
    command += ["--out", str(out)]
    for override in QUICK:
        command += ["--set", override]
    _killed_when(command, out / "0-archive.partial")
    _killed_when(command, out / "2-attunement.partial")
    subprocess.run(command, check=True, timeout=600)
    bundle = Bundle.open(out / "endo-clip-smoke-0.0.0")
    assert bundle.manifest.provenance.extra["archive"] == "ingested"
    assert bundle.manifest.metrics["frames"]["exam"]["polyp_detection"]["positives"] > 0
    assert bundle.manifest.metrics["patients"]["malignancy"]["patients"] > 0
    found = read(out / "0-archive")
    assert not found.errors
    with (hospital / "reports.csv").open(encoding="utf-8", newline="") as file:
        names = {row["patient"].split()[-1] for row in csv.DictReader(file)}
    told = (out / "0-archive" / "records.jsonl").read_text("utf-8")
    told += (bundle.path / "MODEL_CARD.md").read_text("utf-8")
    assert not [name for name in names if name in told]
    assert "pathology" in told


@pytest.mark.slow
def test_labels_that_are_missing_are_asked_for_before_training(
    hospital: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe = hospital / "unlabelled.toml"
    text = (hospital / "hospital.toml").read_text("utf-8")
    recipe.write_text(text[: text.index("[ingest.labels]")], "utf-8")
    code = main(["run", "--config", str(recipe), "--out", str(tmp_path / "run")])
    assert code == 1
    assert "labelled frames with a lesion: 0" in (told := capsys.readouterr().err)
    assert "training sample --archive" in told
    assert not (tmp_path / "run" / "1-cleansing.partial").exists()
    stamp = json.loads((tmp_path / "run" / "0-archive" / "stamp.json").read_text("utf-8"))
    assert stamp["figures"]["records"] == 72


def _killed_when(command: list[str], begun: Path) -> None:
    """Start the command and kill it, without warning, once a stage has begun to work."""
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    deadline = time.monotonic() + 300
    while not begun.is_dir() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.05)
    assert begun.is_dir()
    time.sleep(0.5)
    process.send_signal(signal.SIGKILL)
    process.wait(timeout=30)
