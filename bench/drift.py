"""Measures the drift figures on the development frames: false alarms, and what is noticed how soon.

    python -m bench.drift --data path/to/colonoscopy/dev --bundle BUNDLE [--streams 200]

Source groups that no stage was trained on are split at random, anew for each stream: half make a
reference, the others arrive as exams, one after another, as `service.drift` takes them, and are
compared after each. In a stream without a shift an alarm (p of at most ALARM) is false; alarms less
than three days apart are one. No group comes twice, so short sources give shorter streams: rates
are for 120 exams, 30 days of four. In the others all exams from the 64th on are shifted, and it is
looked LOOKS exams later: shares of streams in which the alarm is on then.
Prints one table. Embeddings are kept in --work, so a second run takes the simulation alone.
"""

import argparse
import io
import itertools
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageFilter

from model_store.bundle import Bundle
from model_store.drift import Shift, compare
from model_store.encoder import Encoder
from model_store.images import decode
from model_store.quality import QualityLimits, examine
from model_store.reference import Exam, Exams, Reference
from model_store.scoring import cosines, margin
from service.drift import EARLIER, RECENT
from training.reference import sketch
from training.sources import SOURCES, dev_items, read_sources, split_sources

ALARM = 0.001
STEADY = EARLIER // 2
"""Exams of a stream before a shift begins."""
DAYS, A_DAY = 30, 4
WINDOW_OF_FIGURE = DAYS * A_DAY
LOOKS = (12, 24, 48)
"""Exams after the beginning of a shift at which it is looked for."""
KEPT = 3 * A_DAY
"""Exams for which an alert goes on after its last cause: `keep_firing_for` of its rule."""

Change = Callable[[Image.Image], Image.Image]


def tinted(image: Image.Image, by: float) -> Image.Image:
    """Red less and blue more by a share: a wrong white balance."""
    pixels = np.asarray(image, np.float32) * np.array([1 - by, 1, 1 + by], np.float32)
    return Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8))


def blurred(image: Image.Image, by: float) -> Image.Image:
    """Gaussian, its deviation a share of the shorter side: a lens that is not clean."""
    return image.filter(ImageFilter.GaussianBlur(by * min(image.size)))


def dimmed(image: Image.Image, by: float) -> Image.Image:
    """Brightness times a share."""
    return Image.fromarray((np.asarray(image, np.float32) * by).astype(np.uint8))


CHANGES: Mapping[str, Change] = {
    "as filmed": lambda image: image,
    "white balance off by 20 %": partial(tinted, by=0.20),
    "white balance off by 30 %": partial(tinted, by=0.30),
    "blur of 0.4 % of the side": partial(blurred, by=0.004),
    "blur of 0.8 % of the side": partial(blurred, by=0.008),
    "dimmed to 60 %": partial(dimmed, by=0.6),
}


@dataclass(frozen=True)
class Frames:
    """Frames under one change.

    Attributes:
        rows: embeddings (n, d).
        margins: (n,).
        optics: (n, 6).
        passed: (n,), which the gate lets through.
    """

    rows: npt.NDArray[np.float32]
    margins: npt.NDArray[np.float64]
    optics: npt.NDArray[np.float32]
    passed: npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Held:
    """Whole frames of groups that no stage was trained on."""

    groups: npt.NDArray[np.str_]
    sources: npt.NDArray[np.str_]
    threshold: float
    by_change: Mapping[str, Frames]


def embedded(data: Path, bundle: Path, work: Path) -> Held:
    """Encode the frames under every change, or read what an earlier run kept."""
    opened = Bundle.open(bundle)
    split = split_sources(read_sources(data))
    parts = ("select", "calibrate", "report")
    items = [item for part in parts for item in dev_items(data, split, part)]
    items = [item for item in items if item.kind == "frame" and item.source in SOURCES]
    kept = work / f"{opened.digest[7:19]}-optics.npz"
    if not kept.is_file():
        work.mkdir(parents=True, exist_ok=True)
        encoder = Encoder(opened)
        limits = QualityLimits.of(opened.manifest.quality_gate)
        arrays: dict[str, Any] = {}
        for name, change in CHANGES.items():
            pixels = np.stack(
                [decode(_changed(change, item.path), opened.manifest.input) for item in items]
            )
            arrays[name] = encoder.encode_images(pixels)
            found = [examine(one, limits) for one in pixels]
            arrays[f"{name}: passed"] = np.array([reason is None for reason, _ in found])
            arrays[f"{name}: optics"] = np.stack([optics for _, optics in found])
        np.savez(kept, **arrays)
    with np.load(kept) as arrays:
        classes = opened.class_embeddings["polyp_detection"]
        scale = opened.manifest.logit_scale
        by_change = {}
        for name in CHANGES:
            z = margin(cosines(arrays[name], classes), 0, scale)
            beside = (arrays[f"{name}: optics"], arrays[f"{name}: passed"])
            by_change[name] = Frames(arrays[name], np.asarray(z), *beside)
    calibration = opened.calibrations["polyp_detection"]
    point = calibration.operating_points["balanced"].frame_threshold
    logit = float(np.log(point / (1 - point)))
    return Held(
        np.array([item.group for item in items]),
        np.array([item.source for item in items]),
        (logit - calibration.frame.intercept) / calibration.frame.slope,
        by_change,
    )


