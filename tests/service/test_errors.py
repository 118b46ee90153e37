"""Every other way a request can go wrong: its code, and that nothing leaks."""

import json
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from model_store.errors import BundleCorrupt
from service.errors import STATUS, TABLE, ErrorCode
from service.middleware import log_failure
from tests import tiny_bundle
from tests.service.conftest import Running, Serve, image, patient, problem_of
from tests.waiting import wait_until

PNG = {"Content-Type": "image/png"}
JSON = {"Content-Type": "application/json"}
ONE = [{"frames": [{"image": "AAAA"}]}]


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b'{"patients": []} x',
        b'{"patients": [], "patients": []}',
        b'{"patients": NaN}',
        b'{"patients": ' + b"9" * 5000 + b"}",
        b"[" * 40_000,
        b'{"a":' * 9_000,
        '{"patients": []}'.encode("utf-16"),
        b'{"patients": "\xff"}',
    ],
)
def test_what_is_not_strict_json_is_malformed(client: httpx.Client, body: bytes) -> None:
    response = client.post("/v1/malignancy", content=body, headers=JSON)
    problem_of(response, 400, "malformed_request")


def test_json_may_begin_with_a_byte_order_mark(client: httpx.Client, red: bytes) -> None:
    text = b"\xef\xbb\xbf" + json.dumps({"patients": [patient(red)]}).encode()
    response = client.post("/v1/malignancy", content=text, headers=JSON)
    assert response.status_code == 200


def test_json_with_more_structure_than_any_request_is_refused_unparsed(
    client: httpx.Client,
) -> None:
    for body in (
        b"[" + b"{}," * 60_000 + b"{}]",
        b"[" + b"0," * 1_000_001 + b"0]",
        b"[" + rb'"\\",{},' * 60_000 + b"0]",
        b'["' + b"[" * 50_001 + b'"' + b' ""' * 1_000_001,
    ):
        response = client.post("/v1/malignancy", content=body, headers=JSON)
        problem_of(response, 413, "payload_too_large")


def test_brackets_inside_texts_are_no_structure(client: httpx.Client) -> None:
    text = '[:{,\\"' * 600
    response = client.post("/v1/embeddings", json={"texts": [text] * 100})
    assert response.status_code == 200, response.text


def test_only_the_first_faults_are_listed(client: httpx.Client) -> None:
    document = {"patients": ONE, **{f"k{i}": i for i in range(1000)}}
    problem = problem_of(client.post("/v1/malignancy", json=document), 422, "invalid_request")
    assert len(problem["errors"]) == 20
    assert "and 999 more" in problem["detail"]


@pytest.mark.parametrize("where", ["key", "device", "patient_id", "label"])
def test_half_a_surrogate_pair_is_the_callers_error(client: httpx.Client, where: str) -> None:
    bodies = {
        "key": '{"\\ud800": 1, "patients": [{"frames": [{"image": "AAAA"}]}]}',
        "device": '{"device": "\\ud800", "patients": [{"frames": [{"image": "AAAA"}]}]}',
        "patient_id": '{"patients": [{"patient_id": "\\ud800", "frames": [{"image": "AAAA"}]}]}',
        "label": '{"labels": "\\ud800", "patients": [{"frames": [{"image": "AAAA"}]}]}',
    }
    task = "zero-shot" if where == "label" else "malignancy"
    response = client.post(f"/v1/{task}", content=bodies[where], headers=JSON)
    problem_of(response, 422, "invalid_request")


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Content-Type": "text/plain"},
        {"Content-Type": "image/gif"},
        {"Content-Type": "application/octet-stream"},
        {"Content-Type": "application/x-www-form-urlencoded"},
        {"Content-Type": "application/json; charset=utf-16"},
        {"Content-Type": "application/json", "Content-Encoding": "gzip"},
        {"Content-Type": "image/png", "Content-Encoding": "br"},
    ],
)
def test_other_media_types_are_unsupported(client: httpx.Client, headers: dict[str, str]) -> None:
    response = client.post("/v1/malignancy", content=b"{}", headers=headers)
    problem_of(response, 415, "unsupported_media_type")


def test_format_is_sniffed_whatever_the_content_type_says(client: httpx.Client, red: bytes) -> None:
    headers = {"Content-Type": 'image/tiff; name="x.tif"'}
    assert client.post("/v1/malignancy", content=red, headers=headers).status_code == 200


def test_request_part_may_have_its_own_content_type(client: httpx.Client, red: bytes) -> None:
    options = json.dumps({"patient_id": "p9"})
    for part in ((None, options), (None, options, "application/json"), ("r.json", options)):
        files: list[tuple[str, Any]] = [("request", part), ("frames", ("a.png", red))]
        answer = client.post("/v1/malignancy", files=files).json()
        assert answer["patients"][0]["patient_id"] == "p9"


@pytest.mark.parametrize("path", ["/", "/v1", "/v1/malignancy/", "/v1/nothing", "/v1/models/a/b"])
def test_unknown_paths_are_not_found(client: httpx.Client, path: str) -> None:
    problem_of(client.post(path), 404, "not_found")


def test_other_methods_are_not_found_and_the_allowed_ones_are_named(client: httpx.Client) -> None:
    for method, path, allowed in (
        ("GET", "/v1/malignancy", "POST"),
        ("DELETE", "/v1/zero-shot", "POST"),
        ("POST", "/v1/models", "GET"),
        ("FOO", "/healthz", "GET"),
    ):
        response = client.request(method, path)
        problem_of(response, 404, "not_found")
        assert allowed in response.headers["allow"]


