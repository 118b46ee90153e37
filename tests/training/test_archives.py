"""An archive of a run: made once, begun anew when cut off, refused when made otherwise."""

from pathlib import Path

import pytest

from training.archives import archive_of_run
from training.errors import StaleInput
from training.records import read


def test_a_composition_that_was_killed_is_begun_anew(tmp_path: Path) -> None:
    left = tmp_path / "0-archive.partial" / "frames"
    left.mkdir(parents=True)
    (left / "half.jpg").write_bytes(b"\xff\xd8")
    archive = archive_of_run(None, tmp_path, 3)
    assert not (archive / "frames" / "half.jpg").exists()
    assert read(archive, strict=True).records
    assert (archive / "labelled_sample.jsonl").is_file()
    assert (archive / "probes.json").is_file()
    before = (archive / "stamp.json").read_bytes()
    assert archive_of_run(None, tmp_path, 3) == archive
    assert (archive / "stamp.json").read_bytes() == before
    with pytest.raises(StaleInput, match="seed"):
        archive_of_run(None, tmp_path, 4)
