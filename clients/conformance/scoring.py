"""Lines of the contract about scoring."""

from math import isclose, sqrt
from typing import Any

from kit import FRAME, Kit, line, need, png

NAMED = (("polyp-detection", ["polyp", "no_polyp"]), ("malignancy", ["malignant", "benign"]))
LABELS = [{"label": "a", "prompts": ["a polyp"]}, {"label": "b", "prompts": ["normal mucosa"]}]
BAD = {"unsupported_format": b"no image at all", "empty": b"", "too_small": png(side=8)}


def frames_of(document: dict[str, Any]) -> list[dict[str, Any]]:
    """The frames of the first patient."""
    frames: list[dict[str, Any]] = document["patients"][0]["frames"]
    return frames


@line("Three request forms, one meaning")
def forms(kit: Kit) -> None:
    """The same frame gives the same figures in each form."""
    answers = [
        kit.form("malignancy", [FRAME]),
        kit.json("malignancy", {"patients": [kit.patient(FRAME)]}),
        kit.one("malignancy", FRAME),
    ]
    for answer in answers:
        need(answer.status_code == 200, f"expected 200; found {answer.status_code}")
    first, *others = [answer.json()["patients"] for answer in answers]
    need(all(other == first for other in others), "expected the same patients from all forms")


@line("Named tasks: labels with the positive one first, model, intended use, operating point")
def envelope(kit: Kit) -> None:
    """Every answer carries its provenance."""
    for task, labels in NAMED:
        document = kit.scored(task, [FRAME])
        need(document["labels"] == labels, f"{task}: expected {labels}; found {document['labels']}")
        need(set(document["label_definitions"]) == set(labels), "expected a definition per label")
        for name in ("name", "version", "digest", "execution_provider"):
            need(document["model"].get(name), f"expected model.{name}")
        need("research use" in document["intended_use"].lower(), "expected the intended use")
        need(document["operating_point"]["name"] == "balanced", "expected balanced by default")


@line("probability is of the positive label; scores of a frame sum to 1")
def probabilities(kit: Kit) -> None:
    """Figures agree with each other."""
    for task, labels in NAMED:
        frame = frames_of(kit.scored(task, [FRAME]))[0]
        need(frame["status"] == "scored", f"expected the kit's frame scored; found {frame}")
        need(isclose(sum(frame["scores"].values()), 1.0, abs_tol=1e-6), "expected a sum of 1")
        need(isclose(frame["probability"], frame["scores"][labels[0]]), "expected probability")
        need(frame["decision"] in ("positive", "negative", "abstained"), "expected a decision")


@line("One scored frame: patient probability and decision equal the frame's")
def single(kit: Kit) -> None:
    """N = 1 is no special case to the caller."""
    patient = kit.scored("malignancy", [FRAME])["patients"][0]
    for name in ("probability", "decision"):
        need(patient[name] == patient["frames"][0][name], f"expected the frame's {name}")


@line("attention is always there and sums to 1 over the scored frames")
def attention(kit: Kit) -> None:
    """Whatever was rejected beside them."""
    frames = frames_of(kit.scored("malignancy", [FRAME, b"bad", FRAME]))
    weights = [frame["attention"] for frame in frames if frame["status"] == "scored"]
    need(isclose(sum(weights), 1.0, abs_tol=1e-4), f"expected a sum of 1; found {sum(weights)}")


@line("explain adds a heatmap of rows x cols values in 0-1 to each scored frame")
def heatmaps(kit: Kit) -> None:
    """And nothing without it."""
    heatmap = frames_of(kit.scored("malignancy", [FRAME], {"explain": True}))[0]["heatmap"]
    need(len(heatmap["values"]) == heatmap["rows"] * heatmap["cols"], "expected rows x cols values")
    need(all(0 <= value <= 1 for value in heatmap["values"]), "expected values in 0-1")
    need("heatmap" not in frames_of(kit.scored("malignancy", [FRAME]))[0], "expected none unasked")


@line("The same request gives the same figures")
def repeatable(kit: Kit) -> None:
    """So a retry is safe."""
    one, two = (kit.scored("polyp-detection", [FRAME])["patients"] for _ in range(2))
    need(one == two, "expected equal figures")


