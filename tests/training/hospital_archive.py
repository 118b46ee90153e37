"""A drawn archive dressed as an ingested one: its own exams, labelled frames, pathology."""

import json
from pathlib import Path
from typing import Any

from training.phantom import compose_phantom
from training.records import read_truth, write_jsonl

__all__ = ["write_hospital_archive"]


def write_hospital_archive(out: Path, exams: int = 40, seed: int = 7) -> dict[str, dict[str, Any]]:
    """Draw exams and leave of the truth what a hospital has: labels of some frames, pathology.

    Returns:
        The truth by record id, which is no longer in the archive.
    """
    compose_phantom(out, exams, seed)
    truth = read_truth(out)
    for name in ("truth.jsonl", "source_split.json"):
        (out / name).unlink(missing_ok=True)
    (out / "archive.json").write_text(json.dumps({"format": 1, "kind": "ingested"}), "utf-8")
    labels, outcomes = [], []
    for record_id, told in truth.items():
        frames = [f for f in told["frames"] if told["lesions"]][:8]
        labels += [{"frame": f["file"], "lesion": f["kind"] == "lesion"} for f in frames]
        if told["lesions"]:
            histology = {lesion["histology"] for lesion in told["lesions"]}
            known = {"neoplastic", "non-neoplastic"} >= histology
            outcome = ("neoplastic" in histology) if known else None
            outcomes.append({"record_id": record_id, "text": "", "neoplastic": outcome})
    write_jsonl(out / "labelled_sample.jsonl", labels)
    write_jsonl(out / "pathology.jsonl", outcomes)
    return truth