def _changed(change: Change, path: Path) -> bytes:
    out = io.BytesIO()
    change(Image.open(path).convert("RGB")).save(out, "BMP")  # lossless, and nothing to compress
    return out.getvalue()


@dataclass(frozen=True)
class Scenario:
    """What arrives: groups of one source or of all, `lesions` of them an exam.

    Attributes:
        name: of its row.
        before: source of the reference and of the exams before the shift; "" for all.
        after: source of the exams after it.
        change: what happens to their frames.
        positive: share of exams, among those shifted, that are chosen for being positive; None
            leaves them as they come.
        lesions: source groups an exam.
    """

    name: str
    before: str = ""
    after: str = ""
    change: str = "as filmed"
    positive: float | None = None
    lesions: int = 1

    @property
    def is_null(self) -> bool:
        """Whether nothing shifts."""
        return self.name.startswith("none")


BKAI, KVASIR = (name for name in SOURCES if not name.startswith("CVC"))
SCENARIOS = (
    Scenario("none: one group an exam, all sources"),
    Scenario("none: two groups an exam, all sources", lesions=2),
    Scenario(f"none: {BKAI} alone", before=BKAI, after=BKAI),
    *(Scenario(name, change=name) for name in list(CHANGES)[1:]),
    Scenario("other vendor: BKAI, then Kvasir-SEG", before=BKAI, after=KVASIR),
    Scenario("other vendor: Kvasir-SEG, then BKAI", before=KVASIR, after=BKAI),
    Scenario("prevalence: 90 % of exams positive, then half", positive=0.5),
)


