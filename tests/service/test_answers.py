"""What the four tasks answer, over HTTP, with a bundle that knows red from pink."""

import math
from concurrent.futures import ThreadPoolExecutor
from io import BytesIO
from typing import Any

import httpx
import numpy as np
import pytest
from PIL import Image

from service.answers import Embeddings, NamedTaskAnswer, ZeroShotAnswer
from tests.service.conftest import (
    BETWEEN,
    BLACK,
    Running,
    as_form,
    b64,
    image,
    patient,
    problem_of,
)
from tests.tiny_bundle import PINK, RED

TASKS = ("polyp-detection", "malignancy")
FREE = [{"label": "r", "prompts": ["red"]}, {"label": "p", "prompts": ["pink"]}]


def ask(client: httpx.Client, task: str, document: dict[str, Any]) -> dict[str, Any]:
    response = client.post(f"/v1/{task}", json=document)
    assert response.status_code == 200, response.text
    answer: dict[str, Any] = response.json()
    return answer


def without_id(answer: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in answer.items() if key != "request_id"}


@pytest.mark.parametrize("task", TASKS)
def test_red_frame_is_positive_and_pink_is_negative(
    client: httpx.Client, task: str, red: bytes, pink: bytes
) -> None:
    answer = ask(client, task, {"patients": [patient(red), patient(pink)]})
    NamedTaskAnswer.model_validate(answer)
    high, low = answer["patients"]
    assert (high["decision"], low["decision"]) == ("positive", "negative")
    assert high["probability"] > 0.9 > 0.1 > low["probability"]
    assert list(high["scores"]) == answer["labels"]
    assert math.isclose(sum(high["scores"].values()), 1.0)


@pytest.mark.parametrize("task", ["polyp-detection", "malignancy", "zero-shot", "embeddings"])
def test_three_forms_give_the_same_answer(client: httpx.Client, task: str, red: bytes) -> None:
    options = {"labels": "colour"} if task == "zero-shot" else {}
    ids = {"patient_id": "p.1"}
    forms = [
        client.post(
            f"/v1/{task}",
            **as_form([red], {**ids, **options, "frames": [{"frame_id": "f 1"}]}),
        ),
        client.post(
            f"/v1/{task}",
            json={
                **options,
                "patients": [{**ids, "frames": [{"frame_id": "f 1", "image": b64(red)}]}],
            },
        ),
        client.post(
            f"/v1/{task}",
            content=red,
            headers={"Content-Type": "image/png"},
            params={**ids, **options, "frame_id": "f 1"},
        ),
    ]
    assert [form.status_code for form in forms] == [200, 200, 200], [f.text for f in forms]
    answers = [without_id(form.json()) for form in forms]
    assert answers[0] == answers[1] == answers[2]


def test_form_and_json_agree_on_a_patient_of_many_frames(client: httpx.Client) -> None:
    frames = [image((200 - 3 * i, 30 + 2 * i, 30 + i)) for i in range(20)]
    form = client.post("/v1/malignancy", **as_form(frames, {"explain": True}))
    body = ask(client, "malignancy", {"patients": [patient(*frames)], "explain": True})
    # Batches differ from run to run, and with them the last bits of fp32.
    one, two = (numbers_of(without_id(x)) for x in (form.json(), body))
    assert np.allclose(one, two, atol=2e-6)


def numbers_of(node: Any) -> list[float]:
    if isinstance(node, dict):
        return [x for value in node.values() for x in numbers_of(value)]
    if isinstance(node, list):
        return [x for value in node for x in numbers_of(value)]
    return [float(node)] if isinstance(node, int | float) else []


def test_order_of_patients_and_frames_is_the_callers(client: httpx.Client) -> None:
    colours = [RED, PINK, BLACK, PINK, RED]
    patients = [
        {
            "patient_id": f"p{number}",
            "frames": [
                {"frame_id": f"f{9 - place}", "image": b64(image(colour))}
                for place, colour in enumerate(colours[number:])
            ],
        }
        for number in (3, 0, 2)
    ]
    answer = ask(client, "polyp-detection", {"patients": patients})
    assert [one["patient_id"] for one in answer["patients"]] == ["p3", "p0", "p2"]
    frames = answer["patients"][1]["frames"]
    assert [one["frame_id"] for one in frames] == ["f9", "f8", "f7", "f6", "f5"]
    found = [one.get("decision", one["status"]) for one in frames]
    assert found == ["positive", "negative", "abstained", "negative", "positive"]


