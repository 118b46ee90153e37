"""`/v2`, spoken by NVIDIA's own client and by hand, to the real server."""

import base64
import json
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

from tests.service.conftest import BLACK, PINK, RED, Running, as_form, image, problem_of
from tests.service.keys_file import add_key

triton = pytest.importorskip("tritonclient.http")
InferenceServerException = pytest.importorskip("tritonclient.utils").InferenceServerException
FRAMES = [image(RED), image(PINK), image(BLACK), b"no image"]


@pytest.fixture
def asked(server: Running) -> Iterator[Any]:
    client = triton.InferenceServerClient(f"127.0.0.1:{server.port}")
    yield client
    client.close()


def tensor(frames: list[bytes], shape: list[int] | None = None) -> Any:
    values = np.empty(shape or [len(frames)], np.object_)
    values.reshape(-1)[:] = frames
    found = triton.InferInput("image", list(values.shape), "BYTES")
    found.set_data_from_numpy(values)
    return found


def test_health_and_metadata(asked: Any, server: Running) -> None:
    assert asked.is_server_live()
    assert asked.is_server_ready()
    assert asked.is_model_ready("polyp_detection")
    assert asked.is_model_ready("malignancy", "1.0.0")
    assert asked.get_server_metadata()["extensions"] == ["binary_tensor_data"]
    found = asked.get_model_metadata("malignancy", "1.0.0")
    assert (found["name"], found["versions"]) == ("malignancy", ["1.0.0"])
    assert found["inputs"] == [{"name": "image", "datatype": "BYTES", "shape": [-1]}]
    for name, version in (("embeddings", ""), ("malignancy", "2"), ("zero_shot", "")):
        with pytest.raises(InferenceServerException, match="expected"):
            asked.get_model_metadata(name, version)
        assert not asked.is_model_ready(name, version)


@pytest.mark.parametrize("shape", [None, [4, 1], [1, 4], [2, 2]])
def test_scores_are_those_of_the_contract(
    asked: Any, client: httpx.Client, shape: list[int] | None
) -> None:
    options = {"operating_point": "sensitivity_first", "device": "left-half"}
    found = asked.infer("malignancy", [tensor(FRAMES, shape)], parameters=options, request_id="r-1")
    told = client.post("/v1/malignancy", **as_form(FRAMES, options)).json()
    patient = told["patients"][0]
    head = found.get_response()
    assert (head["model_name"], head["model_version"], head["id"]) == ("malignancy", "1.0.0", "r-1")
    assert head["parameters"]["digest"] == told["model"]["digest"]
    assert head["parameters"]["operating_point"] == "sensitivity_first"
    probability = found.as_numpy("probability")
    assert probability.dtype == np.float32
    assert probability[:2] == pytest.approx(
        [one["probability"] for one in patient["frames"][:2]], abs=1e-6
    )
    assert np.isnan(probability[2:]).all()
    words = {name: found.as_numpy(name).tolist() for name in ("status", "decision", "reason")}
    assert words["status"] == [b"scored", b"scored", b"abstained", b"rejected"]
    assert words["decision"] == [one.get("decision", "").encode() for one in patient["frames"]]
    assert words["reason"][2:] == [b"dark", b"unsupported_format"]
    assert found.as_numpy("attention")[:2].sum() == pytest.approx(1.0)
    assert found.as_numpy("patient_probability")[0] == pytest.approx(
        patient["probability"], abs=1e-6
    )
    assert found.as_numpy("patient_decision")[0] == patient["decision"].encode()


def test_outputs_are_those_asked_for_as_json_or_binary(asked: Any) -> None:
    outputs = [
        triton.InferRequestedOutput("patient_decision", binary_data=False),
        triton.InferRequestedOutput("probability", binary_data=True),
    ]
    found = asked.infer("polyp_detection", [tensor(FRAMES)], outputs=outputs)
    first, second = found.get_response()["outputs"]
    assert first == {
        "name": "patient_decision",
        "datatype": "BYTES",
        "shape": [1],
        "data": ["positive"],
    }
    assert second["parameters"] == {"binary_data_size": 16}
    assert found.as_numpy("status") is None


def infer(client: httpx.Client, **more: Any) -> httpx.Response:
    data = [base64.b64encode(one).decode() for one in FRAMES]
    one = {"name": "image", "shape": [4], "datatype": "BYTES", "data": data}
    one |= more.pop("image", {})
    document = {"inputs": [{k: v for k, v in one.items() if v is not None}], **more}
    return client.post("/v2/models/malignancy/infer", json=document)


