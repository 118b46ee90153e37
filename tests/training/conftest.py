"""What several test modules share: one run of the smoke recipe, trained once a session."""

from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def smoke_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a finished run on drawn frames; tests leave its stages as they are."""
    pytest.importorskip("torch", reason="needs torch (extra `train`)")
    pytest.importorskip("open_clip", reason="needs open_clip (extra `train`)")
    from training.__main__ import main

    out = tmp_path_factory.mktemp("run") / "smoke"
    assert main(["train", "--recipe", "smoke", "--out", str(out)]) == 0
    return out