def test_missing_ids_are_the_decimal_index(client: httpx.Client, red: bytes) -> None:
    answer = ask(client, "malignancy", {"patients": [patient(red), patient(red, red)]})
    assert [one["patient_id"] for one in answer["patients"]] == ["0", "1"]
    assert [one["frame_id"] for one in answer["patients"][1]["frames"]] == ["0", "1"]


@pytest.mark.parametrize("point", ["sensitivity_first", "balanced", "specificity_first"])
@pytest.mark.parametrize("colour", [RED, PINK, BETWEEN, (209, 80, 70)])
def test_with_one_scored_frame_the_patient_equals_it(
    client: httpx.Client, point: str, colour: tuple[int, int, int]
) -> None:
    document = {
        "operating_point": point,
        "patients": [patient(image(BLACK), b"not an image", image(colour))],
    }
    one = ask(client, "malignancy", document)["patients"][0]
    frame = one["frames"][2]
    for key in ("probability", "scores", "decision"):
        assert one[key] == frame[key]
    assert one.get("reason") == frame.get("reason")
    assert frame["attention"] == 1.0
    assert (one["frames_total"], one["frames_scored"]) == (3, 1)


def test_attention_sums_to_one_over_the_scored_frames_and_follows_the_lesion(
    client: httpx.Client, red: bytes, pink: bytes
) -> None:
    document = {"patients": [patient(pink, red, image(BLACK), pink)]}
    one = ask(client, "polyp-detection", document)["patients"][0]
    weights = [frame["attention"] for frame in one["frames"] if frame["status"] == "scored"]
    assert math.isclose(sum(weights), 1.0, abs_tol=1e-6)
    assert max(weights) == one["frames"][1]["attention"]
    assert "attention" not in one["frames"][2]


def test_one_lesion_among_many_normal_frames_stays_positive(
    client: httpx.Client, red: bytes, pink: bytes
) -> None:
    frames = [pink] * 60 + [red] + [pink] * 60
    one = ask(client, "polyp-detection", {"patients": [patient(*frames)]})["patients"][0]
    assert one["decision"] == "positive"


def test_operating_point_decides_and_is_answered(client: httpx.Client) -> None:
    frame = image(BETWEEN)
    found = {}
    for point in ("sensitivity_first", "specificity_first"):
        document = {"operating_point": point, "patients": [patient(frame)]}
        answer = ask(client, "polyp-detection", document)
        assert answer["operating_point"]["name"] == point
        found[point] = answer["patients"][0]["frames"][0]
    first, last = found["sensitivity_first"], found["specificity_first"]
    assert first["probability"] == last["probability"]
    assert (first["decision"], last["decision"]) == ("positive", "negative")


def test_low_confidence_stays_scored_and_in_the_pooling(client: httpx.Client, red: bytes) -> None:
    document = {"patients": [patient(image(BETWEEN)), patient(image(BETWEEN), red)]}
    alone, pooled = ask(client, "polyp-detection", document)["patients"]
    for frame in (alone["frames"][0], pooled["frames"][0]):
        assert (frame["status"], frame["decision"]) == ("scored", "abstained")
        assert frame["reason"] == "low_confidence"
        assert 0.45 <= frame["probability"] < 0.55
    assert (alone["status"], alone["decision"]) == ("scored", "abstained")
    assert pooled["frames"][0]["attention"] > 0


def test_gate_sets_frames_aside_and_a_patient_of_such_is_abstained(client: httpx.Client) -> None:
    document = {"patients": [patient(image(BLACK), b"broken")]}
    one = ask(client, "malignancy", document)["patients"][0]
    assert one["status"] == "abstained"
    assert one["frames"][0] == {"frame_id": "0", "status": "abstained", "reason": "dark"}
    assert one["frames"][1]["status"] == "rejected"
    assert (one["frames_total"], one["frames_scored"]) == (2, 0)
    assert not {"probability", "scores", "decision"} & set(one)


def test_bad_frame_fails_alone_and_each_kind_has_its_code(client: httpx.Client, red: bytes) -> None:
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 255, (90, 90, 3), np.uint8))
    jpeg = BytesIO()
    noise.save(jpeg, "JPEG")
    bad = {
        "empty": b"",
        "unsupported_format": b"GIF89a" + bytes(100),
        "image_truncated": jpeg.getvalue()[:2000],
        "image_undecodable": b"RIFF\x10\0\0\0WEBP" + b"x" * 100,
        "too_small": image(size=(63, 200)),
    }
    answer = ask(client, "malignancy", {"patients": [patient(*bad.values(), red)]})
    frames = answer["patients"][0]["frames"]
    assert [frame["error"]["code"] for frame in frames[:-1]] == list(bad)
    assert frames[-1]["status"] == "scored"
    NamedTaskAnswer.model_validate(answer)


