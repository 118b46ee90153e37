"""Stage folders: finished, half-written, stale."""

from pathlib import Path
from typing import Any

import pytest

from training.errors import StaleInput
from training.runs import run_stage, stamp_of


def _write(folder: Path) -> dict[str, Any]:
    (folder / "weights").write_text("w", "utf-8")
    return {"loss": 1.0}


def test_a_finished_stage_is_stamped_and_not_redone(tmp_path: Path) -> None:
    run_stage(tmp_path / "s", {"seed": 1}, _write)
    assert stamp_of(tmp_path / "s")["figures"] == {"loss": 1.0}

    def never(_folder: Path) -> dict[str, Any]:
        raise AssertionError("redone")

    run_stage(tmp_path / "s", {"seed": 1}, never)


def test_a_half_written_stage_is_not_a_finished_one(tmp_path: Path) -> None:
    def dies(folder: Path) -> dict[str, Any]:
        _write(folder)
        raise RuntimeError("killed")

    with pytest.raises(RuntimeError):
        run_stage(tmp_path / "s", {"seed": 1}, dies)
    assert not (tmp_path / "s").exists()
    assert (tmp_path / "s.partial" / "weights").exists()
    run_stage(tmp_path / "s", {"seed": 1}, _write)
    assert not (tmp_path / "s.partial").exists()


def test_other_inputs_are_refused_by_name(tmp_path: Path) -> None:
    run_stage(tmp_path / "s", {"seed": 1, "archive": "a"}, _write)
    with pytest.raises(StaleInput, match="archive"):
        run_stage(tmp_path / "s", {"seed": 1, "archive": "b"}, _write)


def test_a_folder_without_a_stamp_is_refused(tmp_path: Path) -> None:
    (tmp_path / "s").mkdir()
    with pytest.raises(StaleInput, match=r"stamp\.json"):
        run_stage(tmp_path / "s", {"seed": 1}, _write)