def test_request_id_is_echoed_when_it_is_clean_and_made_otherwise(client: httpx.Client) -> None:
    for path in ("/healthz", "/v1/nothing"):
        kept = client.get(path, headers={"X-Request-ID": "abc-1.2_3"})
        assert kept.headers["x-request-id"] == "abc-1.2_3"
        for bad in ("a b", 'a"b', "x" * 129, "", "a/b"):
            minted = client.get(path, headers={"X-Request-ID": bad}).headers["x-request-id"]
            assert minted != bad
            assert len(minted) == 32


def test_request_id_stands_in_the_answer_too(client: httpx.Client, red: bytes) -> None:
    headers = {"X-Request-ID": "mine", **PNG}
    answer = client.post("/v1/malignancy", content=red, headers=headers)
    assert answer.json()["request_id"] == answer.headers["x-request-id"] == "mine"


def test_unexpected_errors_are_internal_and_say_nothing(serve: Serve, red: bytes) -> None:
    with serve() as up:
        boxes, up.app.state.engine.devices = up.app.state.engine.devices, {"full_frame": "tower"}
        response = up.client.post("/v1/malignancy", content=red, headers=PNG)
        up.app.state.engine.devices = boxes
        problem = problem_of(response, 500, "internal")
        assert "unpack" not in response.text
        assert problem["detail"].startswith("The service failed")
        # One request's failure is its own.
        assert up.client.post("/v1/malignancy", content=red, headers=PNG).status_code == 200


def fails_without_red() -> bytes:
    """The tiny image tower, but its numbers are NaN for frames with little red."""
    model = onnx.load_from_string(tiny_bundle.image_tower())
    for node in model.graph.node:
        if list(node.output) == ["embedding"]:
            node.output[0] = "unit_rows"
    for name, value in (("first", np.array([0], np.int64)), ("room", np.float32(0.3))):
        model.graph.initializer.append(numpy_helper.from_array(np.asarray(value), name))
    for kind, inputs, output in (
        ("Gather", ["mean", "first"], "red_over_middle"),
        ("Add", ["red_over_middle", "room"], "shifted"),
        ("Sqrt", ["shifted"], "root"),
        ("Div", ["root", "root"], "one_or_nan"),
        ("Mul", ["unit_rows", "one_or_nan"], "embedding"),
    ):
        axis = {"axis": 1} if kind == "Gather" else {}
        model.graph.node.append(helper.make_node(kind, inputs, [output], **axis))
    return bytes(model.SerializeToString())


def test_graph_that_fails_is_internal_for_its_caller_and_the_worker_goes_on(
    serve: Serve,
    tmp_path: Path,
    red: bytes,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    tower = fails_without_red()
    monkeypatch.setattr(tiny_bundle, "image_tower", lambda _shift: tower)
    bundle = tiny_bundle.build_tiny_bundle(tmp_path / "b")
    with serve(bundle=bundle) as up:
        for _ in range(2):
            document = {"patients": [patient(red, image((40, 60, 180)))]}
            response = up.client.post("/v1/malignancy", json=document)
            problem_of(response, 500, "internal")
            assert "NaN" not in response.text
            assert up.client.post("/v1/malignancy", content=red, headers=PNG).status_code == 200
        assert up.client.get("/readyz").status_code == 200
    # The operator, unlike the caller, is told.
    assert any("NaN" in record.getMessage() for record in caplog.records)


def test_every_code_of_the_table_has_a_status_and_every_error_a_code() -> None:
    assert set(STATUS) == set(ErrorCode)
    assert set(TABLE.values()) <= set(ErrorCode)


def test_log_tells_the_operator_what_is_wrong_with_a_bundle_and_nothing_of_a_client(
    caplog: pytest.LogCaptureFixture,
) -> None:
    for error, said in (
        (BundleCorrupt("text_tower.onnx", "a graph", "none"), "text_tower.onnx: expected a graph"),
        (ValueError("SECRET"), "ValueError"),
    ):
        log_failure(error, "id-1")
        assert said in caplog.text
    assert "SECRET" not in caplog.text


def test_log_holds_only_known_methods(server: Running, caplog: pytest.LogCaptureFixture) -> None:
    def said() -> list[str]:
        lines = [r.getMessage() for r in caplog.records if r.name == "service.middleware"]
        # Of the request of another test the line may come only now.
        return [line.split()[2] for line in lines if "request_id=methods-" in line]

    with caplog.at_level("INFO"):
        for number, method in enumerate(("SECRET" + "X" * 1000, "HEAD")):
            headers = {"X-Request-ID": f"methods-{number}"}
            server.client.request(method, "/healthz", headers=headers)
        wait_until(lambda: len(said()) == 2)  # a request's line comes after its answer
    assert said() == ["method=-", "method=HEAD"]


def test_logs_hold_no_content(
    server: Running, red: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level("DEBUG"):
        server.client.post(
            "/v1/malignancy",
            content=image((199, 31, 30)),
            headers=PNG,
            params={"patient_id": "SECRET-1", "frame_id": "SECRET-2"},
        )
        labels = [{"label": "SECRET-3", "prompts": ["SECRET-4"]}, {"label": "b", "prompts": ["c"]}]
        server.client.post(
            "/v1/zero-shot",
            json={"labels": labels, "patients": [patient(red, patient_id="SECRET-5")]},
        )
        server.client.post("/SECRET-6")
        server.client.post("/v1/zero-shot", content=red, headers=PNG, params={"labels": "SECRET-7"})
    ours = [record for record in caplog.records if record.name.startswith(("service", "uvicorn"))]
    assert any("/v1/malignancy" in record.getMessage() for record in ours)
    assert not any("SECRET" in record.getMessage() for record in ours)
