"""Records to an answered request: the smoke recipe on drawn frames, through every real part."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="needs torch (extra `train`)")
pytest.importorskip("open_clip", reason="needs open_clip (extra `train`)")

from fastapi.testclient import TestClient  # noqa: E402

from model_store.bundle import Bundle  # noqa: E402
from model_store.encoder import Encoder  # noqa: E402
from model_store.selftest import self_test  # noqa: E402
from service.app import create_app  # noqa: E402
from service.settings import Settings  # noqa: E402
from training.__main__ import main  # noqa: E402
from training.cleansing import hardest, read_ledger  # noqa: E402
from training.config import load  # noqa: E402
from training.errors import ConfigError, ParityError, StaleInput  # noqa: E402
from training.export import check_parity  # noqa: E402
from training.precision import gate_text  # noqa: E402
from training.runs import archive_digest  # noqa: E402
from training.stages import open_workshop, run_stages  # noqa: E402

ROOT = Path(__file__).parents[2]
SMOKE = ROOT / "training" / "configs" / "smoke.toml"


@pytest.fixture(scope="module")
def run(smoke_run: Path) -> Path:
    return smoke_run


def _bundle(run: Path) -> Bundle:
    return Bundle.open(run / "endo-clip-smoke-0.0.0")


def test_the_bundle_passes_its_own_self_test(run: Path) -> None:
    report = self_test(Encoder(_bundle(run)))
    assert report.max_difference <= report.tolerance


def test_the_bundle_answers_a_patient_over_http(run: Path) -> None:
    frames = [
        ("frames", ("a", (ROOT / "examples" / f"{n}.jpg").read_bytes()))
        for n in ("polyp_1", "normal_1")
    ]
    app = create_app(Settings(bundle=run / "endo-clip-smoke-0.0.0"))
    with TestClient(app) as client:
        assert client.get("/readyz").status_code == 200
        for task in ("polyp-detection", "malignancy"):
            answer = client.post(f"/v1/{task}", files=frames)
            assert answer.status_code == 200
            patient = answer.json()["patients"][0]
            assert patient["frames_scored"] == 2
            assert sum(frame["attention"] for frame in patient["frames"]) == pytest.approx(1.0)
        request = json.dumps(
            {"labels": [{"label": "a", "prompts": ["a polyp"]}, {"label": "b", "prompts": ["x"]}]}
        )
        free = client.post("/v1/zero-shot", files=[*frames, ("request", (None, request))])
        assert free.status_code == 200


def test_evaluate_gives_the_figures_of_the_manifest(run: Path, tmp_path: Path) -> None:
    bundle, out = _bundle(run), tmp_path / "figures.json"
    command = ["evaluate", "--bundle", str(bundle.path), "--archive", str(run / "0-archive")]
    assert main([*command, "--part", "report", "--out", str(out)]) == 0
    fresh = json.loads(out.read_text("utf-8"))
    stored = dict(bundle.manifest.metrics)
    # Drawn frames alone promise nothing about the examples.
    assert stored.pop("examples") == {}
    assert {fresh.pop("measured"), stored.pop("measured")}
    _assert_alike(fresh, stored)


def _assert_alike(fresh: Any, stored: Any) -> None:
    if isinstance(stored, dict):
        assert set(fresh) == set(stored)
        for key in stored:
            _assert_alike(fresh[key], stored[key])
    elif isinstance(stored, list):
        for one, other in zip(fresh, stored, strict=True):
            _assert_alike(one, other)
    elif isinstance(stored, float):
        assert fresh == pytest.approx(stored, abs=1e-9)
    else:
        assert fresh == stored


def test_the_int8_gate_measures_what_free_prompts_would_lose(run: Path) -> None:
    parity = _bundle(run).manifest.provenance.parity
    assert 0.999 <= parity["text_cosine_min"] <= 1.0 + 1e-6
    losses = [value for name, value in parity.items() if name.startswith("text_auroc_loss")]
    assert losses
    assert max(losses) <= 0.002


def test_the_bundle_says_what_it_was_made_from(run: Path) -> None:
    provenance = _bundle(run).manifest.provenance
    assert provenance.extra["impression"] == "in text"
    assert provenance.extra["model"] == "lite0-minilm"
    assert provenance.extra["archive_digest"] == archive_digest(run / "0-archive")


def test_a_finished_run_is_not_redone_and_another_recipe_is_refused(run: Path) -> None:
    shop = open_workshop(load(SMOKE), run / "0-archive")
    assert run_stages(shop, run) == run / "3-unification"
    other = open_workshop(load(SMOKE, ["attunement.tau=0.3"]), run / "0-archive")
    with pytest.raises(StaleInput, match="2-attunement"):
        run_stages(other, run)


def test_backgrounds_of_stage_2_are_those_that_stage_1_takes_for_lesions(
    run: Path, tmp_path: Path
) -> None:
    more = ["attunement.hard_background=1", "attunement.steps=2", "unification.enabled=false"]
    shop = open_workshop(load(SMOKE, more), run / "0-archive")
    run_stages(shop, tmp_path, [run])
    train = shop.part("train")
    free = {frame for exam in train if not exam.positive for frame in exam.frames}
    hard = hardest(read_ledger(tmp_path / "1-cleansing" / "ledger.jsonl"), train)
    assert len(hard) < 0.2 * len(free)
    drawn = free & shop.store._kept.keys()  # stage 1 is the other run's: it decoded nothing here
    assert drawn
    assert drawn <= hard


def test_hard_backgrounds_need_the_ranks_of_cleansing(run: Path, tmp_path: Path) -> None:
    more = ["attunement.hard_background=0.5", "cleansing.enabled=false"]
    shop = open_workshop(load(SMOKE, more), run / "0-archive")
    with pytest.raises(ConfigError, match="hard_background: expected 0 where cleansing is off"):
        run_stages(shop, tmp_path)


def test_parity_holds_and_a_wrong_mean_is_found(run: Path) -> None:
    shop = open_workshop(load(SMOKE), run / "0-archive")
    model, tokenize = shop.towers(run / "3-unification" / "weights.pt")
    frames = np.random.default_rng(1).integers(0, 256, (8, 224, 224, 3), dtype=np.uint8)
    texts = [
        "a polyp",
        "a small red polyp with a granular surface and an indistinct edge",
        "x " * 200,
    ]
    found = check_parity(model, shop.spec, run / "4-export", tokenize, frames, texts)
    assert max(found.values()) <= 1e-5
    with pytest.raises(ParityError, match="image"):
        check_parity(model, shop.spec, run / "4-export", tokenize, frames, texts, (0.4, 0.5, 0.5))


def test_the_precision_gate_refuses_a_coarse_graph() -> None:
    rng = np.random.default_rng(0)
    rows = rng.normal(size=(50, 256)).astype(np.float32)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    assert gate_text(rows, rows)["text_cosine_min"] == pytest.approx(1.0, abs=1e-6)
    coarse = rows + 0.006 * rng.normal(size=rows.shape).astype(np.float32)
    coarse /= np.linalg.norm(coarse, axis=1, keepdims=True)
    with pytest.raises(ParityError, match="lower-precision"):
        gate_text(rows, coarse)


def test_the_ledger_holds_every_frames_scores_and_fate(run: Path) -> None:
    lines = (run / "1-cleansing" / "ledger.jsonl").read_text("utf-8").splitlines()
    rows = [json.loads(line) for line in lines]
    assert all({"record_id", "frame", "round1", "round2", "kept"} <= set(row) for row in rows)
    assert not any(row["kept"] for row in rows if not row["positive"])
    files = list((run / "0-archive" / "frames").rglob("*.jpg"))
    assert len(files) >= len(rows)  # nothing is deleted


def test_an_unknown_recipe_is_one_line_and_exit_code_1(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", "--recipe", "nothing"]) == 1
    assert "error:" in capsys.readouterr().err
