"""Few shots: how they are drawn, what is chosen inside them, and what is measured of them."""

import json
from pathlib import Path

import numpy as np
import pytest

from model_store.scoring import unit_rows
from tests.tiny_bundle import build_tiny_bundle
from tests.training.colour_archive import write_archive
from training.__main__ import main
from training.errors import LabelsRefused
from training.fewshot import adapters
from training.fewshot.adapters import ADAPTERS, fit_cache, fit_linear, out_of_fold
from training.fewshot.frames import Frames, draw_shots, folds
from training.fewshot.site import Wanted, fit_held_out
from training.fewshot.study import measure
from training.metrics import auroc, group_weights


def frames_of(
    n: int = 80, groups: int = 40, useful: float = 1.0, helpful: float = 0.0, seed: int = 0
) -> Frames:
    """Frames whose class is told by the margin's axis (``useful``) and by another (``helpful``)."""
    rng = np.random.default_rng(seed)
    y = np.arange(n) % 2 == 0
    rows = rng.normal(size=(n, 6))
    rows[:, 0] += np.where(y, useful, -useful)
    rows[:, 1] += np.where(y, helpful, -helpful)
    direction = np.zeros(6)
    direction[0] = 10.0
    names = np.array([f"g{i % groups:03}" for i in rng.permutation(n)])
    return Frames(unit_rows(rows), y, names, direction)


# ---- drawing -------------------------------------------------------------------------------------


def test_shots_are_of_distinct_groups_while_there_are_any() -> None:
    frames = frames_of(n=80, groups=40)
    for seed in range(5):
        drawn = draw_shots(frames, 8, np.random.default_rng(seed))
        assert frames.y[drawn].tolist() == [True] * 8 + [False] * 8
        assert len(set(frames.groups[drawn].tolist())) == 16


def test_groups_repeat_only_where_they_are_too_few_and_then_evenly() -> None:
    frames = frames_of(n=60, groups=5)
    drawn = draw_shots(frames, 10, np.random.default_rng(0))
    assert len(set(drawn.tolist())) == 20
    counts = np.unique(frames.groups[drawn], return_counts=True)[1]
    assert counts.max() - counts.min() <= 2


def test_more_shots_contain_the_fewer() -> None:
    frames = frames_of()
    few, many = (draw_shots(frames, k, np.random.default_rng(3)) for k in (2, 8))
    assert few.tolist() == [*many[:2].tolist(), *many[8:10].tolist()]


def test_a_class_with_too_few_frames_gives_what_it_has() -> None:
    frames = frames_of()
    some = frames.rows(np.array([0, 1, 3, 5, 7]))
    assert some.y[draw_shots(some, 4, np.random.default_rng(0))].tolist() == [True] + [False] * 4


def test_folds_keep_groups_together_and_hold_out_everything_once() -> None:
    frames = frames_of(n=90, groups=20)
    held = []
    for fitted, out in folds(frames):
        assert not set(frames.groups[fitted]) & set(frames.groups[out])
        assert len(set(frames.y[fitted].tolist())) == 2
        held += out.tolist()
    assert sorted(held) == list(range(90))


def test_one_group_a_class_gives_no_fold() -> None:
    assert list(folds(frames_of(n=4, groups=1))) == []


# ---- adapters ------------------------------------------------------------------------------------


def test_a_linear_adapter_is_the_logistic_regression_it_was_made_from() -> None:
    frames, new = frames_of(), frames_of(seed=1)
    from sklearn.linear_model import LogisticRegression

    adapter = fit_linear(frames)
    fits = [
        LogisticRegression(C=c, max_iter=5000).fit(frames.embeddings, frames.y)
        for c in adapters.INVERSE_PENALTIES
    ]
    found = new.margin + adapter.correction(new.embeddings)
    assert any(np.allclose(found, fit.decision_function(new.embeddings)) for fit in fits)


def test_of_one_shot_a_class_the_probe_is_their_difference() -> None:
    frames = frames_of()
    pair = frames.rows(draw_shots(frames, 1, np.random.default_rng(0)))
    weights = np.array(fit_linear(pair).weights) + frames.direction
    apart = pair.embeddings[0] - pair.embeddings[1]
    cosine = weights @ apart / np.linalg.norm(weights) / np.linalg.norm(apart)
    assert cosine == pytest.approx(1.0, abs=1e-4)


def naive_pair(keys: Frames) -> tuple[float, float]:
    """Every key among the keys of other groups, in plain loops."""
    best, chosen = -1.0, adapters.PAPER
    for beta in adapters.BETAS:
        for alpha in adapters.ALPHAS:
            score = []
            for i in range(len(keys.y)):
                sides: dict[bool, list[float]] = {True: [], False: []}
                for j in range(len(keys.y)):
                    if keys.groups[i] != keys.groups[j]:
                        cosine = float(keys.embeddings[i] @ keys.embeddings[j])
                        sides[bool(keys.y[j])].append(np.exp(-beta * (1 - cosine)))
                gain = np.mean(sides[True]) - np.mean(sides[False])
                score.append(keys.margin[i] + alpha * gain)
            found = auroc(keys.y, np.array(score))
            if found > best or (found == best and alpha < chosen[0]):
                best, chosen = found, (alpha, beta)
    return chosen


def test_alpha_and_beta_are_those_of_plain_loops() -> None:
    frames = frames_of(n=24, groups=12, useful=0.3, helpful=1.0)
    cache = fit_cache(frames)
    assert (cache.alpha, cache.beta) == naive_pair(frames)
    assert cache.alpha > 0