def test_when_every_frame_is_rejected_the_problem_carries_the_patients(
    client: httpx.Client,
) -> None:
    document = {"patients": [patient(b""), patient(b"x", b"y", patient_id="second")]}
    problem = problem_of(client.post("/v1/malignancy", json=document), 422, "all_frames_rejected")
    assert [one["patient_id"] for one in problem["patients"]] == ["0", "second"]
    assert [one["status"] for one in problem["patients"]] == ["rejected", "rejected"]
    assert problem["patients"][1]["frames"][1]["error"]["code"] == "unsupported_format"


def test_one_abstained_frame_is_enough_for_an_answer(client: httpx.Client) -> None:
    document = {"patients": [patient(b"x"), patient(image(BLACK))]}
    answer = ask(client, "malignancy", document)
    assert [one["status"] for one in answer["patients"]] == ["rejected", "abstained"]


@pytest.mark.parametrize("task", TASKS)
def test_explain_adds_a_heatmap_to_scored_frames_only(client: httpx.Client, task: str) -> None:
    half = Image.new("RGB", (96, 96), PINK)
    half.paste(RED, (0, 0, 48, 96))
    out = BytesIO()
    half.save(out, "PNG")
    document = {"explain": True, "patients": [patient(out.getvalue(), image(BLACK))]}
    answer = ask(client, task, document)
    NamedTaskAnswer.model_validate(answer)
    shown, dark = answer["patients"][0]["frames"]
    heat = np.array(shown["heatmap"]["values"]).reshape(
        shown["heatmap"]["rows"], shown["heatmap"]["cols"]
    )
    assert heat.min() >= 0.0
    assert heat.max() <= 1.0
    assert heat[:, 0].mean() > 0.9 > 0.1 > heat[:, -1].mean()
    assert "heatmap" not in dark


def test_every_answer_carries_its_provenance(
    server: Running, client: httpx.Client, red: bytes
) -> None:
    bundle = server.app.state.engine.bundle
    requests: dict[str, dict[str, Any]] = {
        "malignancy": {},
        "zero-shot": {"labels": "colour"},
        "embeddings": {},
    }
    for task, options in requests.items():
        answer = ask(client, task, {"patients": [patient(red)], **options})
        assert answer["model"] == {
            "name": "tiny",
            "version": "1.0.0",
            "digest": bundle.digest,
            "execution_provider": "CPUExecutionProvider",
        }
        assert answer["intended_use"].startswith("Research use only.")
    named = ask(client, "malignancy", {"patients": [patient(red)]})
    assert named["label_definitions"] == {"malignant": "a red frame", "benign": "a pink frame"}


def test_zero_shot_with_free_labels_has_softmax_scores_and_nothing_calibrated(
    client: httpx.Client, red: bytes, pink: bytes
) -> None:
    document = {"labels": FREE, "patients": [patient(red, pink), patient(red)]}
    answer = ask(client, "zero-shot", document)
    ZeroShotAnswer.model_validate(answer)
    both, one = answer["patients"]
    assert answer["labels"] == ["r", "p"]
    assert answer["calibrated"] is False
    assert "operating_point" not in answer
    assert [frame["top_label"] for frame in both["frames"]] == ["r", "p"]
    assert one["scores"] == one["frames"][0]["scores"]
    for frame in both["frames"]:
        assert not {"probability", "decision"} & set(frame)
        cosine = np.array(list(frame["cosine"].values()))
        softmax = np.exp(10.0 * cosine) / np.exp(10.0 * cosine).sum()
        assert np.allclose(list(frame["scores"].values()), softmax, atol=1e-5)
    for label in ("r", "p"):
        weights = [frame["attention"][label] for frame in both["frames"]]
        assert math.isclose(sum(weights), 1.0, abs_tol=1e-6)


def test_free_labels_with_the_prompts_of_a_named_set_score_like_it(
    client: httpx.Client, server: Running, red: bytes
) -> None:
    stored = server.app.state.engine.bundle.label_sets["colour"]
    free = [{"label": one.label, "prompts": list(one.prompts)} for one in stored.labels]
    named = ask(client, "zero-shot", {"labels": "colour", "patients": [patient(red)]})
    asked = ask(client, "zero-shot", {"labels": free, "patients": [patient(red)]})
    assert named["label_set"] == "colour"
    assert asked["label_set"] is None
    one, two = (numbers_of(answer["patients"]) for answer in (named, asked))
    assert np.allclose(one, two, atol=1e-5)


