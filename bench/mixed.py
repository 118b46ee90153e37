"""Requests of every task and form, good and bad, drawn by number, each with its right answer.

    python -m bench.mixed --requests 10000        (the service is started, and stopped)

Each answer is compared with what its frames score alone (`bench.reference`), whatever else was
under way: batches, other callers, callers who left. Ends with 1 when one answer was wrong.
"""

import argparse
import asyncio
import json
import random
import sys
import tempfile
from base64 import b64encode
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx

from bench.hostile import bad_requests, form
from bench.hostile_files import BadFile, bad_files
from bench.pool import PoolFrame, large_frames, small_frames
from bench.reference import Reference, differences
from bench.served import Served, served
from model_store.label_sets import LabelSet
from service.settings import FULL_FRAME

__all__ = ["DEVICES", "Mix", "Mixed", "Tally", "mixed_service", "send", "send_all"]

DEVICES = {"full_frame": FULL_FRAME, "left-half": (0.0, 0.0, 0.5, 1.0)}
_TASKS = {"polyp-detection": "polyp_detection", "malignancy": "malignancy", "zero-shot": None}
_POINTS = ("balanced", "sensitivity_first", "specificity_first")
_TEXTS = ("A polyp on a stalk.", "Stool.", "Normal mucosa with folds.", "Ein gestielter Polyp.")
_FREE = (
    (("red", ["a red wall", "red"]), ("pale", ["a pale wall"])),
    (("stalk", ["a polyp on a stalk"]), ("flat", ["a flat polyp"]), ("none", ["no polyp"])),
)
_LARGEST_BAD = 200_000
_PIECE = 8192


@dataclass(frozen=True, slots=True)
class Mixed:
    """A request, and what must come back.

    Attributes:
        path: of the URL, query included.
        headers: of the request, its id among them.
        body: as sent.
        frames: that it holds.
        large: how many of them are of 1280 x 1024.
        status: of HTTP.
        expected: members of the answer.
        in_pieces: whether the body has no length and comes in pieces.
        leaves: whether the caller does not wait for the answer.
        hurried: whether 504 is right too.
    """

    path: str
    headers: dict[str, str]
    body: bytes
    frames: int
    large: int
    status: int
    expected: dict[str, Any]
    in_pieces: bool = False
    leaves: bool = False
    hurried: bool = False


@dataclass
class Tally:
    """What became of the requests.

    Attributes:
        requests: that were sent.
        frames: in them.
        large: of these, of 1280 x 1024.
        left: callers who did not wait.
        statuses: HTTP status → requests.
        wrong: what was wrong with answers, in words.
        broken: ids of requests whose connection ended without an answer.
    """

    requests: int = 0
    frames: int = 0
    large: int = 0
    left: int = 0
    statuses: Counter[int] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)
    broken: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        share = self.large / max(self.frames, 1)
        return (
            f"{self.requests} requests, {self.frames} frames ({share:.0%} of 1280 x 1024), "
            f"{self.left} callers left, statuses {dict(sorted(self.statuses.items()))}, "
            f"{len(self.wrong)} wrong"
        )


class Mix:
    """Draws requests: the same for the same seed and number."""

    def __init__(
        self, reference: Reference, frames: Sequence[PoolFrame], *, seed: int, long: float
    ) -> None:
        """Prepare to draw.

        Args:
            reference: what frames score alone.
            frames: good ones.
            seed: of all draws.
            long: share of requests of 17 to 64 frames; twice as many have 5 to 16.
        """
        self._reference, self._frames, self._seed, self._long = reference, frames, seed, long
        self._bad = [one for one in bad_files() if len(one.data) <= _LARGEST_BAD]
        self._bad_requests = [one for one in bad_requests() if len(one.body) <= _LARGEST_BAD]
        self._sets = reference.encoder.bundle.label_sets

    def request(self, number: int) -> Mixed:
        """Draw a request."""
        rng = random.Random(f"{self._seed}-{number}")
        request_id = f"{self._seed}-{number}"
        if rng.random() < 0.06:
            bad = rng.choice(self._bad_requests)
            expected = {"code": bad.code} if bad.code else {}
            headers = bad.headers | {"X-Request-ID": request_id}
            return Mixed(bad.path, headers, bad.body, 1, 0, bad.status, expected)
        return _Drawn(self, rng, request_id).request()

    def frame(self, rng: random.Random) -> PoolFrame | BadFile:
        """Draw a frame; one in seven is bad."""
        return rng.choice(self._bad) if rng.random() < 1 / 7 else rng.choice(self._frames)

    def count(self, rng: random.Random) -> int:
        """Draw how many frames."""
        at = rng.random()
        if at < self._long:
            return rng.randint(17, 64)
        if at < 3 * self._long:
            return rng.randint(5, 16)
        return rng.randint(2, 4) if at > 0.7 else 1


