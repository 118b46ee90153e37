"""What is refused, with which code, and where the pointer points: integrators debug by it."""

import json
from typing import Any

import httpx
import pytest

from service.errors import STATUS, TABLE, ErrorCode
from tests.service.conftest import Running, Serve, as_form, b64, image, patient, problem_of

PNG = {"Content-Type": "image/png"}
JSON = {"Content-Type": "application/json"}
X = {"image": "AAAA"}
ONE = [{"frames": [X]}]
A = {"label": "a", "prompts": ["x"]}


@pytest.mark.parametrize(
    ("task", "document", "pointer"),
    [
        ("malignancy", [], ""),
        ("malignancy", {}, "/patients"),
        ("malignancy", {"patients": []}, "/patients"),
        ("malignancy", {"patients": {}}, "/patients"),
        ("malignancy", {"patients": [{}]}, "/patients/0/frames"),
        ("malignancy", {"patients": [{"frames": []}]}, "/patients/0/frames"),
        ("malignancy", {"patients": [{"frames": [{}]}]}, "/patients/0/frames/0/image"),
        ("malignancy", {"patients": [{"frames": ["AAAA"]}]}, "/patients/0/frames/0"),
        ("malignancy", {"patients": ONE, "patient_id": "x"}, "/patient_id"),
        ("malignancy", {"patients": ONE, "frames": []}, "/frames"),
        ("malignancy", {"patients": ONE, "texts": ["x"]}, "/texts"),
        ("malignancy", {"patients": ONE, "labels": "colour"}, "/labels"),
        ("malignancy", {"patients": ONE, "a/b~c": 1}, "/a~1b~0c"),
        ("malignancy", {"patients": ONE, "explain": "true"}, "/explain"),
        ("malignancy", {"patients": ONE, "explain": 1}, "/explain"),
        ("malignancy", {"patients": ONE, "operating_point": 5}, "/operating_point"),
        ("malignancy", {"patients": ONE, "device": ""}, "/device"),
        ("malignancy", {"patients": [{"frames": [X], "age": 60}]}, "/patients/0/age"),
        ("malignancy", {"patients": [{"frames": [{**X, "x": 1}]}]}, "/patients/0/frames/0/x"),
        ("malignancy", {"patients": [{"frames": [X], "patient_id": ""}]}, "/patients/0/patient_id"),
        ("malignancy", {"patients": [{"frames": [X], "patient_id": 7}]}, "/patients/0/patient_id"),
        (
            "malignancy",
            {"patients": [{"frames": [X], "patient_id": "a b"}]},
            "/patients/0/patient_id",
        ),
        (
            "malignancy",
            {"patients": [{"frames": [X], "patient_id": "a\n"}]},
            "/patients/0/patient_id",
        ),
        (
            "malignancy",
            {"patients": [{"frames": [X], "patient_id": "x" * 65}]},
            "/patients/0/patient_id",
        ),
        (
            "malignancy",
            {"patients": [{"patient_id": "1", "frames": [X]}, {"frames": [X]}]},
            "/patients/1/patient_id",
        ),
        (
            "malignancy",
            {"patients": [{"frames": [{**X, "frame_id": "1"}, X]}]},
            "/patients/0/frames/1/frame_id",
        ),
        (
            "malignancy",
            {"patients": [{"frames": [{**X, "frame_id": "a\tb"}]}]},
            "/patients/0/frames/0/frame_id",
        ),
        ("zero-shot", {"patients": ONE}, "/labels"),
        ("zero-shot", {"patients": ONE, "labels": 7}, "/labels"),
        ("zero-shot", {"patients": ONE, "labels": []}, "/labels"),
        ("zero-shot", {"patients": ONE, "labels": [{"label": "a", "prompts": ["x"]}]}, "/labels"),
        (
            "zero-shot",
            {"patients": ONE, "labels": [{"label": f"{i}", "prompts": ["x"]} for i in range(33)]},
            "/labels",
        ),
        (
            "zero-shot",
            {"patients": ONE, "labels": [{"label": "a", "prompts": ["x"]}] * 2},
            "/labels",
        ),
        (
            "zero-shot",
            {
                "patients": ONE,
                "labels": [A, {"label": "b", "prompts": []}],
            },
            "/labels/1/prompts",
        ),
        (
            "zero-shot",
            {
                "patients": ONE,
                "labels": [A, {"label": "b", "prompts": ["y", " "]}],
            },
            "/labels/1/prompts/1",
        ),
        (
            "zero-shot",
            {
                "patients": ONE,
                "labels": [
                    {"label": "a", "prompts": ["x"]},
                    {"label": "b", "prompts": ["y" * 513]},
                ],
            },
            "/labels/1/prompts/0",
        ),
        (
            "zero-shot",
            {"patients": ONE, "labels": "colour", "operating_point": "balanced"},
            "/operating_point",
        ),
        ("embeddings", {}, "/patients"),
        ("embeddings", {"texts": []}, "/texts"),
        ("embeddings", {"texts": ["x"] * 257}, "/texts"),
        ("embeddings", {"texts": ["x", ""]}, "/texts/1"),
        ("embeddings", {"texts": ["x"], "patients": []}, "/patients"),
        ("embeddings", {"texts": ["x"], "operating_point": "balanced"}, "/operating_point"),
        ("embeddings", {"patients": ONE, "explain": True}, "/explain"),
    ],
)
def test_json_that_breaks_a_rule_is_pointed_at(
    client: httpx.Client, task: str, document: Any, pointer: str
) -> None:
    problem = problem_of(client.post(f"/v1/{task}", json=document), 422, "invalid_request")
    assert problem["pointer"] == pointer, problem
    assert problem["errors"][0]["pointer"] == pointer