def test_json_alone_does_as_well(client: httpx.Client) -> None:
    found = infer(client).json()
    outputs = {one["name"]: one["data"] for one in found["outputs"]}
    assert outputs["status"] == ["scored", "scored", "abstained", "rejected"]
    assert outputs["probability"][2:] == [None, None]


@pytest.mark.parametrize(
    ("more", "code"),
    [
        ({"image": {"datatype": "FP32"}}, "invalid_request"),
        ({"image": {"name": "images"}}, "invalid_request"),
        ({"image": {"shape": [3]}}, "invalid_request"),
        ({"image": {"shape": [0], "data": []}}, "invalid_request"),
        ({"image": {"shape": [-1]}}, "invalid_request"),
        ({"image": {"data": None}}, "invalid_request"),
        ({"image": {"data": ["%%"], "shape": [1]}}, "invalid_request"),
        ({"image": {"data": ["bm8="], "shape": [1]}}, "all_frames_rejected"),
        ({"image": {"parameters": {"binary_data_size": 4}}}, "invalid_request"),
        ({"parameters": {"threshold": 0.5}}, "invalid_request"),
        ({"parameters": {"device": "none"}}, "unknown_device"),
        ({"parameters": {"operating_point": "none"}}, "unknown_operating_point"),
        ({"outputs": [{"name": "heatmap"}]}, "invalid_request"),
        ({"outputs": []}, "invalid_request"),
        ({"inputs": []}, "invalid_request"),
    ],
)
def test_what_breaks_a_rule_is_said(client: httpx.Client, more: Any, code: str) -> None:
    document = problem_of(infer(client, **more), 422, code)
    assert document["error"] == document["detail"]


@pytest.mark.parametrize(
    ("length", "shape", "raw"),
    [
        ("x", 1, b""),
        ("99999", 1, b""),
        (None, 1, b"\x05\x00\x00\x00abc"),
        (None, 1, b"\x01\x00"),
        (None, 1, b"\xff\xff\xff\xffabc"),
        (None, 1, struct.pack("<I", 1) + b"a" + struct.pack("<I", 1) + b"b"),
    ],
)
def test_broken_binary_tensors_are_malformed(
    client: httpx.Client, length: str | None, shape: int, raw: bytes
) -> None:
    one = {
        "name": "image",
        "shape": [shape],
        "datatype": "BYTES",
        "parameters": {"binary_data_size": len(raw)},
    }
    head = json.dumps({"inputs": [one]}).encode()
    headers = {"Inference-Header-Content-Length": length or str(len(head))}
    found = client.post("/v2/models/malignancy/infer", content=head + raw, headers=headers)
    problem_of(found, 400, "malformed_request")


@pytest.mark.parametrize("name", ["device", "operating_point"])
def test_pointers_lead_into_this_request(client: httpx.Client, name: str) -> None:
    document = infer(client, parameters={name: "none"}).json()
    assert document["pointer"] == f"/parameters/{name}"


def test_limits_are_those_of_every_request(client: httpx.Client) -> None:
    many = {"shape": [10**9], "data": ["bm8="]}
    problem_of(infer(client, image=many), 413, "payload_too_large")
    answer = client.post("/v2/models/malignancy/infer", json={}, headers={"X-Deadline-Ms": "never"})
    assert answer.status_code == 422


def test_errors_reach_nvidias_client(asked: Any) -> None:
    with pytest.raises(InferenceServerException, match="full_frame") as no:
        asked.infer("malignancy", [tensor(FRAMES)], parameters={"device": "none"})
    assert no.value.status() == "422"


def test_keys_hold_here_as_well(serve: Any, tmp_path: Path) -> None:
    keys = tmp_path / "keys.json"
    token = add_key(keys)
    with serve(keys=keys) as up:
        client = triton.InferenceServerClient(f"127.0.0.1:{up.port}")
        assert client.is_server_ready()
        with pytest.raises(InferenceServerException) as no:
            client.infer("malignancy", [tensor(FRAMES)])
        assert no.value.status() == "401"
        headers = {"Authorization": f"Bearer {token}"}
        assert client.infer("malignancy", [tensor(FRAMES)], headers=headers)
        client.close()
