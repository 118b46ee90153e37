import csv
import statistics
import time
from collections import Counter
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageFilter

from model_store.errors import BundleCorrupt
from model_store.images import InputContract, preprocess
from model_store.quality import OPTICS, AbstainReason, QualityLimits, assess, examine, measures
from training.defects import SPOILERS, STRANGERS
from training.phantom_render import draw_frame, random_lesion, random_spec

DEV = Path(__file__).resolve().parents[3] / "shared" / "data" / "colonoscopy" / "dev"
needs_real_frames = pytest.mark.skipif(
    not (DEV / "index.csv").is_file(), reason="no real frames beside the repository"
)
SQUASH = InputContract(
    size=224,
    resize="squash",
    interpolation="bicubic",
    mean=(0.5, 0.5, 0.5),
    std=(0.5, 0.5, 0.5),
    jpeg="full",
)
SHORTEST = InputContract(
    size=224,
    resize="shortest",
    interpolation="bicubic",
    mean=(0.5, 0.5, 0.5),
    std=(0.5, 0.5, 0.5),
    jpeg="full",
)
LIMITS = QualityLimits()


def mucosa(rng: np.random.Generator, side: int = 224) -> np.ndarray:
    """Pink texture at several scales under uneven light: the least that passes for a frame."""
    field = np.zeros((side, side))
    for cells, weight in ((4, 30.0), (12, 18.0), (40, 12.0), (110, 8.0)):
        grid = Image.fromarray(rng.standard_normal((cells, cells)).astype(np.float32))
        field += weight * np.asarray(grid.resize((side, side), Image.Resampling.BICUBIC))
    tint = np.array([185.0, 105.0, 85.0]) / 185.0
    return np.clip((150.0 + field)[..., None] * tint, 0, 255).astype(np.uint8)


def test_textured_mucosa_passes():
    assert assess(mucosa(np.random.default_rng(0)), LIMITS) is None


def test_black_frame_is_dark():
    assert assess(np.zeros((224, 224, 3), np.uint8), LIMITS) is AbstainReason.DARK


def test_white_frame_has_no_tint_and_is_not_endoscopic():
    white = np.full((224, 224, 3), 255, np.uint8)
    assert assess(white, LIMITS) is AbstainReason.NOT_ENDOSCOPIC


def test_flat_pink_frame_is_blurred():
    flat = np.empty((224, 224, 3), np.uint8)
    flat[:] = (190, 110, 90)
    assert assess(flat, LIMITS) is AbstainReason.BLURRED


@pytest.mark.parametrize("reason", sorted(SPOILERS))
def test_spoiled_mucosa_is_set_aside_for_its_own_reason(reason: str):
    rng = np.random.default_rng(3)
    for spoil in SPOILERS[reason].values():
        frame = spoil(Image.fromarray(mucosa(rng, 512)), rng)
        assert assess(preprocess(frame, SQUASH), LIMITS) == reason


@pytest.mark.parametrize("contract", [SQUASH, SHORTEST], ids=["squash", "shortest"])
@pytest.mark.parametrize("kind", sorted(STRANGERS))
def test_drawn_strangers_are_not_endoscopic(kind: str, contract: InputContract):
    rng = np.random.default_rng(4)
    found = [assess(preprocess(STRANGERS[kind](rng), contract), LIMITS) for _ in range(60)]
    assert found.count(AbstainReason.NOT_ENDOSCOPIC) >= 0.90 * len(found), Counter(found)


@pytest.mark.parametrize("size", [(256, 256), (640, 512)])
def test_drawn_phantom_frames_pass(size: tuple[int, int]):
    rng = np.random.default_rng(9)
    for index in range(20):
        lesions = (random_lesion(rng),) if index % 2 else ()
        frame = draw_frame(random_spec(rng, lesions), rng, size)
        assert assess(preprocess(frame, SQUASH), LIMITS) is None, index