@pytest.mark.parametrize(
    "text",
    ["data:image/png;base64,AAAA", "AA", "AAA", "AAAA=", "AA==AAAA", "AA\nAA", "A_-A", "é", " "],
)
def test_base64_is_strict(client: httpx.Client, text: str) -> None:
    document = {"patients": [{"frames": [X]}, {"frames": [X, {"image": text}]}]}
    problem = problem_of(client.post("/v1/malignancy", json=document), 422, "invalid_request")
    assert problem["pointer"] == "/patients/1/frames/1/image"


@pytest.mark.parametrize(
    ("moment", "fits"),
    [
        ("2025-03-01T09:30:00Z", True),
        ("2025-03-01t09:30:00.123456+05:30", True),
        ("2024-02-29T23:59:60-00:00", True),
        ("2025-02-29T00:00:00Z", False),
        ("2025-03-01T24:00:00Z", False),
        ("2025-03-01T09:30:61Z", False),
        ("2025-03-01T09:30:00", False),
        ("2025-03-01 09:30:00Z", False),
        ("2025-03-01", False),
        ("2025-03-01T09:30:00+24:00", False),
        ("٢٠٢٥-03-01T09:30:00Z", False),
    ],
)
def test_captured_at_is_rfc3339(
    client: httpx.Client, red: bytes, moment: str, *, fits: bool
) -> None:
    document = {"patients": [{"frames": [{"image": b64(red), "captured_at": moment}]}]}
    response = client.post("/v1/malignancy", json=document)
    if fits:
        assert response.status_code == 200
    else:
        problem = problem_of(response, 422, "invalid_request")
        assert problem["pointer"] == "/patients/0/frames/0/captured_at"


@pytest.mark.parametrize(
    ("frames", "request_part", "pointer"),
    [
        (1, {"frames": [{}, {}]}, "/frames"),
        (2, {"frames": [{}]}, "/frames"),
        (1, {"frames": []}, "/frames"),
        (0, {}, "/frames"),
        (2, {"frames": [{"frame_id": "1"}, {}]}, "/frames/1/frame_id"),
        (1, {"frames": [{"image": "AAAA"}]}, "/frames/0/image"),
        (1, {"frames": [{"captured_at": "now"}]}, "/frames/0/captured_at"),
        (1, {"patients": []}, "/patients"),
        (1, {"patient_id": "Jane Doe"}, "/patient_id"),
        (1, {"oprating_point": "balanced"}, "/oprating_point"),
        (1, [], ""),
    ],
)
def test_form_that_breaks_a_rule_is_pointed_at(
    client: httpx.Client, red: bytes, frames: int, request_part: Any, pointer: str
) -> None:
    if frames:
        response = client.post("/v1/malignancy", **as_form([red] * frames, request_part))
    else:
        response = client.post(
            "/v1/malignancy", files=[("request", (None, json.dumps(request_part)))]
        )
    assert problem_of(response, 422, "invalid_request")["pointer"] == pointer


