"""Arms: the stages of one recipe added one by one; what two arms share is trained once."""

from pathlib import Path

import pytest

torch = pytest.importorskip("torch", reason="needs torch (extra `train`)")
pytest.importorskip("open_clip", reason="needs open_clip (extra `train`)")

from training.archives import archive_of_run  # noqa: E402
from training.arms import ARMS, figures_table, run_arms  # noqa: E402
from training.config import load  # noqa: E402
from training.errors import ConfigError  # noqa: E402

SMOKE = Path(__file__).parents[2] / "training" / "configs" / "smoke.toml"
QUICK = ["cleansing.steps=2", "attunement.steps=2", "unification.steps=2", "bundle.canaries=2"]


def test_arms_share_stages_and_give_one_row_each(tmp_path: Path) -> None:
    archive = archive_of_run(None, tmp_path / "base", 1)
    names = ["+ attunement", "+ unification"]
    table = run_arms(SMOKE, QUICK, archive, None, tmp_path / "arms", names)
    assert [row.split(" | ")[0] for row in table.splitlines()[2:]] == [f"| {n}" for n in names]
    shared = tmp_path / "arms" / "unification" / "2-attunement"
    assert shared.resolve() == (tmp_path / "arms" / "attunement" / "2-attunement").resolve()
    again = run_arms(SMOKE, QUICK, archive, None, tmp_path / "arms", names)
    assert again == table


def test_every_arm_is_a_recipe_that_loads() -> None:
    recipes = {name: load(SMOKE, own) for name, own in ARMS.items()}
    assert not recipes["plain CLIP"].cleansing.enabled
    assert recipes["+ cleansing"].cleansing == load(SMOKE).cleansing
    assert recipes["+ unification"] == load(SMOKE)
    assert not recipes["impression withheld"].attunement.impression


def test_an_unknown_arm_is_refused_with_the_known_ones(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="plain CLIP"):
        run_arms(SMOKE, [], tmp_path, None, tmp_path, ["fancy"])


def test_what_an_arm_does_not_have_is_a_dash() -> None:
    row = {"auroc": 0.5, "auroc_low": 0.4, "auroc_high": 0.6}
    table = figures_table({"a": {"frames": {"crop": {"malignancy": row}}}})
    assert table.splitlines()[-1] == "| a | - | - | 0.500 (0.400-0.600) | - | - | - | - |"