@line("Order of patients and frames is the caller's; missing ids are the decimal index")
def order(kit: Kit) -> None:
    """Ids come back where they were sent."""
    patients = [kit.patient(FRAME, FRAME, patient_id="z"), kit.patient(FRAME)]
    answer = kit.json("malignancy", {"patients": patients}).json()["patients"]
    need([one["patient_id"] for one in answer] == ["z", "1"], "expected z, 1")
    need([one["frame_id"] for one in answer[0]["frames"]] == ["0", "1"], "expected frames 0, 1")
    told = {"frames": [{"frame_id": "b"}, {"frame_id": "a"}]}
    frames = frames_of(kit.scored("malignancy", [FRAME, FRAME], told))
    need([one["frame_id"] for one in frames] == ["b", "a"], "expected b, a")


@line("A bad frame is rejected with its code, and its neighbours are scored")
def neighbours(kit: Kit) -> None:
    """unsupported_format, empty, too_small, image_truncated."""
    bad = {**BAD, "image_truncated": FRAME[: len(FRAME) // 2]}
    frames = frames_of(kit.scored("malignancy", [*bad.values(), FRAME]))
    for code, frame in zip(bad, frames, strict=False):
        need(frame["status"] == "rejected", f"{code}: expected rejected; found {frame['status']}")
        need(frame["error"]["code"] == code, f"expected {code}; found {frame['error']['code']}")
    need(frames[-1]["status"] == "scored", "expected the good frame scored")


@line("All frames rejected: 422 all_frames_rejected, with patients")
def nothing_left(kit: Kit) -> None:
    """The answer still says why for each."""
    document = kit.problem(kit.form("malignancy", [b"x", b"y"]), 422, "all_frames_rejected")
    need(len(document["patients"][0]["frames"]) == 2, "expected both frames in patients")


@line("Operating points: sensitivity_first, balanced, specificity_first; another is 422")
def points(kit: Kit) -> None:
    """All three are there, and named in the answer."""
    for name in ("sensitivity_first", "balanced", "specificity_first"):
        document = kit.scored("malignancy", [FRAME], {"operating_point": name})
        need(document["operating_point"]["name"] == name, f"expected {name}")
    answer = kit.form("malignancy", [FRAME], {"operating_point": "no-such"})
    kit.problem(answer, 422, "unknown_operating_point")


@line("zero-shot: softmax scores, calibrated false, no probability, decision or operating point")
def zero_shot(kit: Kit) -> None:
    """An operating point sent is 422."""
    frame = frames_of(kit.scored("zero-shot", [FRAME], {"labels": LABELS}))[0]
    need(isclose(sum(frame["scores"].values()), 1.0, abs_tol=1e-6), "expected a sum of 1")
    need(frame["calibrated"] is False, "expected calibrated false")
    need(frame["top_label"] in ("a", "b"), "expected a top label")
    need(not {"probability", "decision"} & set(frame), "expected neither probability nor decision")
    need(set(frame["attention"]) == {"a", "b"}, "expected attention by label")
    told = {"labels": LABELS, "operating_point": "balanced"}
    kit.problem(kit.form("zero-shot", [FRAME], told), 422, "invalid_request")


@line("zero-shot: 2 to 32 labels of 1 to 16 prompts, or a named set; another name is 422")
def label_limits(kit: Kit) -> None:
    """Bounds on both sides."""
    many = [{"label": f"l{n}", "prompts": ["a"]} for n in range(33)]
    long = [LABELS[0], {"label": "b", "prompts": ["p"] * 17}]
    for labels in ([LABELS[0]], many, long, [LABELS[0], {"label": "b", "prompts": []}]):
        answer = kit.form("zero-shot", [FRAME], {"labels": labels})
        kit.problem(answer, 422, "invalid_request")
    kit.scored("zero-shot", [FRAME], {"labels": "malignancy"})
    answer = kit.form("zero-shot", [FRAME], {"labels": "no-such"})
    kit.problem(answer, 422, "unknown_label_set")


@line("embeddings: unit vectors of `dimension`, of frames and of 1 to 256 texts, in order")
def embeddings(kit: Kit) -> None:
    """Of frames, of texts, of both."""
    answer = kit.json("embeddings", {"patients": [kit.patient(FRAME)], "texts": ["a", "b"]}).json()
    vectors = [answer["patients"][0]["frames"][0]["embedding"]]
    vectors += [one["embedding"] for one in answer["texts"]]
    need([one["index"] for one in answer["texts"]] == [0, 1], "expected indices in order")
    for vector in vectors:
        need(len(vector) == answer["dimension"], "expected `dimension` values")
        length = sqrt(sum(value * value for value in vector))
        need(isclose(length, 1.0, abs_tol=1e-3), f"expected length 1; found {length}")
    kit.problem(kit.json("embeddings", {"texts": ["a"] * 257}), 422, "invalid_request")