class _Drawn:
    """One good request (its frames may be bad), as it takes shape."""

    def __init__(self, mix: Mix, rng: random.Random, request_id: str) -> None:
        self._mix, self._rng, self._id = mix, rng, request_id
        self._reference: Reference = mix._reference
        self._task = rng.choice([*_TASKS, "embeddings"])
        self._point = rng.choice([None, *_POINTS]) if _TASKS.get(self._task) else None
        self._explain = self._task != "embeddings" and rng.random() < 0.05
        self._labels_sent, self._label_set = self._labels()
        self._texts = (
            rng.sample(_TEXTS, 2) if self._task == "embeddings" and rng.random() < 0.2 else []
        )

    def request(self) -> Mixed:
        rng = self._rng
        write = rng.choice([self._as_form, self._as_json, self._as_json, self._as_image])
        path, headers, body, patients, sent = write()
        frames = [frame for one in sent for frame in one]
        members: dict[str, Any] = {"patients": patients, "request_id": self._id}
        status = 200
        if all(patient["status"] == "rejected" for patient in patients):
            status = 422
            members["code"] = "all_frames_rejected"
        elif self._texts:
            rows = [self._reference.text(text) for text in self._texts]
            members["texts"] = [{"index": at, "embedding": row} for at, row in enumerate(rows)]
        headers["X-Request-ID"] = self._id
        hurried = rng.random() < 0.02
        if hurried:
            headers["X-Deadline-Ms"] = str(rng.randint(1, 60))
        large = sum(isinstance(frame, PoolFrame) and frame.large for frame in frames)
        return Mixed(
            path,
            headers,
            body,
            len(frames),
            large,
            status,
            members,
            in_pieces=rng.random() < 0.1,
            leaves=rng.random() < 0.02,
            hurried=hurried,
        )

    def _labels(self) -> tuple[Any, LabelSet | None]:
        if self._task != "zero-shot":
            name = _TASKS.get(self._task)
            return None, self._mix._sets[name] if name else None
        if self._rng.random() < 0.6:
            name = self._rng.choice(sorted(self._mix._sets))
            return name, self._mix._sets[name]
        labels = [{"label": label, "prompts": texts} for label, texts in self._rng.choice(_FREE)]
        return labels, LabelSet.from_free(labels)

    def _options(self) -> dict[str, Any]:
        options = {
            "operating_point": self._point,
            "labels": self._labels_sent,
            "texts": self._texts or None,
            "explain": self._explain or None,
        }
        return {name: value for name, value in options.items() if value is not None}

    def _patient(self, frames: list[Any], ids: list[str], name: str, device: str) -> dict[str, Any]:
        """What must come back of one patient."""
        alone = [self._reference.alone(frame.data, DEVICES[device]) for frame in frames]
        point = (self._point or "balanced") if _TASKS.get(self._task) else None
        told = self._reference.patient(alone, self._label_set, point, explain=self._explain)
        for member, frame_id in zip(told["frames"], ids, strict=True):
            member["frame_id"] = frame_id
        return {"patient_id": name, "frames_total": len(frames), **told}

    def _drawn(self, count: int) -> tuple[list[Any], list[str] | None, str]:
        frames = [self._mix.frame(self._rng) for _ in range(count)]
        ids = [f"f{self._rng.randrange(10**9)}-{at}" for at in range(count)]
        device = self._rng.choice(["full_frame", "full_frame", "left-half"])
        return frames, ids if self._rng.random() < 0.5 else None, device

    def _as_form(self) -> Any:
        frames, ids, device = self._drawn(self._mix.count(self._rng))
        options = self._options()
        if ids:
            options["frames"] = [{"frame_id": one} for one in ids]
        if device != "full_frame":
            options["device"] = device
        text = json.dumps(options) if options or self._rng.random() < 0.5 else None
        headers, body = form(*(frame.data for frame in frames), request=text)
        shown = ids or [str(at) for at in range(len(frames))]
        expected = self._patient(frames, shown, "0", device)
        return f"/v1/{self._task}", headers, body, [expected], [frames]

    def _as_json(self) -> Any:
        count = self._mix.count(self._rng)
        parts = 1 if count < 3 else self._rng.randint(1, min(4, count))
        patients, sent, expected = [], [], []
        for number in range(parts):
            size = count // parts + (number < count % parts)
            frames, ids, device = self._drawn(size)
            name = f"p{self._rng.randrange(10**6)}" if ids else str(number)
            members = [{"image": b64encode(frame.data).decode()} for frame in frames]
            if ids:
                members = [one | {"frame_id": at} for one, at in zip(members, ids, strict=True)]
            named = {"patient_id": name} if ids else {}
            patients.append({"frames": members, "device": device, **named})
            shown = ids or [str(at) for at in range(size)]
            expected.append(self._patient(frames, shown, name, device))
            sent.append(frames)
        body = json.dumps(self._options() | {"patients": patients}).encode()
        return f"/v1/{self._task}", {"Content-Type": "application/json"}, body, expected, sent

    def _as_image(self) -> Any:
        if not isinstance(self._labels_sent, str | None) or self._texts:
            return self._as_json()
        frames, ids, device = self._drawn(1)
        query = {"device": device, "labels": self._labels_sent, "operating_point": self._point}
        query |= {"explain": "true" if self._explain else None}
        query |= {"frame_id": ids[0], "patient_id": "p"} if ids else {}
        told = httpx.QueryParams({name: value for name, value in query.items() if value})
        kind = getattr(frames[0], "media_type", "image/png")
        expected = self._patient(frames, ids or ["0"], "p" if ids else "0", device)
        headers = {"Content-Type": kind}
        return f"/v1/{self._task}?{told}", headers, frames[0].data, [expected], [frames]


