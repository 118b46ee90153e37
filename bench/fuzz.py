"""Feeds invented bytes to what reads callers' bytes: the image code and the form parsers.

    python -m bench.fuzz --inputs 200000

Image files are good ones of every format, cut, changed, joined and shuffled; forms and JSON are
grown from what they may hold and broken in the same ways. What must hold for every input: only the
errors that are meant come out, an error has a place in the closed table, memory and time stay
bounded, and how a body was cut into pieces changes nothing. Inputs follow from `--seed`; one that
breaks a rule is shrunk and printed.
"""

import argparse
import asyncio
import json
import logging
import sys
import time
import warnings
from collections import Counter
from collections.abc import AsyncIterator, Callable, Sequence
from functools import cache
from typing import Any, ClassVar

import numpy as np
from hypothesis import HealthCheck, given, seed, settings
from hypothesis import strategies as st
from PIL import Image
from starlette.requests import Request
from starlette.types import Message

from bench.hostile import bad_requests, form
from bench.hostile_files import bad_files
from bench.pool import small_frames
from model_store.errors import EndoClipError, ImageRejected
from model_store.images import ImageLimits, InputContract, count_pixels, decode
from model_store.quality import QualityLimits, assess, measures
from service import jsonio
from service.errors import ErrorCode, code_of, problem
from service.forms import EMBEDDINGS, NAMED_TASK, ZERO_SHOT, FormLimits, RequestIn, read_request

__all__ = ["TARGETS", "run"]

CONTRACT = InputContract(64, "squash", "bicubic", (0.5,) * 3, (0.5,) * 3, "dct_scaled")
IMAGE_LIMITS = ImageLimits(max_bytes=100_000, max_pixels=200_000, min_side_px=16)
FORM_LIMITS = FormLimits(max_frames=8, max_patients=4, max_frame_bytes=300)
# Of one image; a machine that is busy with other things counts for nothing in processor time.
_MOST_CPU_S = 2.0
_MODELS = (NAMED_TASK, ZERO_SHOT, EMBEDDINGS)
_TOKENS = (
    b"\xff\xda",
    b"\xff\xd9",
    b"IDAT",
    b"IEND",
    b"Exif\0\0",
    b"\0\0\0\0",
    b"\xff\xff\xff\xff",
)
Edit = tuple[str, int, int, bytes]

_edits = st.lists(
    st.tuples(
        st.sampled_from(["set", "insert", "cut", "double", "swap", "number"]),
        st.integers(0, 2**20),
        st.integers(0, 255),
        st.one_of(st.binary(max_size=8), st.sampled_from(_TOKENS)),
    ),
    max_size=4,
)


@cache
def image_seeds() -> tuple[bytes, ...]:
    """Good files of every format, and the hostile ones that are small."""
    small = [frame.data for frame in small_frames(5)]
    known = (one.data for one in bad_files() if one.outcome != "unsupported_format")
    return (*small, *(data for data in known if 0 < len(data) < 20_000))


@cache
def form_seeds() -> tuple[bytes, ...]:
    """Bodies of forms and JSON, good and bad."""
    good = form(b"\xff\xd8\xff", b"x", request='{"frames": [{"frame_id": "a"}, {"frame_id": "b"}]}')
    return (good[1], *(one.body for one in bad_requests() if 0 < len(one.body) < 5_000))


def edited(data: bytes, edits: Sequence[Edit]) -> bytes:
    """Change bytes as the edits say."""
    out = bytearray(data)
    for kind, where, length, piece in edits:
        # Every second edit leaves the first bytes alone: they say what the rest is.
        first = min(16, len(out)) if where % 2 else 0
        at = first + where // 2 % (len(out) + 1 - first)
        if kind == "set":
            out[at : at + len(piece)] = piece
        elif kind == "insert":
            out[at:at] = piece
        elif kind == "cut":
            del out[at : at + length * 8]
        elif kind == "double":
            out[at:at] = out[at : at + length]
        elif kind == "swap":
            out = out[at:] + out[:at]
        else:
            out[at : at + 4] = length.to_bytes(4, "big" if where % 4 < 2 else "little")
    return bytes(out)


