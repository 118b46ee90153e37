"""Scores and decides again what an audit log holds, from the files of its frames.

What an entry says is taken from nowhere but the file, the bundle and what the entry names itself:
limits of a frame, crop box, operating point, site profile. Status, probabilities and decisions must
come out as they are recorded. A decision is held against the probability beside it, so one that
hangs on the last digit of a probability is no difference.
"""

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from model_store.bundle import Bundle
from model_store.encoder import Encoder
from model_store.errors import ImageRejected
from model_store.images import ImageLimits
from model_store.patient import score_patient
from model_store.quality import QualityLimits, assess
from model_store.scoring import Calibration
from service.bundles import calibrations_of
from service.errors import SettingsInvalid
from service.exams.frames import prompts_digest
from service.forms import FrameIn
from service.frames import content_of, decode_frame, pictures_of
from service.settings import newest_bundle, read_site_profile

__all__ = ["replay"]

_Entry = dict[str, Any]


def replay(
    entries: Iterable[_Entry],
    frames: Path,
    *,
    bundle: Path | None,
    site_profile: Path | None,
    tolerance: float,
) -> tuple[list[str], bool]:
    """Score and decide the frames of a log again.

    Args:
        entries: of the log, its chain checked.
        frames: folder that holds files; others than the log's may be among them.
        bundle: folder of the log's bundle; None is the newest one shipped.
        site_profile: the site profile that was in force, if any was.
        tolerance: by how much a probability may differ.

    Returns:
        (lines for a person, the last one the verdict; whether all that was found is as recorded).

    Raises:
        SettingsInvalid: nothing in the log rests on this bundle and site profile.
        BundleError: the bundle cannot be used, or the site profile is not one of it.
        OSError: a file cannot be read.
    """
    again = _Again.open(bundle or newest_bundle(), site_profile, tolerance)
    wanted, lines = _wanted(entries, again)
    found: set[int] = set()
    worst, differ, undecided = 0.0, 0, 0
    for path, picture, content in _pictures(frames, _widest(wanted)):
        for entry in wanted.get(content.hex(), ()):
            if entry["number"] in found:
                continue
            found.add(entry["number"])
            looked = again.look(picture, entry)
            lines += [f"{path.name}  {line}" for line in looked.lines]
            at = f"line {entry['number'] + 1} of the log"
            lines += [f"{path.name}  DIFFERS ({at}): {line}" for line in looked.differences]
            worst = max(worst, looked.deviation)
            differ += bool(looked.differences)
            undecided += "decisions" not in entry
    if undecided:
        lines.append(f"{undecided} frames are of a log that held no decisions yet: none to compare")
    passed = bool(found) and not differ
    lines.append(
        f"{'as recorded' if passed else 'NOT as recorded'}: {len(found)} of "
        f"{sum(map(len, wanted.values()))} frames found, {differ} of them differ, largest "
        f"deviation of a probability {worst:.2g}, tolerance {tolerance:g}"
    )
    return lines, passed


@dataclass(frozen=True, slots=True)
class _Looked:
    """What came out for one entry: lines to show, and what is not as recorded, in words."""

    lines: list[str]
    differences: list[str]
    deviation: float = 0.0


