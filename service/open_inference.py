"""The Open Inference Protocol, version 2, for clients of inference servers (Triton's, KServe's).

Each named task is a model that takes image files (`image`, BYTES, one element a frame) of one
patient in capture order and gives tensors. A request goes the way of every other
(`service.routes`): the same admission, limits, deadlines and scores; here is only how it is spelt.
Tensors are read and written as JSON (bytes as base64) or, by the binary extension, behind it.

What a tensor cannot say stays in `/v1`: several patients, ids, heat maps, the other dialects.
"""

import asyncio
import math
import re
import struct
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from fastapi import APIRouter
from pydantic import Field
from starlette.requests import Request
from starlette.responses import Response

from service import __version__, jsonio
from service.engine import Engine
from service.errors import InvalidRequest, MalformedRequest, PayloadTooLarge, UnknownModel
from service.forms import FormLimits, FrameIn, PatientIn, RequestIn
from service.jsonio import decode_base64
from service.routes import TASKS, Task, answer_request
from service.schemas import Device, OperatingPointName, PatientId, Strict

__all__ = ["router"]

_LENGTH = struct.Struct("<I")
_HEADER = "Inference-Header-Content-Length"
_MODELS = {task.name: task for task in TASKS if task.name in ("polyp_detection", "malignancy")}
# name → (datatype, shape); one element a frame, or one for the patient.
_OUTPUTS = {
    "probability": ("FP32", [-1]),
    "decision": ("BYTES", [-1]),
    "status": ("BYTES", [-1]),
    "reason": ("BYTES", [-1]),
    "attention": ("FP32", [-1]),
    "patient_probability": ("FP32", [1]),
    "patient_decision": ("BYTES", [1]),
    "patient_status": ("BYTES", [1]),
}
# Not in OpenAPI: the protocol describes itself, and its binary bodies cannot be described there.
router = APIRouter(prefix="/v2", include_in_schema=False)


class _TensorParameters(Strict):
    binary_data_size: Annotated[int, Field(ge=0)] | None = None


class _Input(Strict):
    name: Literal["image"]
    shape: Annotated[list[Annotated[int, Field(ge=0)]], Field(min_length=1, max_length=8)]
    datatype: Literal["BYTES"]
    parameters: _TensorParameters = _TensorParameters()
    data: list[str] | None = None


class _OutputParameters(Strict):
    binary_data: bool | None = None


class _Output(Strict):
    name: Literal[tuple(_OUTPUTS)]  # type: ignore[valid-type]  # known when it runs
    parameters: _OutputParameters = _OutputParameters()


class _Parameters(Strict):
    binary_data_output: bool = False
    patient_id: PatientId | None = None
    device: Device | None = None
    operating_point: OperatingPointName | None = None


class _Infer(Strict):
    id: Annotated[str, Field(max_length=128)] | None = None
    parameters: _Parameters = _Parameters()
    inputs: Annotated[list[_Input], Field(min_length=1, max_length=1)]
    outputs: Annotated[list[_Output], Field(min_length=1, max_length=len(_OUTPUTS))] | None = None


@dataclass(slots=True)
class _Tensors:
    """One request, spelt in tensors; `service.routes.Spelling`."""

    model: str
    version: str
    asked: _Infer | None = None

    async def read(self, request: Request, limits: FormLimits) -> RequestIn:
        """Read the frames of one patient.

        Raises:
            MalformedRequest, InvalidRequest, PayloadTooLarge: as `service.forms.read_request`.
        """
        body = bytearray()
        async for chunk in request.stream():
            body += chunk
        length = _header_length(request, len(body))
        # Base64 and copies of megabytes would hold up everybody on the event loop.
        return await asyncio.to_thread(self._understood, body, length, limits)

    def _understood(self, body: bytearray, length: int, limits: FormLimits) -> RequestIn:
        # The binary part is not searched for JSON, so it is cut off first.
        asked = jsonio.validate(_Infer, jsonio.parse(bytes(body[:length])), "request")
        self.asked = asked
        frames = _elements(asked.inputs[0], memoryview(body)[length:], limits)
        if not frames:
            raise InvalidRequest.at("/inputs/0/shape", "expected at least one element")
        options = asked.parameters
        patient = PatientIn(options.patient_id or "0", options.device, frames, "/parameters/device")
        return RequestIn(
            (patient,),
            operating_point=options.operating_point,
            operating_point_at="/parameters/operating_point",
        )

    def check(self, sent: RequestIn) -> None:
        """Refuse nothing: every answer can be written."""

    async def write(self, document: Mapping[str, Any], _: RequestIn) -> Response:
        """Write the outputs that were asked for."""
        assert self.asked is not None
        told = self.asked.outputs or [_Output(name=name) for name in _OUTPUTS]
        values, default = _values(document), self.asked.parameters.binary_data_output
        outputs, tail = [], b""
        for one in told:
            binary = one.parameters.binary_data
            output, raw = _written(
                one.name, values[one.name], default if binary is None else binary
            )
            outputs.append(output)
            tail += raw
        head = {
            "model_name": self.model,
            "model_version": self.version,
            "id": self.asked.id or document["request_id"],
            "parameters": {
                "digest": document["model"]["digest"],
                "operating_point": document["operating_point"]["name"],
                "intended_use": document["intended_use"],
            },
            "outputs": outputs,
        }
        body = jsonio.write(head)
        if not tail:
            return Response(body, media_type="application/json")
        headers = {_HEADER: str(len(body))}
        return Response(body + tail, media_type="application/octet-stream", headers=headers)


@router.get("")
async def server(_: Request) -> Response:
    """Name the server and the extensions it has."""
    return _json(
        {"name": "endo-clip", "version": __version__, "extensions": ["binary_tensor_data"]}
    )