def test_open_gate_lets_everything_pass():
    rng = np.random.default_rng(5)
    for draw in STRANGERS.values():
        assert assess(preprocess(draw(rng), SQUASH), QualityLimits.open_gate()) is None
    assert assess(np.zeros((224, 224, 3), np.uint8), QualityLimits.open_gate()) is None


@pytest.mark.parametrize("value", [0, 127, 255])
def test_measures_of_a_flat_frame_are_finite_shares(value: int):
    found = measures(np.full((224, 224, 3), value, np.uint8))
    shares = {"burnt_share", "lit_share", "tinted_share", "warm_share"}
    assert set(found) == shares | set(OPTICS)
    assert all(0.0 <= number <= 1.0 + 1e-6 for number in found.values())


def test_measures_stay_within_their_range_on_noise():
    noise = np.random.default_rng(6).integers(0, 256, (224, 224, 3), dtype=np.uint8)
    found = measures(noise)
    ratios = {name: found.pop(name) for name in ("red_over_green", "blue_over_green")}
    assert all(0.0 <= number <= 1.0 for number in found.values()), found
    assert ratios == pytest.approx(dict.fromkeys(ratios, 1.0), abs=0.02)


def test_optics_are_those_of_plain_loops():
    pixels = mucosa(np.random.default_rng(9))
    seen = [tuple(map(int, pixels[y, x])) for y in range(0, 224, 2) for x in range(0, 224, 2)]
    red, green, blue = (sum(pixel[at] for pixel in seen) / len(seen) for at in range(3))
    luma = [(0.299 * r + 0.587 * g + 0.114 * b) / 255 for r, g, b in seen]
    plain = {
        "red_over_green": red / green,
        "blue_over_green": blue / green,
        "brightness": statistics.fmean(luma),
        "contrast": statistics.pstdev(luma),
    }
    reason, optics = examine(pixels, LIMITS)
    found = dict(zip(OPTICS, optics.tolist(), strict=True))
    measured = measures(pixels)
    assert found == pytest.approx(plain | {name: measured[name] for name in OPTICS[4:]}, rel=1e-4)
    assert (reason, optics.dtype) == (assess(pixels, LIMITS), np.float32)


def test_each_disturbance_moves_the_optics_that_stand_for_it():
    pixels = mucosa(np.random.default_rng(10))
    plain = measures(pixels)

    def moved(other: np.ndarray) -> dict[str, float]:
        found = measures(np.clip(other, 0, 255).astype(np.uint8))
        return {name: found[name] / plain[name] for name in OPTICS}

    cast = moved(pixels * np.array([0.8, 1.0, 1.2]))
    assert cast["red_over_green"] == pytest.approx(0.8, abs=0.03)
    assert cast["blue_over_green"] == pytest.approx(1.2, abs=0.03)
    dim = moved(pixels * 0.6)
    assert (dim["brightness"], dim["contrast"]) == pytest.approx((0.6, 0.6), abs=0.03)
    assert dim["red_over_green"] == pytest.approx(1.0, abs=0.03)
    soft = Image.fromarray(pixels).filter(ImageFilter.GaussianBlur(2))
    blurred = moved(np.asarray(soft, np.float64))
    assert blurred["detail"] < 0.95
    assert blurred["brightness"] == pytest.approx(1.0, abs=0.02)


def test_optics_of_a_frame_without_any_green_are_finite():
    black = np.zeros((224, 224, 3), np.uint8)
    magenta = np.full((224, 224, 3), (255, 0, 255), np.uint8)
    for pixels in (black, magenta):
        assert np.isfinite(examine(pixels, LIMITS)[1]).all()


def test_measuring_leaves_the_pixels_alone():
    pixels = mucosa(np.random.default_rng(7))
    before = pixels.copy()
    measures(pixels)
    assert np.array_equal(pixels, before)


