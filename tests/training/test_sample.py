"""The labelled sample: prevalence with its interval, and labels that people write by hand."""

import json
from pathlib import Path

import pytest

from training.errors import ConfigError, RecordError
from training.sample import Label, read_labels, read_share


def test_share_comes_from_the_labelled_sample_or_is_asked_for(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="labelled_sample"):
        read_share(tmp_path, 0.0)
    rows = [json.dumps({"frame": f"frames/{i}.jpg", "lesion": i < 60}) for i in range(300)]
    (tmp_path / "labelled_sample.jsonl").write_text("\n".join(rows), "utf-8")
    share = read_share(tmp_path, 0.0)
    assert share.value == 0.2
    assert share.low < 0.2 < share.high
    assert share.sample == 300


@pytest.mark.parametrize("line", ["not json", '{"frame": "a.jpg"}', '{"lesion": 1}', "[]"])
def test_a_bad_label_is_reported_with_file_and_line(tmp_path: Path, line: str) -> None:
    path = tmp_path / "labelled_sample.jsonl"
    path.write_text('{"frame": "a.jpg", "lesion": true}\n' + line + "\n", "utf-8")
    with pytest.raises(RecordError, match=r"labelled_sample\.jsonl:2: expected"):
        read_share(tmp_path, 0.0)
    path.write_text("", "utf-8")
    with pytest.raises(RecordError, match="found none"):
        read_share(tmp_path, 0.0)


def test_only_labels_of_the_frames_in_question_count(tmp_path: Path) -> None:
    rows = [json.dumps({"frame": f"frames/{i}.jpg", "lesion": i < 50}) for i in range(100)]
    (tmp_path / "labelled_sample.jsonl").write_text("\n".join(rows), "utf-8")
    assert read_share(tmp_path, 0.0, {f"frames/{i}.jpg" for i in range(40, 60)}).value == 0.5
    with pytest.raises(RecordError, match="train part"):
        read_share(tmp_path, 0.0, {"frames/other.jpg"})


def test_a_judgement_of_the_lesion_may_stand_beside(tmp_path: Path) -> None:
    path = tmp_path / "labelled_sample.jsonl"
    path.write_text('{"frame": "a.jpg", "lesion": true, "neoplastic": false}\n', "utf-8")
    assert read_labels(tmp_path) == [Label("a.jpg", True, False)]
    path.write_text('{"frame": "a.jpg", "lesion": true, "neoplastic": "yes"}\n', "utf-8")
    with pytest.raises(RecordError, match=r":1: expected"):
        read_labels(tmp_path)