@given(st.integers(0, 10**6), _edits)
def fuzz_images(number: int, edits: Sequence[Edit]) -> None:
    """`decode` gives pixels or a rejection; `count_pixels` and the quality gate give figures."""
    seeds = image_seeds()
    for step in range(3):
        check_image(edited(seeds[(number + step) % len(seeds)], edits))


def check_image(data: bytes) -> None:
    """Hold the image code to its promises for one input."""
    Seen.inputs += 1
    began = time.thread_time()
    assert 0 <= count_pixels(data, IMAGE_LIMITS) <= IMAGE_LIMITS.max_pixels
    try:
        pixels = decode(data, CONTRACT, limits=IMAGE_LIMITS)
    except ImageRejected as error:
        rejected = error
    else:
        rejected = None
    if rejected is not None:
        assert 0 < len(rejected.message) < 300
        Seen.outcomes[rejected.code.value] += 1
    else:
        assert (pixels.shape, pixels.dtype) == ((64, 64, 3), np.uint8)
        assess(pixels, QualityLimits())
        assert all(np.isfinite(value) for value in measures(pixels).values())
        Seen.outcomes["pixels"] += 1
    assert time.thread_time() - began < _MOST_CPU_S


_part = st.tuples(
    st.sampled_from([b"frames", b"frames", b"request", b"x", b'a"b', b""]),
    st.sampled_from([b"", b'; filename="a.jpg"', b"; filename*=UTF-8''%e2", b"\r\nX: y"]),
    st.one_of(st.binary(max_size=20), st.just(b"{}"), st.just(b'{"explain": true}')),
)


@given(st.lists(_part, max_size=5), _edits, st.lists(st.integers(1, 60), max_size=5))
def fuzz_forms(parts: Sequence[Any], edits: Sequence[Edit], cuts: Sequence[int]) -> None:
    """A form is read or refused, in the same way however it was cut into pieces."""
    seeds, kind = form_seeds(), "multipart/form-data; boundary=hostile"
    drawn = b"".join(
        b'--hostile\r\nContent-Disposition: form-data; name="%b"%b\r\n\r\n%b\r\n' % part
        for part in parts
    )
    whole = drawn + b"--hostile--\r\n"
    known = seeds[len(drawn) % len(seeds)]
    for model, body in enumerate((whole, edited(whole, edits), edited(known, edits))):
        assert read(body, kind, model, []) == read(body, kind, model, cuts)


_ids = st.one_of(st.none(), st.text(max_size=4), st.sampled_from(["a", "0", "1", "é", "x" * 129]))
_image = st.one_of(st.text("AB/+=-\n", max_size=9), st.integers(), st.none())
_frame = st.fixed_dictionaries(
    {}, optional={"image": _image, "frame_id": _ids, "captured_at": _ids, "x": st.none()}
)
_good = st.lists(st.just({"image": "/9j/"}), min_size=1, max_size=3)
_frames = _good | _good | st.lists(_frame, max_size=3)
_patient = st.fixed_dictionaries(
    {}, optional={"frames": _frames, "patient_id": _ids, "device": _ids}
)
_good_patient = st.fixed_dictionaries({"frames": _good}, optional={"patient_id": _ids})
_leaf = st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=5))
_any = st.recursive(
    _leaf,
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3)
    ),
    max_leaves=6,
)
_prompts = st.lists(st.text(max_size=3), max_size=2)
_label = st.fixed_dictionaries({"label": st.text(max_size=3), "prompts": _prompts})
_document = st.fixed_dictionaries(
    {},
    optional={
        "patients": st.lists(_patient, max_size=5) | _any,
        "labels": st.text(max_size=3) | st.lists(_label, max_size=3) | _any,
        "texts": st.lists(st.text(max_size=3), max_size=3) | _any,
        "operating_point": st.sampled_from(["balanced", "x", None]),
        "explain": st.booleans() | _any,
        "x": _any,
    },
)
_read = st.fixed_dictionaries(
    {"patients": st.lists(_good_patient, min_size=1, max_size=2)},
    optional={"explain": st.booleans(), "device": st.just("full_frame")},
)