@pytest.mark.parametrize(
    ("query", "pointer"),
    [
        ("explain=yes", "/explain"),
        ("oprating_point=balanced", "/oprating_point"),
        ("device=a&device=a", "/device"),
        ("patient_id=Jane%20Doe", "/patient_id"),
        ("frame_id=%00", "/frame_id"),
        ("frames=x", "/frames"),
        ("labels=colour", "/labels"),
    ],
)
def test_query_that_breaks_a_rule_is_pointed_at(
    client: httpx.Client, red: bytes, query: str, pointer: str
) -> None:
    response = client.post(f"/v1/malignancy?{query}", content=red, headers=PNG)
    assert problem_of(response, 422, "invalid_request")["pointer"] == pointer


def test_options_beside_a_form_that_does_not_read_them_are_refused(
    client: httpx.Client, red: bytes
) -> None:
    path = "/v1/malignancy?operating_point=sensitivity_first"
    for body in ({"json": {"patients": [patient(red)]}}, as_form([red])):
        problem = problem_of(client.post(path, **body), 422, "invalid_request")
        assert problem["pointer"] == "/operating_point"


def test_null_counts_as_absent(client: httpx.Client, red: bytes) -> None:
    nothing = {"device": None, "operating_point": None, "explain": None}
    frame = {"image": b64(red), "frame_id": None, "captured_at": None}
    document = {**nothing, "patients": [{"patient_id": None, "device": None, "frames": [frame]}]}
    assert client.post("/v1/malignancy", json=document).status_code == 200
    form = as_form([red], {**nothing, "patient_id": None, "frames": None})
    assert client.post("/v1/malignancy", **form).status_code == 200


@pytest.mark.parametrize(
    ("task", "options", "code", "said"),
    [
        ("malignancy", {"operating_point": "bold"}, "unknown_operating_point", "balanced"),
        ("malignancy", {"device": "bold"}, "unknown_device", "full_frame"),
        ("zero-shot", {"labels": "bold"}, "unknown_label_set", "polyp_detection"),
        ("zero-shot", {"labels": "colour", "device": "bold"}, "unknown_device", "left-half"),
        ("embeddings", {"device": "bold"}, "unknown_device", "full_frame"),
    ],
)
def test_unknown_names_are_answered_with_the_known_ones(
    client: httpx.Client, red: bytes, task: str, options: dict[str, str], code: str, said: str
) -> None:
    detail = "found 'bold'"
    for body in (
        {"json": {"patients": [patient(red)], **options}},
        as_form([red], options),
        {"content": red, "headers": PNG, "params": options},
    ):
        problem = problem_of(client.post(f"/v1/{task}", **body), 422, code)
        assert said in problem["detail"]
        assert detail in problem["detail"]


def test_unknown_device_of_one_patient_is_refused(client: httpx.Client, red: bytes) -> None:
    document = {"patients": [patient(red), patient(red, device="bold")]}
    problem_of(client.post("/v1/malignancy", json=document), 422, "unknown_device")


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
    for body in (b"[" + b"{}," * 60_000 + b"{}]", b"[" + b"0," * 1_000_001 + b"0]"):
        response = client.post("/v1/malignancy", content=body, headers=JSON)
        problem_of(response, 413, "payload_too_large")


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
        path = up.app.state.engine.bundle.path / "text_tower.onnx"
        graph = path.read_bytes()
        path.unlink()
        try:
            response = up.client.post("/v1/embeddings", json={"texts": ["red"]})
        finally:
            path.write_bytes(graph)
        problem = problem_of(response, 500, "internal")
        assert "tower" not in response.text
        assert problem["detail"].startswith("The service failed")
        # One request's failure is its own.
        assert up.client.post("/v1/malignancy", content=red, headers=PNG).status_code == 200


def test_every_code_of_the_table_has_a_status_and_every_error_a_code() -> None:
    assert set(STATUS) == set(ErrorCode)
    assert set(TABLE.values()) <= set(ErrorCode)


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