async def send(client: httpx.AsyncClient, request: Mixed, tally: Tally) -> None:
    """Send one request and compare its answer; what is wrong is noted in the tally."""
    content = _pieces(request.body) if request.in_pieces else request.body
    sending = client.post(request.path, content=content, headers=request.headers)
    tally.requests += 1
    tally.frames += request.frames
    tally.large += request.large
    try:
        answer = await asyncio.wait_for(sending, 0.03 if request.leaves else None)
    except TimeoutError:
        tally.left += 1
        return
    except httpx.HTTPError as error:
        # The library's own name says little: reset, closed by either side, or too late.
        cause = type(error.__cause__ or error).__name__
        tally.wrong.append(f"{request.path}: {type(error).__name__} ({cause})")
        tally.broken.append(request.headers["X-Request-ID"])
        return
    tally.statuses[answer.status_code] += 1
    tally.wrong += [f"{request.headers['X-Request-ID']} {one}" for one in faults(request, answer)]


def faults(request: Mixed, answer: httpx.Response) -> list[str]:
    """Say what is wrong with an answer."""
    if answer.headers.get("x-request-id") != request.headers["X-Request-ID"]:
        return ["another request's id"]
    if request.hurried and answer.status_code == 504:
        return []
    if answer.status_code != request.status:
        found = f"{answer.status_code} {answer.text[:200]}"
        return [f"{request.path}: expected {request.status}; found {found}"]
    return differences(request.expected, answer.json())


async def send_all(
    url: str,
    request: Callable[[int], Mixed],
    numbers: Iterator[int],
    at_once: int,
    tally: Tally,
) -> None:
    """Send requests from so many callers, each its next when it has its answer."""
    limits = httpx.Limits(max_connections=at_once, max_keepalive_connections=at_once)
    async with httpx.AsyncClient(base_url=url, timeout=300, limits=limits) as client:

        async def caller() -> None:
            for number in numbers:
                await send(client, request(number), tally)

        await asyncio.gather(*(caller() for _ in range(at_once)))


@contextmanager
def mixed_service(**settings: Any) -> Iterator[Served]:
    """Start a service that knows the devices."""
    with tempfile.TemporaryDirectory() as folder:
        devices = Path(folder) / "devices.json"
        devices.write_text(json.dumps({"left-half": DEVICES["left-half"]}))
        with served(devices=devices, **settings) as up:
            yield up


async def _pieces(body: bytes) -> AsyncIterator[bytes]:
    for start in range(0, max(len(body), 1), _PIECE):
        yield body[start : start + _PIECE]


def main() -> int:
    """Send requests, print what became of them."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--requests", type=int, default=10_000)
    parser.add_argument("--at-once", type=int, default=16)
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()
    mix = Mix(Reference(), [*small_frames(40), *large_frames(30)], seed=args.seed, long=0.03)
    tally = Tally()
    # Nothing is to be refused here: bounds are `bench.overload`'s.
    with mixed_service(max_queue_s=3600, max_pending_frames=100_000) as up:
        numbers = iter(range(args.requests))
        asyncio.run(send_all(up.url, mix.request, numbers, args.at_once, tally))
        failures = up.failures()
    sys.stdout.write("\n".join([str(tally), *tally.wrong[:20], *failures[:20], ""]))
    return 1 if tally.wrong or failures else 0


if __name__ == "__main__":
    sys.exit(main())
