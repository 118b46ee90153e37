"""Drift: exams count as exams, verdicts reach the figures, nothing of a frame or name stays."""

import math
from collections.abc import Iterator
from pathlib import Path

import httpx
import numpy as np
import pytest

from model_store.bundle import Bundle
from model_store.drift import Shift
from model_store.encoder import Floats
from model_store.reference import write_reference
from service.drift import IDLE_S, LEAST_EARLIER, LEAST_RECENT, RECENT, Against, Drift
from service.settings import Settings
from tests.service.conftest import Running, image, patient, running
from tests.service.test_metrics import scraped
from tests.tiny_bundle import PINK, RED, build_tiny_bundle
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


def send(drift: Drift, count: int, first: int = 0, shift: int = 0, more: int = 0) -> None:
    for seed in range(first, first + count):
        drift.add("full_frame", "0", 0, exam(seed, more, shift))


# ---- what is one exam ----------------------------------------------------------------------------


def test_a_patient_of_several_frames_without_a_name_is_an_exam(drift: Drift) -> None:
    send(drift, 3)
    assert drift.exams("full_frame") == (3, 0)
    assert drift.exams("other") == (0, 0)


def test_a_named_patient_is_one_exam_however_it_is_sent(drift: Drift, clock: Clock) -> None:
    for frame in exam(0):
        drift.add("full_frame", "p1", 0, [frame])
        clock.now += IDLE_S / 2
    drift.add("full_frame", "p1", 0, exam(1))
    assert drift.exams("full_frame") == (0, 0)
    clock.now += IDLE_S
    drift.compare()
    assert drift.exams("full_frame") == (1, 0)


def test_a_video_frame_by_frame_is_one_exam_and_not_thousands(drift: Drift, clock: Clock) -> None:
    for seed in range(300):
        drift.add("other", "0", 0, exam(seed)[:1])
        clock.now += 0.04
    clock.now += IDLE_S
    drift.add("other", "0", 0, exam(300)[:1])
    assert drift.exams("other") == (1, 0)


def test_an_exam_that_comes_twice_is_counted_once(drift: Drift) -> None:
    send(drift, 5)
    send(drift, 5)
    rounded = [frame + np.float32(1e-7) for frame in exam(3)]
    drift.add("full_frame", "7", 7, rounded)
    drift.add_exam("full_frame", exam(4))
    assert drift.exams("full_frame") == (5, 0)


def test_exams_under_way_are_bounded(drift: Drift) -> None:
    for seed in range(300):
        drift.add("full_frame", f"p{seed}", 0, exam(seed))
    recent, earlier = drift.exams("full_frame")
    assert recent + earlier == 300 - 256


def test_devices_are_apart_and_none_is_the_first(drift: Drift) -> None:
    drift.add(None, "0", 0, exam(0))
    drift.add("other", "0", 0, exam(0))
    assert (drift.exams("full_frame"), drift.exams("other")) == ((1, 0), (1, 0))


def test_no_name_is_kept_and_the_key_differs_from_process_to_process(drift: Drift) -> None:
    drift.add("full_frame", "mueller-1950", 0, exam(0))
    assert "mueller" not in repr(vars(drift))
    other = Drift(Bundle.open(drift._bundle.path), ["full_frame"])
    other.add("full_frame", "mueller-1950", 0, exam(0))
    assert drift._open.keys() != other._open.keys()


# ---- verdicts ------------------------------------------------------------------------------------


def test_there_is_no_verdict_before_the_least_number_of_exams(drift: Drift) -> None:
    send(drift, LEAST_RECENT - 1)
    drift.compare()
    assert drift.verdicts("full_frame") == {}
    send(drift, 1, first=LEAST_RECENT)
    drift.compare()
    assert set(drift.verdicts("full_frame")) == {(Against.REFERENCE, one) for one in Shift}
    send(drift, RECENT + LEAST_EARLIER, first=100)
    drift.compare()
    assert len(drift.verdicts("full_frame")) == 4


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
    drift.add_exam("full_frame", exam(0))
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


def exam_as_sent(seed: int, more: int = 0, shift: int = 0) -> dict[str, object]:
    """A patient of eight frames whose exam has its own shade, as `exam` has."""
    rng = np.random.default_rng(seed)
    own, red = rng.normal(0, 8, 3), int(rng.integers(1, 4)) + more
    frames = []
    for colour in [RED] * red + [PINK] * (8 - red):
        exact = np.array(colour) + own + rng.normal(0, 2, 3) + np.array([0, shift, shift])
        frames.append(image(tuple(int(v) for v in np.clip(exact, 0, 255))))
    return patient(*frames)


def test_figures_are_there_from_the_start_and_say_how_much_there_is_to_compare(up: Running) -> None:
    found = scraped(up.client)
    names = {key for key in found if key[0] == "endoclip_drift_p_value"}
    assert len(names) == 4
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