def stream(held: Held, scenario: Scenario, seed: int) -> dict[tuple[str, str], list[bool]]:
    """Run one stream; gives by comparison and shift whether it alarms, after each exam."""
    rng = np.random.default_rng([seed, 0xD21F7])
    plain = held.by_change["as filmed"]
    first = _groups(held, scenario.before, rng)
    half = first[: len(first) // 2]
    # Built like the exams that arrive, or these would differ from it without any shift.
    exam_of = {group: str(i // scenario.lesions) for i, group in enumerate(half.tolist())}
    rows = np.isin(held.groups, half) & plain.passed
    reference = sketch(
        plain.rows[rows],
        plain.margins[rows],
        [exam_of[group] for group in held.groups[rows].tolist()],
        threshold=held.threshold,
        as_met=True,
    )
    rest = first[len(first) // 2 :].tolist()
    steady = rest[: STEADY * scenario.lesions]
    used = {*half.tolist(), *steady}
    later = [g for g in _groups(held, scenario.after, rng) if g not in used] or rest
    shifted = held.by_change[scenario.change]
    exams = _exams(reference, held, plain, steady, STEADY, scenario.lesions, rng)
    positive = scenario.positive
    count = WINDOW_OF_FIGURE if scenario.is_null else 2 * RECENT
    exams += _exams(reference, held, shifted, later, count, scenario.lesions, rng, positive)
    if scenario.is_null:
        return _followed(reference, exams, seed, range(STEADY, len(exams) + 1))
    return _followed(reference, exams, seed, [STEADY + after for after in LOOKS])


def _groups(held: Held, source: str, rng: np.random.Generator) -> npt.NDArray[np.str_]:
    mine = held.groups if not source else held.groups[held.sources == source]
    return rng.permutation(np.unique(mine))


def _exams(
    reference: Reference,
    held: Held,
    frames: Frames,
    groups: list[str],
    count: int,
    lesions: int,
    rng: np.random.Generator,
    positive: float | None = None,
) -> list[Exam]:
    """Exams of drawn groups, each group once; there may be fewer than asked for."""
    single = {}
    for group in groups:
        rows = (held.groups == group) & frames.passed
        if rows.any():
            single[group] = reference.measure(
                frames.rows[rows], frames.margins[rows], frames.optics[rows]
            )
    pool = list(single.values())
    if positive is not None:
        above = [exam for exam in pool if exam.frames[1] > 0]
        below = [exam for exam in pool if exam.frames[1] == 0]
        pool = []
        while len(pool) < count * lesions:
            side = above if rng.random() < positive else below
            pool.append(side[int(rng.integers(len(side)))])
    order = rng.permutation(len(pool)).tolist()
    count = min(count, len(pool) // lesions)
    found = []
    for start in range(0, count * lesions, lesions):
        exam = pool[order[start]]
        for place in order[start + 1 : start + lesions]:
            exam = exam + pool[place]
        found.append(exam)
    return found


def _followed(
    reference: Reference, exams: list[Exam], seed: int, ends: Iterable[int]
) -> dict[tuple[str, str], list[bool]]:
    """Give whether it alarms after each of these numbers of exams."""
    alarms: dict[tuple[str, str], list[bool]] = {}
    for end in ends:
        recent = Exams.of(exams[max(end - RECENT, 0) : end])
        earlier = exams[max(end - RECENT - EARLIER, 0) : max(end - RECENT, 0)]
        for against, others in (("reference", reference.exams), ("earlier", Exams.of(earlier))):
            for shift, alarming in _alarming(others, recent, seed).items():
                alarms.setdefault((against, shift.value), []).append(alarming)
    return alarms


def _alarming(others: Exams, recent: Exams, seed: int) -> dict[Shift, bool]:
    # Of 99 deals, six that reach farther: that far from one in a thousand, the rest can be spared.
    few = compare(others, recent, seed, 99)
    if min(verdict.p_value for verdict in few.values()) > 0.06:
        return dict.fromkeys(few, False)
    found = compare(others, recent, seed).items()
    return {shift: verdict.p_value <= ALARM for shift, verdict in found}


def _begun(alarms: list[bool]) -> int:
    """Count alarms; what follows within the days for which an alert is kept is the same."""
    at = [place for place, alarm in enumerate(alarms) if alarm]
    return sum(place - before > KEPT for before, place in itertools.pairwise([-KEPT - 1, *at]))


def row(scenario: Scenario, streams: list[dict[tuple[str, str], list[bool]]]) -> str:
    """Sum a scenario's streams up: false alarms in 30 days, or how many are seen at each look."""
    cells = []
    for key in streams[0]:
        found = [alarms[key] for alarms in streams]
        if scenario.is_null:
            begun = sum(_begun(alarms) for alarms in found)
            cells.append(f"{begun * WINDOW_OF_FIGURE / sum(map(len, found)):.2f}")
        else:
            cells.append(" / ".join(f"{share:.2f}" for share in np.mean(found, axis=0)))
    return f"| {scenario.name} | " + " | ".join(cells) + " |"


def effect(held: Held, name: str, frames: Frames) -> str:
    """Say what a change does to frames one by one."""
    plain = held.by_change["as filmed"]
    both = plain.passed & frames.passed
    other = (plain.margins >= held.threshold) != (frames.margins >= held.threshold)
    share = other[both].mean()
    return f"{name}: decided otherwise {share:.3f}, set aside {1 - frames.passed.mean():.3f}"


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--bundle", type=Path, required=True)
    parser.add_argument("--work", type=Path, default=Path("runs/drift"))
    parser.add_argument("--streams", type=int, default=200)
    parser.add_argument("--jobs", type=int, default=1)
    args = parser.parse_args()
    held = embedded(args.data, args.bundle, args.work)
    print(f"frames {len(held.groups)}, groups {len(set(held.groups.tolist()))}", flush=True)
    for name, frames in held.by_change.items():
        print(effect(held, name, frames))
    print(
        "| shift | reference, image | reference, prevalence | earlier, image | earlier, "
        "prevalence | earlier, optics |\n|---|---|---|---|---|---|",
        flush=True,
    )
    with ProcessPoolExecutor(args.jobs) as pool:
        for scenario in SCENARIOS:
            runs = pool.map(partial(stream, held, scenario), range(args.streams))
            print(row(scenario, list(runs)), flush=True)


if __name__ == "__main__":
    main()
