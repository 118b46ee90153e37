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


def test_a_stage_of_another_run_serves_only_where_it_was_made_from_the_same(tmp_path: Path) -> None:
    (tmp_path / "one").mkdir()
    (tmp_path / "two").mkdir()
    twin = run_stage(tmp_path / "one" / "s", {"seed": 1}, _write)

    def other(folder: Path) -> dict[str, Any]:
        (folder / "weights").write_text("other", "utf-8")
        return {}

    linked = run_stage(tmp_path / "two" / "s", {"seed": 1}, other, [twin])
    assert linked.resolve() == twin.resolve()
    made = run_stage(tmp_path / "two" / "t", {"seed": 2}, other, [twin])
    assert (made / "weights").read_text("utf-8") == "other"


def test_checkpoints_outlive_the_stamp_and_not_the_stage(tmp_path: Path) -> None:
    def body(folder: Path) -> dict[str, Any]:
        (folder / "a.ckpt").write_text("c", "utf-8")
        return {}

    folder = run_stage(tmp_path / "s", {"seed": 1}, body)
    assert sorted(path.name for path in folder.iterdir()) == ["stamp.json"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["s"]


def test_other_inputs_are_refused_by_name(tmp_path: Path) -> None:
    run_stage(tmp_path / "s", {"seed": 1, "archive": "a"}, _write)
    with pytest.raises(StaleInput, match="archive"):
        run_stage(tmp_path / "s", {"seed": 1, "archive": "b"}, _write)


def test_a_folder_without_a_stamp_is_refused(tmp_path: Path) -> None:
    (tmp_path / "s").mkdir()
    with pytest.raises(StaleInput, match=r"stamp\.json"):
        run_stage(tmp_path / "s", {"seed": 1}, _write)
