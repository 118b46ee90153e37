"""Drift: exams count as exams, verdicts reach the figures, nothing of a frame or name stays."""

import math
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path

import httpx
import numpy as np
import pytest

from model_store.bundle import Bundle
from model_store.drift import Shift
from model_store.encoder import Floats
from model_store.images import decode
from model_store.quality import QualityLimits, examine
from model_store.reference import write_reference
from service.drift import IDLE_S, LEAST_EARLIER, LEAST_RECENT, RECENT, Against, Drift
from service.settings import Settings
from tests.service.conftest import Running, as_form, image, patient, running
from tests.service.test_metrics import scraped
from tests.tiny_bundle import CAST, PINK, RED, build_tiny_bundle, image_tower
from tests.tiny_reference import shades, tiny_reference
from tests.waiting import wait_until


class Clock:
    """Seconds that the test moves."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture(scope="module")
def known(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny bundle with a reference of exams as they were met."""
    reference = {"reference.npz": write_reference(tiny_reference())}
    return build_tiny_bundle(tmp_path_factory.mktemp("known") / "tiny", more=reference)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def drift(known: Path, clock: Clock) -> Drift:
    return Drift(Bundle.open(known), ["full_frame", "other"], clock)


def exam(seed: int, more: int = 0, shift: int = 0) -> list[Floats]:
    """Frames of an exam as the reference's are, or with more red ones, or of a shifted colour."""
    rng = np.random.default_rng(seed)
    red = int(rng.integers(1, 4)) + more
    colours = [(r, g + shift, b + shift) for r, g, b in (RED, PINK)]
    return [*shades(colours[0], red, rng), *shades(colours[1], 8 - red, rng)]


def light(frames: Sequence[Floats], seed: int = 0, cast: float = 0.0) -> list[Floats]:
    """Optics of these frames: those of an exam are near each other, `cast` makes it less red."""
    rng = np.random.default_rng([seed, 1])
    own = np.array([1.8, 0.7, 0.4, 0.15, 0.5, 0.8]) * (1 + rng.normal(0, 0.1, 6))
    own[0] -= cast
    rows = own + rng.normal(0, 0.01, (len(frames), 6))
    return list(rows.astype(np.float32))


def send(
    drift: Drift,
    count: int,
    first: int = 0,
    shift: int = 0,
    more: int = 0,
    cast: float = 0.0,
) -> None:
    for seed in range(first, first + count):
        frames = exam(seed, more, shift)
        drift.add("full_frame", "0", 0, frames, light(frames, seed, cast))


# ---- what is one exam ----------------------------------------------------------------------------


def test_a_patient_of_several_frames_without_a_name_is_an_exam(drift: Drift) -> None:
    send(drift, 3)
    assert drift.exams("full_frame") == (3, 0)
    assert drift.exams("other") == (0, 0)


def test_a_named_patient_is_one_exam_however_it_is_sent(drift: Drift, clock: Clock) -> None:
    for frame in exam(0):
        drift.add("full_frame", "p1", 0, [frame], light([frame]))
        clock.now += IDLE_S / 2
    drift.add("full_frame", "p1", 0, exam(1), light(exam(1)))
    assert drift.exams("full_frame") == (0, 0)
    clock.now += IDLE_S
    drift.compare()
    assert drift.exams("full_frame") == (1, 0)


def test_a_video_frame_by_frame_is_one_exam_and_not_thousands(drift: Drift, clock: Clock) -> None:
    for seed in range(300):
        drift.add("other", "0", 0, exam(seed)[:1], light(exam(seed)[:1]))
        clock.now += 0.04
    clock.now += IDLE_S
    drift.add("other", "0", 0, exam(300)[:1], light(exam(300)[:1]))
    assert drift.exams("other") == (1, 0)


def test_an_exam_that_comes_twice_is_counted_once(drift: Drift) -> None:
    send(drift, 5)
    send(drift, 5)
    rounded = [frame + np.float32(1e-7) for frame in exam(3)]
    drift.add("full_frame", "7", 7, rounded, light(rounded))
    drift.add_exam("full_frame", exam(4), light(exam(4)))
    assert drift.exams("full_frame") == (5, 0)


def test_exams_under_way_are_bounded(drift: Drift) -> None:
    for seed in range(300):
        drift.add("full_frame", f"p{seed}", 0, exam(seed), light(exam(seed)))
    recent, earlier = drift.exams("full_frame")
    assert recent + earlier == 300 - 256


def test_devices_are_apart_and_none_is_the_first(drift: Drift) -> None:
    drift.add(None, "0", 0, exam(0), light(exam(0)))
    drift.add("other", "0", 0, exam(0), light(exam(0)))
    assert (drift.exams("full_frame"), drift.exams("other")) == ((1, 0), (1, 0))


def test_no_name_is_kept_and_the_key_differs_from_process_to_process(drift: Drift) -> None:
    drift.add("full_frame", "mueller-1950", 0, exam(0), light(exam(0)))
    assert "mueller" not in repr(vars(drift))
    other = Drift(Bundle.open(drift._bundle.path), ["full_frame"])
    other.add("full_frame", "mueller-1950", 0, exam(0), light(exam(0)))
    assert drift._open.keys() != other._open.keys()


