"""An archive of a run: made once, begun anew when cut off, refused when made otherwise."""

from pathlib import Path

import pytest

from training.archives import archive_of_run
from training.errors import ArchiveRefused, StaleInput
from training.records import read
from training.sources import read_split


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


def test_a_folder_without_an_index_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    with pytest.raises(ArchiveRefused, match=r"index\.csv"):
        archive_of_run(tmp_path / "nowhere", tmp_path / "run", 1)
    assert not (tmp_path / "run").exists()


def test_an_archive_without_the_split_of_its_sources_is_named(tmp_path: Path) -> None:
    with pytest.raises(ArchiveRefused, match=r"source_split\.json.*composed"):
        read_split(tmp_path / "source_split.json")