def test_a_cache_of_shots_that_show_no_gain_is_zero_shot() -> None:
    frames, new = frames_of(useful=3.0), frames_of(seed=1)
    assert auroc(frames.y, frames.margin) == 1.0
    assert not fit_cache(frames).correction(new.embeddings).any()


def test_one_shot_a_class_takes_the_papers_pair() -> None:
    frames = frames_of()
    cache = fit_cache(frames.rows(draw_shots(frames, 1, np.random.default_rng(0))))
    assert (cache.alpha, cache.beta) == adapters.PAPER


def test_a_cache_stays_small() -> None:
    assert len(fit_cache(frames_of(n=400, groups=200)).keys) == 2 * adapters.LARGEST_CACHE


@pytest.mark.parametrize("kind", ADAPTERS)
def test_what_is_held_out_was_not_fitted_on(kind: str) -> None:
    """Labels of pure noise: fitted on, an adapter knows them by heart; held out, it cannot."""
    frames = frames_of(n=120, groups=120, useful=0.0)
    adapter = ADAPTERS[kind](frames)
    seen = auroc(frames.y, frames.margin + adapter.correction(frames.embeddings))
    held = auroc(frames.y, out_of_fold(frames, ADAPTERS[kind]))
    assert held < 0.65
    assert seen > held - 0.05


# ---- measuring -----------------------------------------------------------------------------------


def test_interval_resamples_fits_and_groups_as_plain_loops_do() -> None:
    frames = frames_of(n=60, groups=20)
    rng = np.random.default_rng(2)
    scores = [frames.margin + rng.normal(size=60) * spread for spread in (0.0, 3.0, 9.0)]
    found = measure(frames.y, scores, frames.margin, frames.groups.tolist())
    picked = np.random.default_rng(0x5EED).integers(3, size=(1000, 3))
    naive, leads = [], []
    for w, which in zip(group_weights(frames.groups.tolist(), 1000, 0), picked, strict=True):
        mean = np.mean([auroc(frames.y, scores[i], w) for i in which])
        naive.append(mean)
        leads.append(mean - auroc(frames.y, frames.margin, w))
    assert (found["low"], found["high"]) == pytest.approx(tuple(np.quantile(naive, [0.025, 0.975])))
    assert (found["lead_low"], found["lead_high"]) == pytest.approx(
        tuple(np.quantile(leads, [0.025, 0.975]))
    )
    assert found["lead"] == pytest.approx(
        np.mean([auroc(frames.y, s) for s in scores]) - auroc(frames.y, frames.margin)
    )


def test_an_adapter_is_used_where_it_helps_and_nowhere_else() -> None:
    helped = fit_held_out(frames_of(n=80, useful=0.1, helpful=1.5), Wanted())
    assert helped.kind is not None
    assert helped.leads[helped.kind]["lead_low"] > 0
    assert fit_held_out(frames_of(n=80, useful=1.0), Wanted()).kind is None


@pytest.mark.slow
def test_thresholds_follow_the_wanted_sensitivity() -> None:
    frames = frames_of(n=80, useful=1.0)
    loose, strict = (fit_held_out(frames, Wanted(sensitivity=s)) for s in (0.6, 0.9))
    name = "sensitivity_first"
    assert strict.fitted.thresholds[name][0] < loose.fitted.thresholds[name][0]
    for fit, wanted in ((loose, 0.6), (strict, 0.9)):
        hit = np.array(fit.judged.decisions[name]) == "positive"
        assert hit[frames.y].mean() == pytest.approx(wanted, abs=0.12)


@pytest.mark.parametrize("value", [0.2, 1.0, 1.5, float("nan")])
def test_a_wish_that_cannot_be_met_is_refused(value: float) -> None:
    with pytest.raises(LabelsRefused, match=r"sensitivity of 0\.5 to below 1"):
        Wanted(sensitivity=value)


def test_more_sensitivity_needs_more_frames() -> None:
    assert [Wanted(sensitivity=s).least(True) for s in (0.9, 0.95, 0.99)] == [10, 20, 100]


# ---- the command ---------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def places(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("study")
    return build_tiny_bundle(folder / "tiny"), write_archive(folder / "archive")


def test_study_writes_table_json_and_plot(
    places: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bundle, archive = places
    given = ["--bundle", str(bundle), "--archive", str(archive), "--out", str(tmp_path)]
    assert main(["fewshot", "study", *given, "--seeds", "3"]) == 0
    shown = capsys.readouterr().out
    figures = json.loads((tmp_path / "study.json").read_text())
    assert figures["measured_on"] == "select"
    assert figures["commit"]
    assert figures["data"]["shots"] != figures["data"]["measured"]
    assert figures["command"].startswith("python -m training fewshot study --bundle=")
    cells = {(row["task"], row["kind"]) for row in figures["cells"]}
    assert ("polyp_detection", "view") in cells
    row = figures["cells"][0]
    assert set(row["methods"]["linear"]) == {"1", "2", "4", "8", "16"}
    assert len(row["methods"]["cache"]["4"]["per_seed"]) == 3
    assert "zero-shot" in shown
    assert (tmp_path / "study.md").read_text().rstrip() in shown
    assert "<svg" in (tmp_path / "study.svg").read_text()


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--shots", "select"], "expected parts out of calibrate, report"),
        (["--shots", "train"], "found 'train'"),
        (["--seeds", "2"], "at least 3 --seeds"),
    ],
)
def test_study_refuses_what_would_flatter(
    places: tuple[Path, Path], options: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    given = ["--bundle", str(places[0]), "--archive", str(places[1])]
    assert main(["fewshot", "study", *given, *options]) == 1
    assert said in capsys.readouterr().err