# ---- verdicts ------------------------------------------------------------------------------------


def test_there_is_no_verdict_before_the_least_number_of_exams(drift: Drift) -> None:
    send(drift, LEAST_RECENT - 1)
    drift.compare()
    assert drift.verdicts("full_frame") == {}
    send(drift, 1, first=LEAST_RECENT)
    drift.compare()
    of_reference = {(Against.REFERENCE, one) for one in (Shift.IMAGE, Shift.PREVALENCE)}
    assert set(drift.verdicts("full_frame")) == of_reference
    send(drift, RECENT + LEAST_EARLIER, first=100)
    drift.compare()
    of_earlier = {(Against.EARLIER, one) for one in Shift}
    assert set(drift.verdicts("full_frame")) == of_reference | of_earlier


def test_another_look_is_told_from_more_polyps(drift: Drift) -> None:
    send(drift, 120)
    drift.compare()
    assert min(verdict.p_value for verdict in drift.verdicts("full_frame").values()) > 0.001
    send(drift, RECENT, first=200, shift=40)
    drift.compare()
    moved = drift.verdicts("full_frame")
    for against in Against:
        assert moved[against, Shift.IMAGE].p_value <= 0.001
        assert moved[against, Shift.PREVALENCE].p_value > 0.001
    send(drift, RECENT, first=300, more=4)
    drift.compare()
    more = drift.verdicts("full_frame")
    assert more[Against.EARLIER, Shift.PREVALENCE].p_value <= 0.001
    assert more[Against.REFERENCE, Shift.PREVALENCE].p_value <= 0.001
    assert more[Against.REFERENCE, Shift.IMAGE].p_value > 0.001


def test_optics_tell_a_cast_that_the_embeddings_do_not_show(drift: Drift) -> None:
    send(drift, 120)
    drift.compare()
    assert drift.verdicts("full_frame")[Against.EARLIER, Shift.OPTICS].p_value > 0.001
    send(drift, RECENT, first=200, cast=0.4)
    drift.compare()
    found = dict(drift.verdicts("full_frame"))
    assert found.pop((Against.EARLIER, Shift.OPTICS)).p_value <= 0.001
    assert min(verdict.p_value for verdict in found.values()) > 0.001


def test_an_exam_with_a_frame_kept_before_there_were_optics_has_none(drift: Drift) -> None:
    send(drift, RECENT + LEAST_EARLIER)
    for seed in range(RECENT):
        frames = exam(1000 + seed)
        drift.add_exam("full_frame", frames, [None, *light(frames[1:], seed, cast=0.4)])
    drift.compare()
    assert (Against.EARLIER, Shift.IMAGE) in drift.verdicts("full_frame")
    assert (Against.EARLIER, Shift.OPTICS) not in drift.verdicts("full_frame")


def test_composed_exams_have_no_prevalence_to_compare_with(tmp_path: Path) -> None:
    composed = {"reference.npz": write_reference(tiny_reference(as_met=False))}
    bundle = Bundle.open(build_tiny_bundle(tmp_path / "tiny", more=composed))
    drift = Drift(bundle, ["full_frame"])
    send(drift, LEAST_RECENT)
    drift.compare()
    assert set(drift.verdicts("full_frame")) == {(Against.REFERENCE, Shift.IMAGE)}


def test_without_a_reference_nothing_is_kept(bundle: Path) -> None:
    drift = Drift(Bundle.open(bundle), ["full_frame"])
    send(drift, LEAST_RECENT)
    drift.add_exam("full_frame", exam(0), light(exam(0)))
    drift.compare()
    assert drift.exams("full_frame") == (0, 0)
    assert drift.verdicts("full_frame") == {}


# ---- as served -----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def up(known: Path) -> Iterator[Running]:
    with running(Settings(bundle=known)) as server:
        yield server


def figure(client: httpx.Client, name: str, *labels: str) -> float:
    return scraped(client)[name, *labels]


def until(client: httpx.Client, name: str, *labels: str) -> float:
    """Ask until a figure is a number: a comparison is seen by the scrape after it."""
    wait_until(lambda: not math.isnan(figure(client, name, *labels)))
    return figure(client, name, *labels)


def exam_as_sent(seed: int, more: int = 0, shift: int = 0, cast: float = 0) -> dict[str, object]:
    """A patient of eight frames whose exam has its own shade, as `exam` has.

    `shift` moves green and blue, `cast` takes red away, of which a blind tower sees nothing.
    """
    return patient(*frames_as_sent(seed, more, shift, cast))


def frames_as_sent(seed: int, more: int = 0, shift: int = 0, cast: float = 0) -> list[bytes]:
    rng = np.random.default_rng(seed)
    own, red = rng.normal(0, 8, 3), int(rng.integers(1, 4)) + more
    frames = []
    for colour in [RED] * red + [PINK] * (8 - red):
        exact = np.array(colour) + own + rng.normal(0, 2, 3) + np.array([0, shift, shift])
        exact += cast * CAST
        frames.append(image(tuple(int(v) for v in np.clip(exact, 0, 255))))
    return frames


