"""Recipes: every problem at once, overrides, and the three that ship."""

from pathlib import Path

import pytest

from training.config import digest, load
from training.errors import ConfigError

CONFIGS = Path(__file__).parents[2] / "training" / "configs"


@pytest.mark.parametrize("path", sorted(CONFIGS.glob("*.toml")), ids=lambda p: p.stem)
def test_every_shipped_recipe_loads_and_opens_with_its_command(path: Path) -> None:
    assert load(path).name == path.stem
    assert path.read_text("utf-8").startswith("# ")
    assert "python -m training" in path.read_text("utf-8") or "make train" in path.read_text(
        "utf-8"
    )


def test_all_problems_are_reported_at_once(tmp_path: Path) -> None:
    text = (CONFIGS / "smoke.toml").read_text("utf-8")
    text = (
        text.replace("seed = 1", 'seed = "one"')
        .replace("tau = 0.08", "tua = 0.08")
        .replace('"pooled"', '"all"')
    )
    (tmp_path / "bad.toml").write_text(text, "utf-8")
    with pytest.raises(ConfigError) as caught:
        load(tmp_path / "bad.toml")
    for part in (
        "seed: expected int",
        "attunement.tua: unknown",
        "attunement.tau: missing",
        "cleansing.selection",
    ):
        assert part in str(caught.value)


def test_overrides_change_one_value_and_the_digest() -> None:
    plain = load(CONFIGS / "smoke.toml")
    changed = load(CONFIGS / "smoke.toml", ["attunement.lr=1e-5", "attunement.targets=one_hot"])
    assert changed.attunement.lr == 1e-5
    assert changed.attunement.targets == "one_hot"
    assert digest(plain) != digest(changed)
    assert digest(plain.model) == digest(changed.model)


@pytest.mark.parametrize(
    ("override", "told"),
    [
        ("attunement.tau=0", "above 0"),
        ("cleansing.batch=0", "above 0"),
        ("cleansing.share=1.2", "at most 1"),
        ("attunement.lr=-1.0", "at least 0"),
    ],
)
def test_a_number_out_of_range_is_refused(override: str, told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        load(CONFIGS / "smoke.toml", [override])


def test_an_unknown_override_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"attunement\.speed: unknown"):
        load(CONFIGS / "smoke.toml", ["attunement.speed=9"])


def test_a_missing_recipe_names_the_known_ones() -> None:
    with pytest.raises(ConfigError, match="default"):
        load(CONFIGS / "nothing.toml")


def test_a_missing_recipe_names_nothing_but_recipes(tmp_path: Path) -> None:
    smoke = (CONFIGS / "smoke.toml").read_text("utf-8")
    for name, text in (
        ("pyproject", '[project]\nname = "x"\n'),
        ("broken", "x = "),
        ("own", smoke),
    ):
        (tmp_path / f"{name}.toml").write_text(text, "utf-8")
    with pytest.raises(ConfigError, match=r"recipes there: own$"):
        load(tmp_path / "nothing.toml")