@dataclass(frozen=True, slots=True)
class _Again:
    """What frames are scored with again; calibrations by the digest of the site profile."""

    encoder: Encoder
    calibrations: Mapping[str | None, Mapping[str, Calibration]]
    quality: QualityLimits
    tolerance: float

    @classmethod
    def open(cls, folder: Path, site_profile: Path | None, tolerance: float) -> "_Again":
        bundle, profile = Bundle.open(folder), read_site_profile(site_profile)
        calibrations: dict[str | None, Mapping[str, Calibration]] = {None: bundle.calibrations}
        if profile is not None:
            calibrations[profile.digest] = calibrations_of(bundle, profile)
        quality = QualityLimits.of(bundle.manifest.quality_gate)
        return cls(Encoder(bundle), calibrations, quality, tolerance)

    def look(self, picture: FrameIn, entry: _Entry) -> _Looked:
        """Do again what an entry tells of."""
        bundle = self.encoder.bundle
        told = _outcome(entry["status"], entry.get("reason"))
        status, probabilities = self._score(picture, entry)
        differences = []
        # Logs from before 2026-11-30 name no reason.
        same = status == told or ("reason" not in entry and status.startswith(f"{told} ("))
        if not same:
            differences.append(f"recorded {told}, again {status}")
        if entry["input"] != json.loads(json.dumps(asdict(bundle.manifest.input))):
            differences.append("the recorded input contract is not the bundle's")
        if status != "scored" or told != "scored":
            return _Looked([f"recorded {told}  again {status}"], differences)
        lines, worst = [], 0.0
        for task, value in probabilities.items():
            if entry["prompts"][task] != prompts_digest(self.encoder, task):
                differences.append(f"{task}: the recorded prompts are not the bundle's")
            line, deviation, wrong = self._compare(task, value, entry)
            lines.append(line)
            worst = max(worst, deviation)
            differences += [f"{task}: {one}" for one in wrong]
        return _Looked(lines, differences, worst)

    def _score(self, picture: FrameIn, entry: _Entry) -> tuple[str, dict[str, float]]:
        bundle, crop, limits = self.encoder.bundle, tuple(entry["crop"]), _limits(entry)
        try:
            pixels = decode_frame(picture, bundle.manifest.input, limits=limits, crop=crop)
        except ImageRejected as error:
            return _outcome("rejected", error.code.value), {}
        reason = assess(pixels, self.quality)
        if reason is not None:
            return _outcome("abstained", reason.value), {}
        embedding = self.encoder.encode_images(pixels[None])
        probabilities = {}
        for task in entry["prompts"]:
            label_set = bundle.label_set(task)
            classes = self.encoder.class_embeddings(label_set)
            calibration = self.calibrations[entry["site_profile"]][task]
            score = score_patient(self.encoder, label_set, classes, calibration, embedding)
            probabilities[task] = float(score.probability or 0.0)
        return "scored", probabilities

    def _compare(self, task: str, again: float, entry: _Entry) -> tuple[str, float, list[str]]:
        """Hold a probability and its decision against the entry's; gives line, deviation, words."""
        name = entry["operating_point"]
        points = self.calibrations[entry["site_profile"]][task].operating_points
        recorded = entry["probabilities"].get(task)
        decided = entry.get("decisions", {}).get(task)
        if recorded is None:
            return f"{task}  again {again:.6f}", 0.0, ["no probability is recorded"]
        deviation, wrong = abs(again - recorded), []
        if not deviation <= self.tolerance:  # NaN deviates, too
            wrong.append(f"recorded the probability {recorded:.6f}, again {again:.6f}")
        decision = ""
        if name not in points:
            wrong.append(f"the bundle has no operating point {name}")
        else:
            due, decision = (points[name].decide_frame(one).value for one in (recorded, again))
            if "decisions" in entry and decided != due:
                wrong.append(
                    f"recorded {decided or 'no decision'}, but a probability of {recorded:.6f} is "
                    f"{due} at the operating point {name}"
                )
        line = (
            f"{task}  recorded {recorded:.6f} {decided or ''}".rstrip()
            + f"  again {again:.6f} {decision}".rstrip()
            + f"  deviation {deviation:.2g}"
        )
        return line, deviation, wrong


def _outcome(status: str, reason: str | None) -> str:
    return f"{status} ({reason})" if reason else status


def _wanted(entries: Iterable[_Entry], again: _Again) -> tuple[dict[str, list[_Entry]], list[str]]:
    """Sort out what this bundle can score again; a log may go on over an exchange of bundles.

    Returns:
        (digest of the file → its entries, lines about what was left out).

    Raises:
        SettingsInvalid: there is nothing else.
    """
    wanted: dict[str, list[_Entry]] = {}
    others: Counter[str] = Counter()
    for entry in entries:
        if entry["event"] != "frame":
            continue
        if entry["bundle"] != again.encoder.bundle.digest:
            others[f"the bundle {entry['bundle']}"] += 1
        elif entry["site_profile"] not in again.calibrations:
            others[f"the site profile {entry['site_profile']}"] += 1
        else:
            wanted.setdefault(entry["file"], []).append(entry)
    if others and not wanted:
        raise SettingsInvalid(f"the log's scores rest on {next(iter(others))}; found another")
    return wanted, [f"left out: {count} frames by {what}" for what, count in others.items()]


def _limits(entry: _Entry) -> ImageLimits:
    """Give the limits that a frame was taken under; logs from before 2026-12 name none."""
    return ImageLimits(**entry.get("limits", {}))


def _widest(wanted: Mapping[str, Iterable[_Entry]]) -> ImageLimits:
    """Give limits that no entry's frame is beyond: which entries a file has is not known yet."""
    every = [ImageLimits(), *(_limits(entry) for told in wanted.values() for entry in told)]
    return ImageLimits(
        max(one.max_bytes for one in every),
        max(one.max_pixels for one in every),
        min(one.min_side_px for one in every),
    )


def _pictures(folder: Path, limits: ImageLimits) -> Iterator[tuple[Path, FrameIn, bytes]]:
    """Give each file's pictures, those of DICOM one by one, as the service took and named them."""
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        data = path.read_bytes()
        digests: dict[int, bytes] = {}
        for picture in pictures_of(FrameIn("0", data, len(data)), limits):
            yield path, picture, content_of(picture, digests)