def test_figures_are_there_from_the_start_and_say_how_much_there_is_to_compare(up: Running) -> None:
    found = scraped(up.client)
    names = {key for key in found if key[0] == "endoclip_drift_p_value"}
    assert len(names) == len(Against) * len(Shift)
    assert found["endoclip_drift_reference_exams", "true"] == len(tiny_reference().exams)
    assert all(math.isnan(found[name]) for name in names)


def test_frames_of_every_endpoint_are_seen_once_an_exam(up: Running) -> None:
    name = ("endoclip_drift_exams", "full_frame", "recent")
    before = figure(up.client, *name)
    document = {"patients": [exam_as_sent(1), exam_as_sent(2)]}
    for task in ("polyp-detection", "malignancy", "embeddings"):
        assert up.client.post(f"/v1/{task}", json=document).status_code == 200
    assert figure(up.client, *name) == before + 2


def test_a_changed_colour_reaches_the_figures_as_an_image_shift(up: Running) -> None:
    for seed in range(10, 10 + RECENT):
        document = {"patients": [exam_as_sent(seed, shift=45)]}
        assert up.client.post("/v1/polyp-detection", json=document).status_code == 200
    # Labels in the order of their names: against, device, shift.
    labels = ("reference", "full_frame", "image")
    assert until(up.client, "endoclip_drift_p_value", *labels) <= 0.001
    assert figure(up.client, "endoclip_drift_distance", *labels) > 0.5
    assert math.isnan(figure(up.client, "endoclip_drift_p_value", "earlier", "full_frame", "image"))


@pytest.fixture
def blind(tmp_path: Path) -> Path:
    """A tiny bundle whose tower looks past a cast, with exams as met."""
    more = {
        "image_tower.onnx": image_tower(blind=True),
        "reference.npz": write_reference(tiny_reference(blind=True)),
    }
    return build_tiny_bundle(tmp_path / "blind", more=more)


def p_values(up: Running, exams: Sequence[dict[str, object]]) -> dict[str, float]:
    """Send exams; gives the p-values after them by what was compared, without those not there."""
    for start in range(0, len(exams), 16):
        document = {"patients": exams[start : start + 16]}
        assert up.client.post("/v1/polyp-detection", json=document).status_code == 200
    device = up.app.state.engine.drift._devices["full_frame"]
    # A scrape sets the comparison off.
    wait_until(lambda: bool(scraped(up.client)) and device.compared == device.count)
    return {
        f"{key[1]} {key[3]}": value
        for key, value in scraped(up.client).items()
        if key[0] == "endoclip_drift_p_value" and not math.isnan(value)
    }


def test_a_cast_that_the_tower_looks_past_is_seen_in_the_optics_alone(blind: Path) -> None:
    with running(Settings(bundle=blind)) as up:
        usual = [exam_as_sent(seed) for seed in range(RECENT + LEAST_EARLIER)]
        assert min(p_values(up, usual).values()) > 0.001
        more = [exam_as_sent(seed) for seed in range(500, 500 + RECENT)]
        assert min(p_values(up, more).values()) > 0.001
        cast = [exam_as_sent(seed, cast=60) for seed in range(1000, 1000 + RECENT)]
        found = p_values(up, cast)
        assert found.pop("earlier optics") <= 0.001
        assert min(found.values()) > 0.001


def test_optics_of_an_exam_outlive_a_restart_and_are_missing_where_they_were_not_kept(
    known: Path, tmp_path: Path
) -> None:
    store = tmp_path / "exams.sqlite3"
    frames = [frames_as_sent(seed) for seed in (1, 2)]
    with running(Settings(bundle=known, exam_store=str(store))) as up:
        for number, files in enumerate(frames):
            opened = up.client.post("/v1/exams", json={"exam_id": f"e{number}"})
            assert opened.status_code == 201
            sent = up.client.post(f"/v1/exams/e{number}/frames", **as_form(files))
            assert sent.status_code == 200
    with closing(sqlite3.connect(store)) as database:
        of_second = "exam = (SELECT key FROM exams WHERE exam_id = 'e1')"
        database.execute(f"UPDATE exam_frames SET optics = NULL WHERE {of_second}")
        database.commit()
    with running(Settings(bundle=known, exam_store=str(store))) as up:
        for number in range(2):
            assert up.client.post(f"/v1/exams/e{number}/close").status_code == 200
        contract = up.app.state.engine.bundle.manifest.input
        kept, lost = up.app.state.engine.drift._devices["full_frame"].ended
    seen = [examine(decode(one, contract), QualityLimits.open_gate())[1] for one in frames[0]]
    assert kept.optics == pytest.approx(np.sum(seen, axis=0), rel=1e-5)
    assert np.isnan(lost.optics).all()
    assert lost.frames.sum() == 8