@given(_document | _document | _read, _edits)
def fuzz_json(document: Any, edits: Sequence[Edit]) -> None:
    """A JSON body is read or refused, and so is one with some of its bytes changed."""
    body = json.dumps(document).encode()
    for model in range(len(_MODELS)):
        read(body, "application/json", model, [])
    read(edited(body, edits), "application/json", 0, [])


def read(body: bytes, kind: str, model: int, cuts: Sequence[int]) -> Any:
    """Read a body as the service does; gives what it means, or the error's code and pointers."""
    Seen.inputs += not cuts
    try:
        sent = _request(body, kind, cuts)
        request = _loop().run_until_complete(read_request(sent, _MODELS[model], FORM_LIMITS))
    except EndoClipError as error:
        return _refused(error)
    Seen.outcomes["read"] += 1
    assert isinstance(request, RequestIn)
    assert request.frames <= FORM_LIMITS.max_frames
    ids = [patient.patient_id for patient in request.patients]
    assert len(ids) == len(set(ids))
    return repr(request)


def _refused(error: EndoClipError) -> Any:
    assert code_of(error) is not ErrorCode.INTERNAL, repr(error)
    status, document, _ = problem(error, "id")
    assert 400 <= status < 500
    jsonio.write(document)
    Seen.outcomes[document["code"]] += 1
    return document["code"], document.get("pointer")


@cache
def _loop() -> asyncio.AbstractEventLoop:
    return asyncio.new_event_loop()


def _request(body: bytes, kind: str, cuts: Sequence[int]) -> Request:
    pieces = _pieces(body, cuts)

    async def receive() -> Message:
        try:
            return {"type": "http.request", "body": await anext(pieces), "more_body": True}
        except StopAsyncIteration:
            return {"type": "http.request", "body": b"", "more_body": False}

    headers = [(b"content-type", kind.encode())]
    scope = {"type": "http", "method": "POST", "path": "/", "query_string": b"", "headers": headers}
    return Request(scope, receive)


async def _pieces(body: bytes, cuts: Sequence[int]) -> AsyncIterator[bytes]:
    start = 0
    for cut in cuts:
        yield body[start : start + cut]
        start += cut
    yield body[start:]


class Seen:
    """What came out, over all inputs."""

    inputs: int = 0
    outcomes: ClassVar[Counter[str]] = Counter()


# Target → its share of the inputs.
TARGETS: dict[str, tuple[Callable[[], None], float]] = {
    "images": (fuzz_images, 0.5),
    "forms": (fuzz_forms, 0.25),
    "json": (fuzz_json, 0.25),
}


def run(name: str, inputs: int, with_seed: int) -> Counter[str]:
    """Feed a target at least so many inputs; gives what came out.

    Raises:
        AssertionError: an input broke a rule; whatever else a target raises breaks one, too.
    """
    target, _ = TARGETS[name]
    Seen.inputs, Seen.outcomes = 0, Counter()
    quiet = settings(
        max_examples=inputs // 3,
        deadline=None,
        database=None,
        derandomize=False,
        suppress_health_check=list(HealthCheck),
    )
    logging.getLogger("python_multipart").setLevel(logging.ERROR)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module=r"PIL\.")
        warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)
        seed(with_seed)(quiet(target))()
    assert Seen.inputs >= inputs // 3 * 3
    return Seen.outcomes


def main() -> int:
    """Feed all targets, print what came out."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--inputs", type=int, default=200_000)
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()
    for name, (_, share) in TARGETS.items():
        began = time.perf_counter()
        found = run(name, round(args.inputs * share), args.seed)
        told = ", ".join(f"{word} {count}" for word, count in sorted(found.items()))
        took = f"{time.perf_counter() - began:.0f} s"
        sys.stdout.write(f"{name}: {Seen.inputs} inputs, {took}: {told}\n")
        sys.stdout.flush()
    return 0


if __name__ == "__main__":
    sys.exit(main())
