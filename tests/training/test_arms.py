"""Arms: the stages of one recipe added one by one; what two arms share is trained once."""

import dataclasses
import json
from pathlib import Path

import pytest

torch = pytest.importorskip("torch", reason="needs torch (extra `train`)")
pytest.importorskip("open_clip", reason="needs open_clip (extra `train`)")

from training.archives import archive_of_run  # noqa: E402
from training.arms import EXPERIMENTS, extraction_f1, figures_table, run_arms  # noqa: E402
from training.config import AttributesConfig, load  # noqa: E402
from training.errors import ConfigError, StaleInput  # noqa: E402
from training.phantom import compose_phantom  # noqa: E402
from training.reading import read_exams  # noqa: E402
from training.records import read  # noqa: E402

SMOKE = Path(__file__).parents[2] / "training" / "configs" / "smoke.toml"
QUICK = ["cleansing.steps=2", "attunement.steps=2", "unification.steps=2", "bundle.canaries=2"]


@pytest.mark.slow
def test_arms_share_stages_and_give_one_row_each(tmp_path: Path) -> None:
    archive = archive_of_run(None, tmp_path / "base", 1)
    names = ["+ attunement", "+ unification"]
    out = tmp_path / "arms"
    table = run_arms("stages", SMOKE, QUICK, archive, None, out, names=names)
    assert [row.split(" | ")[0] for row in table.splitlines()[2:]] == [f"| {n}" for n in names]
    shared = out / "stages" / "unification" / "seed-1" / "2-attunement"
    assert shared.resolve() == (out / "stages/attunement/seed-1/2-attunement").resolve()
    run_arms("attributes", SMOKE, QUICK, archive, None, out, names=["rules"])
    last = out / "attributes" / "rules" / "seed-1" / "3-unification"
    assert last.resolve() == (out / "stages/unification/seed-1/3-unification").resolve()
    found = json.loads((out / "stages.json").read_text("utf-8"))
    assert [row["arm"] for row in found["arms"]] == names
    assert all((out / row["folder"] / "2-attunement").is_dir() for row in found["arms"])
    assert {row["figures"]["part"] for row in found["arms"]} == {found["part"]} == {"select"}
    assert run_arms("stages", SMOKE, QUICK, archive, None, out, names=names) == table
    with pytest.raises(StaleInput, match="of the part select, not of report"):
        run_arms("stages", SMOKE, QUICK, archive, None, out, names=names, part="report")


def test_extraction_is_judged_against_what_the_composer_wrote(tmp_path: Path) -> None:
    archive = tmp_path / "archive"
    compose_phantom(archive, 16, 1)
    exams = read_exams(read(archive).records, AttributesConfig("rules", 0.0, 0.0), archive, True)
    f1 = extraction_f1(archive, exams)
    assert f1 is not None
    assert f1 > 0.95
    blind = [
        dataclasses.replace(
            e, lesions=tuple(dataclasses.replace(x, codes=(-1,) * 9) for x in e.lesions)
        )
        for e in exams
    ]
    assert extraction_f1(archive, blind) == 0.0
    (archive / "truth.jsonl").unlink()
    assert extraction_f1(archive, exams) is None


def test_every_arm_is_a_recipe_that_loads() -> None:
    recipes = {
        arm.name: load(SMOKE, arm.overrides) for arms in EXPERIMENTS.values() for arm in arms
    }
    assert not recipes["plain CLIP"].cleansing.enabled
    assert recipes["+ cleansing"].cleansing == load(SMOKE).cleansing
    assert recipes["+ unification"] == load(SMOKE)
    assert not recipes["impression withheld"].attunement.impression
    assert recipes["corrupted 30%"].attributes.corrupted == 0.3
    assert recipes["share 0.45"].cleansing.share == 0.45


def test_an_unknown_arm_is_refused_with_the_known_ones(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="plain CLIP"):
        run_arms("stages", SMOKE, [], tmp_path, None, tmp_path, names=["fancy"])
    with pytest.raises(ConfigError, match="stages, share, attributes"):
        run_arms("luck", SMOKE, [], tmp_path, None, tmp_path)


def test_what_an_arm_does_not_have_is_a_dash_and_seeds_give_their_range() -> None:
    def row(seed: int, auroc: float) -> dict[str, object]:
        figure = {"auroc": auroc, "auroc_low": 0.4, "auroc_high": 0.6}
        return {"arm": "a", "seed": seed, "figures": {"frames": {"crop": {"malignancy": figure}}}}

    one = figures_table([row(1, 0.5)]).splitlines()[-1]
    assert one == "| a | - | - | 0.500 (0.400-0.600) | - | - | - | - |"
    two = figures_table([row(1, 0.5), row(2, 0.7)]).splitlines()[-1]
    assert two == "| a | - | - | 0.600 (0.500-0.700, 2 seeds) | - | - | - | - |"