@pytest.mark.parametrize("count", [2, 3, 4, 31, 32])
def test_any_number_of_free_labels_keeps_their_order(
    client: httpx.Client, red: bytes, count: int
) -> None:
    labels = [{"label": f"l{i}", "prompts": ["pink"]} for i in range(count)]
    labels[-1]["prompts"] = ["red", "red tissue"]
    answer = ask(client, "zero-shot", {"labels": labels, "patients": [patient(red)]})
    assert list(answer["patients"][0]["scores"]) == [one["label"] for one in labels]
    assert answer["patients"][0]["top_label"] == f"l{count - 1}"


def test_zero_shot_with_a_positive_set_pools_as_the_named_task_does(
    client: httpx.Client, red: bytes, pink: bytes
) -> None:
    frames = [red, *[pink] * 30]
    answer = ask(client, "zero-shot", {"labels": "malignancy", "patients": [patient(*frames)]})
    one = answer["patients"][0]
    assert one["top_label"] == "malignant"  # `benign` would find thirty benign frames
    assert set(one["frames"][0]["attention"]) == {"malignant", "benign"}


def test_zero_shot_heatmap_is_that_of_the_top_label(
    client: httpx.Client, red: bytes, pink: bytes
) -> None:
    document = {"labels": FREE, "explain": True, "patients": [patient(red, pink)]}
    frames = ask(client, "zero-shot", document)["patients"][0]["frames"]
    assert [frame["heatmap"]["label"] for frame in frames] == ["r", "p"]
    assert all(min(frame["heatmap"]["values"]) > 0.9 for frame in frames)


def test_embeddings_are_unit_rows_in_one_space(client: httpx.Client, red: bytes) -> None:
    document = {"patients": [patient(red, image(BLACK), b"")], "texts": ["red", "blue"]}
    answer = ask(client, "embeddings", document)
    Embeddings.model_validate(answer)
    frames = answer["patients"][0]["frames"]
    assert [frame["status"] for frame in frames] == ["scored", "abstained", "rejected"]
    assert [text["index"] for text in answer["texts"]] == [0, 1]
    rows = np.array([frames[0]["embedding"], *(text["embedding"] for text in answer["texts"])])
    assert rows.shape == (3, answer["dimension"])
    assert np.allclose(np.linalg.norm(rows, axis=1), 1.0, atol=1e-5)
    assert rows[0] @ rows[1] > 0.9 > rows[0] @ rows[2]


def test_embedding_digits_give_the_float32_back(client: httpx.Client, red: bytes) -> None:
    answer = ask(client, "embeddings", {"patients": [patient(red)]})
    wide = answer["patients"][0]["frames"][0]["embedding"]
    assert [float(str(np.float32(value))) for value in wide] == wide


def test_texts_alone_are_embedded_in_json_and_form(client: httpx.Client) -> None:
    body = ask(client, "embeddings", {"texts": ["red", "pink"]})
    form = client.post("/v1/embeddings", **as_form([], {"texts": ["red", "pink"]}))
    assert form.status_code == 200
    assert without_id(form.json()) == without_id(body)
    assert body["patients"] == []


def test_device_profile_crops_and_a_patients_own_wins(client: httpx.Client) -> None:
    both = Image.new("RGB", (200, 100), PINK)
    both.paste(RED, (0, 0, 100, 100))
    out = BytesIO()
    both.save(out, "PNG")
    frame = out.getvalue()
    document = {
        "device": "left-half",
        "patients": [patient(frame), patient(frame, device="full_frame")],
    }
    cropped, whole = ask(client, "polyp-detection", document)["patients"]
    assert cropped["probability"] > whole["probability"] + 0.1
    query = client.post(
        "/v1/polyp-detection",
        content=frame,
        headers={"Content-Type": "image/png"},
        params={"device": "left-half"},
    )
    assert query.json()["patients"][0]["probability"] == cropped["probability"]


def test_concurrent_requests_do_not_mix(client: httpx.Client) -> None:
    colours = [(200 - 5 * i, 30 + 6 * i, 30 + 5 * i) for i in range(24)]
    alone = [
        ask(client, "malignancy", {"patients": [patient(image(one))]})["patients"][0]
        for one in colours
    ]

    def again(colour: tuple[int, int, int]) -> Any:
        return ask(client, "malignancy", {"patients": [patient(image(colour))]})["patients"][0]

    with ThreadPoolExecutor(8) as pool:
        together = list(pool.map(again, colours))
    assert np.allclose(
        [one["probability"] for one in alone],
        [one["probability"] for one in together],
        atol=1e-6,
    )