def test_limits_survive_the_manifest():
    assert QualityLimits.of(LIMITS.as_dict()) == LIMITS


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"min_detail": None}, "min_detail"),
        ({"min_detail": True}, "min_detail"),
        ({"min_warm_share": 1.5}, "min_warm_share"),
        ({"min_warm_share": float("nan")}, "min_warm_share"),
        ({"sharpness": 0.5}, "sharpness"),
    ],
)
def test_senseless_limits_are_refused_by_name(change: dict[str, float], named: str):
    with pytest.raises(BundleCorrupt, match=named):
        QualityLimits.of({**LIMITS.as_dict(), **change})


def test_missing_limit_is_refused():
    values = LIMITS.as_dict()
    del values["min_detail"]
    with pytest.raises(BundleCorrupt, match="quality_gate"):
        QualityLimits.of(values)


def test_gate_costs_under_a_millisecond_or_little_more():
    pixels = mucosa(np.random.default_rng(8))
    times = []
    for _ in range(60):
        start = time.thread_time()
        assess(pixels, LIMITS)
        times.append(time.thread_time() - start)
    # 0.6 ms measured on one core; the fastest of many leaves room for a busy machine.
    assert min(times) < 0.003


# ---- what the default limits are worth on real frames --------------------------------------------


@cache
def rows() -> list[dict[str, str]]:
    with (DEV / "index.csv").open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def opened(row: dict[str, str]) -> Image.Image:
    with Image.open(DEV / row["file"]) as image:
        return image.convert("RGB")


@cache
def polyp_reasons(kind: str, resize: str) -> dict[str, Counter[str | None]]:
    contract = SQUASH if resize == "squash" else SHORTEST
    found: dict[str, Counter[str | None]] = {}
    for row in rows():
        if row["label"] == "polyp" and row["kind"] == kind:
            reason = assess(preprocess(opened(row), contract), LIMITS)
            found.setdefault(row["source_dataset"], Counter())[reason] += 1
    return found


@needs_real_frames
@pytest.mark.parametrize(
    ("kind", "resize"), [("frame", "squash"), ("frame", "shortest"), ("crop", "squash")]
)
def test_99_of_100_real_polyp_views_are_scored(kind: str, resize: str):
    by_source = polyp_reasons(kind, resize)
    total = sum(by_source.values(), Counter())
    assert total[None] >= 0.99 * total.total(), by_source
    for source, found in by_source.items():
        assert found[None] >= 0.99 * found.total(), (source, found)


@needs_real_frames
@pytest.mark.parametrize(
    ("reason", "defect"),
    [(reason, defect) for reason, defects in SPOILERS.items() for defect in defects],
)
@pytest.mark.parametrize("resize", ["squash", "shortest"])
def test_90_of_100_generated_defects_are_caught(reason: str, defect: str, resize: str):
    rng = np.random.default_rng(11)
    polyps = [row for row in rows() if row["label"] == "polyp"]
    contract = SQUASH if resize == "squash" else SHORTEST
    found: Counter[str | None] = Counter()
    for index in rng.choice(len(polyps), 120, replace=False):
        spoiled = SPOILERS[reason][defect](opened(polyps[index]), rng)
        found[assess(preprocess(spoiled, contract), LIMITS)] += 1
    assert found[AbstainReason(reason)] >= 0.90 * found.total(), found


@needs_real_frames
def test_non_informative_frames_of_other_sources_are_set_aside_more_often_than_normal_ones():
    held_out = [row for row in rows() if row["source_dataset"].startswith(("EndoAngel", "Gastro"))]
    found = {"non-informative": Counter(), "normal": Counter()}
    for row in held_out:
        passed = assess(preprocess(opened(row), SQUASH), LIMITS) is None
        found[row["label"]]["passed" if passed else "caught"] += 1
    recall = found["non-informative"]["caught"] / found["non-informative"].total()
    false_alarms = found["normal"]["caught"] / found["normal"].total()
    # Reported rather than demanded: most of these frames are stool, fluid and red-out in focus,
    # which this gate does not look for. No limit was chosen by them.
    print(f"non-informative set aside: {recall:.2f}; normal set aside: {false_alarms:.2f}")  # noqa: T201
    assert recall > false_alarms, found