@router.get("/health/live")
async def live(_: Request) -> Response:
    """As `/healthz`."""
    return _json({"live": True})


@router.get("/health/ready")
async def ready(request: Request) -> Response:
    """As `/readyz`."""
    _engine(request).check_ready()
    return _json({"ready": True})


@router.get("/models/{name}/ready")
@router.get("/models/{name}/versions/{version}/ready")
async def model_ready(request: Request, name: str, version: str | None = None) -> Response:
    """As `/readyz`, for a model that is there."""
    _found(request, name, version)
    _engine(request).check_ready()
    return _json({"name": name, "ready": True})


@router.get("/models/{name}")
@router.get("/models/{name}/versions/{version}")
async def metadata(request: Request, name: str, version: str | None = None) -> Response:
    """Name the tensors of a model."""
    _, served = _found(request, name, version)
    outputs = [
        {"name": one, "datatype": datatype, "shape": shape}
        for one, (datatype, shape) in _OUTPUTS.items()
    ]
    inputs = [{"name": "image", "datatype": "BYTES", "shape": [-1]}]
    head = {"name": name, "versions": [served], "platform": "onnxruntime_onnx"}
    return _json({**head, "inputs": inputs, "outputs": outputs})


@router.post("/models/{name}/infer")
@router.post("/models/{name}/versions/{version}/infer")
async def infer(request: Request, name: str, version: str | None = None) -> Response:
    """Score the frames of one patient."""
    task, served = _found(request, name, version)
    return await answer_request(request, task, _Tensors(name, served))


def _found(request: Request, name: str, version: str | None) -> tuple[Task, str]:
    """Look a model up; gives its task and version.

    Raises:
        UnknownModel: none of that name or version.
    """
    served = _engine(request).bundle.manifest.version
    if name not in _MODELS:
        raise UnknownModel(f"expected one of {', '.join(_MODELS)}; found another name")
    if version not in (None, served):
        raise UnknownModel(f"expected version {served}; found another")
    return _MODELS[name], served


def _header_length(request: Request, body: int) -> int:
    """Say how much of a body is JSON: all of it, or what the header names."""
    text = request.headers.get(_HEADER)
    if text is None:
        return body
    if not re.fullmatch("[0-9]{1,10}", text) or int(text) > body:
        raise MalformedRequest(f"{_HEADER}: expected the bytes of the JSON, within the body")
    return int(text)


def _elements(tensor: _Input, rest: memoryview, limits: FormLimits) -> tuple[FrameIn, ...]:
    size = tensor.parameters.binary_data_size
    if (size is None) == (tensor.data is None):
        raise InvalidRequest.at("/inputs/0", "expected data or binary_data_size")
    if size not in (None, len(rest)) or (size is None and rest):
        raise InvalidRequest.at(
            "/inputs/0/parameters/binary_data_size",
            f"expected the {len(rest)} bytes that follow the JSON",
        )
    count = math.prod(tensor.shape)
    if count > limits.max_frames:
        raise PayloadTooLarge(f"A request may have {limits.max_frames} frames at most.")
    if tensor.data is not None:
        found = [
            decode_base64(text, f"/inputs/0/data/{place}") for place, text in enumerate(tensor.data)
        ]
    else:
        found = _split(rest, count)
    if len(found) != count:
        raise InvalidRequest.at("/inputs/0/shape", f"expected {len(found)} elements, as sent")
    return tuple(
        FrameIn(
            str(place),
            data if len(data) <= limits.max_frame_bytes else None,
            len(data),
            named=False,
        )
        for place, data in enumerate(found)
    )


def _split(rest: memoryview, most: int) -> list[bytes]:
    """Take the elements of a binary tensor apart: each with its length before it."""
    found: list[bytes] = []
    place = 0
    while place < len(rest):
        if len(found) == most or place + _LENGTH.size > len(rest):
            raise MalformedRequest("expected as many elements as the shape has, each with a length")
        (length,) = _LENGTH.unpack_from(rest, place)
        place += _LENGTH.size + length
        if place > len(rest):
            raise MalformedRequest("expected elements that end within the tensor")
        found.append(bytes(rest[place - length : place]))
    return found


def _values(document: Mapping[str, Any]) -> dict[str, Sequence[Any]]:
    """Give the values of all outputs; a probability that is not there is None."""
    patient = document["patients"][0]
    frames = patient["frames"]
    return {
        "probability": [one.get("probability") for one in frames],
        "decision": [one.get("decision", "") for one in frames],
        "status": [one["status"] for one in frames],
        "reason": [one.get("reason") or one.get("error", {}).get("code", "") for one in frames],
        "attention": [one.get("attention") for one in frames],
        "patient_probability": [patient.get("probability")],
        "patient_decision": [patient.get("decision", "")],
        "patient_status": [patient["status"]],
    }


def _written(name: str, values: Sequence[Any], binary: bool) -> tuple[dict[str, Any], bytes]:
    """Give an output's JSON, and the bytes that follow it if it is binary."""
    datatype = _OUTPUTS[name][0]
    output: dict[str, Any] = {"name": name, "datatype": datatype, "shape": [len(values)]}
    if not binary:
        return output | {"data": list(values)}, b""
    raw = b"".join(_packed(values, datatype))
    return output | {"parameters": {"binary_data_size": len(raw)}}, raw


def _packed(values: Sequence[Any], datatype: str) -> Iterable[bytes]:
    for one in values:
        if datatype == "FP32":
            yield struct.pack("<f", math.nan if one is None else one)
        else:
            text = one.encode()
            yield _LENGTH.pack(len(text)) + text


def _engine(request: Request) -> Engine:
    engine: Engine = request.app.state.engine
    return engine


def _json(document: dict[str, Any]) -> Response:
    return Response(jsonio.write(document), media_type="application/json")
