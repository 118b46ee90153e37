"""What is refused, with which code, and where the pointer points: integrators debug by it."""

import json
from typing import Any

import httpx
import pytest

from tests.service.conftest import as_form, b64, patient, problem_of

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
            "/labels/1/label",
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
    pointer = "/" + next(k for k, v in options.items() if v == "bold")
    for body in (
        {"json": {"patients": [patient(red)], **options}},
        as_form([red], options),
        {"content": red, "headers": PNG, "params": options},
    ):
        problem = problem_of(client.post(f"/v1/{task}", **body), 422, code)
        assert said in problem["detail"]
        assert "bold" not in problem["detail"]
        assert problem["pointer"] == problem["errors"][0]["pointer"] == pointer


def test_unknown_device_of_one_patient_is_pointed_at(client: httpx.Client, red: bytes) -> None:
    document = {"patients": [patient(red), patient(red, device="bold")]}
    for task in ("malignancy", "embeddings"):
        problem = problem_of(client.post(f"/v1/{task}", json=document), 422, "unknown_device")
        assert problem["pointer"] == "/patients/1/device"


def test_names_are_asked_for_in_good_english(client: httpx.Client, red: bytes) -> None:
    document = {"patients": [patient(red)], "operating_point": "bold"}
    detail = client.post("/v1/malignancy", json=document).json()["detail"]
    assert detail.startswith("expected an operating point out of balanced, ")


@pytest.mark.parametrize("frame_id", ["می\u200cخواهم", "👩\u200d⚕️", "\ue000"])
def test_frame_id_may_hold_joiners_and_private_characters(
    client: httpx.Client, red: bytes, frame_id: str
) -> None:
    params = {"frame_id": frame_id}
    answer = client.post("/v1/malignancy", content=red, headers=PNG, params=params)
    assert answer.json()["patients"][0]["frames"][0]["frame_id"] == frame_id


@pytest.mark.parametrize("query", ["frame_id=%ff", "%ff=1", "frame_id=%ed%a0%80"])
def test_query_that_is_not_utf8_is_malformed(client: httpx.Client, red: bytes, query: str) -> None:
    response = client.post(f"/v1/malignancy?{query}", content=red, headers=PNG)
    problem_of(response, 400, "malformed_request")


def test_a_prompt_may_stand_twice(client: httpx.Client, red: bytes) -> None:
    labels = [A, {"label": "b", "prompts": ["y", "y"]}]
    document = {"patients": [patient(red)], "labels": labels}
    assert client.post("/v1/zero-shot", json=document).status_code == 200
