"""Stage 2: what a batch holds, what its targets are; neither uniform nor one-hot."""

from collections.abc import Collection
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="needs torch (extra `train`)")

from training.attunement import Sampler, batch_targets, check_band, effective_band  # noqa: E402
from training.config import AttributesConfig, load  # noqa: E402
from training.errors import ConfigError  # noqa: E402
from training.reading import Exam, read_exams, similarity_tables  # noqa: E402
from training.records import Record  # noqa: E402
from training.report_text import LesionFacts, write_report  # noqa: E402
from training.report_words import ADJECTIVES, CLAUSES  # noqa: E402

CONFIGS = Path(__file__).parents[2] / "training" / "configs"
WORDS = {**ADJECTIVES, **CLAUSES}


def _exams(count: int, seed: int = 0) -> list[Exam]:
    """Exams with the composer's own texts: a third without lesions, a few with two."""
    rng = np.random.default_rng(seed)
    records = []
    for i in range(count):
        lesions = []
        for _ in range((0, 1, 1, 1, 2)[i % 5]):
            values = {name: str(rng.choice(list(words))) for name, words in WORDS.items()}
            histology = (None, "neoplastic", "neoplastic", "non-neoplastic")[int(rng.integers(4))]
            lesions.append(LesionFacts(values, histology))
        text = write_report(lesions, rng).text
        source = ("bkai", "kvasir")[i % 2]
        frames = (Path(f"{i}_0.jpg"), Path(f"{i}_1.jpg"))
        records.append(Record(f"r{i}", f"p{i}", text, frames, (f"{source}_{i}",), "train", source))
    return read_exams(records, AttributesConfig("rules", 0.0, 0.0), Path(), True)


@pytest.fixture(scope="module")
def exams() -> list[Exam]:
    return _exams(500)


def _sampler(exams: list[Exam], *overrides: str, hard: Collection[Path] = ()) -> Sampler:
    config = load(CONFIGS / "default.toml", overrides).attunement
    kept = {e.record_id: list(e.frames) for e in exams if e.positive}
    return Sampler(exams, kept, config, hard)


def test_the_default_recipe_keeps_two_to_eight_effective_targets(exams: list[Exam]) -> None:
    _, median, _ = effective_band(_sampler(exams), 20, 1)
    assert 2.0 <= median <= 8.0


@pytest.mark.parametrize(("tau", "low", "high"), [("1.0", 20.0, 32.0), ("0.02", 1.0, 1.99)])
def test_the_band_test_fails_at_silly_temperatures(
    exams: list[Exam], tau: str, low: float, high: float
) -> None:
    _, median, _ = effective_band(_sampler(exams, f"attunement.tau={tau}"), 5, 1)
    assert low <= median <= high


def test_rows_are_single_lesion_records_and_background_says_no_polyp(exams: list[Exam]) -> None:
    sampler = _sampler(exams)
    assert all(len(exam.lesions) == 1 for exam, _, _ in sampler.rows)
    batch = sampler.draw(np.random.default_rng(1))
    b, g = sampler.config.batch, sampler.config.background
    assert len(batch.frames) == b + g
    assert batch.presence.tolist() == [0] * b + [1] * g


def test_hard_backgrounds_fill_their_share_and_keep_to_the_source(exams: list[Exam]) -> None:
    free = [e for e in exams if not e.positive]
    source = {frame: exam.source for exam in exams for frame in exam.frames}
    hard = {e.frames[0] for e in free[:6]}
    assert len({source[frame] for frame in hard}) == 2
    few = _sampler(exams, "attunement.hard_background=0.5", hard=hard)
    b, half = few.config.batch, few.config.background // 2
    single = 0
    for i in range(20):
        batch = few.draw(np.random.default_rng(i))
        assert set(batch.frames[b : b + half]) <= hard
        assert not set(batch.frames[:b]) & hard
        single += len({source[f] for f in batch.frames}) == 1
        # Nothing else of the batch is drawn otherwise for it.
        plain = _sampler(exams, hard=hard).draw(np.random.default_rng(i))
        assert plain.frames[:b] == batch.frames[:b]
        assert plain.frames[b + half :] == batch.frames[b + half :]
    assert 4 <= single <= 16
    # A source without hard frames draws its own easy ones.
    one_sided = {frame for frame in hard if source[frame] == "bkai"}
    lone = _sampler(
        exams, "attunement.hard_background=1", "attunement.single_source=1", hard=one_sided
    )
    for i in range(20):
        batch = lone.draw(np.random.default_rng(i))
        assert len({source[f] for f in batch.frames}) == 1
        assert (set(batch.frames[b:]) <= one_sided) == (source[batch.frames[0]] == "bkai")


def test_half_of_the_batches_come_from_one_source(exams: list[Exam]) -> None:
    sampler = _sampler(exams)
    source = {frame: exam.source for exam in exams for frame in exam.frames}
    single = 0
    for i in range(200):
        batch = sampler.draw(np.random.default_rng(i))
        # Background rows included: were they of all sources, a camera would tell them apart.
        single += len({source[f] for f in batch.frames}) == 1
    assert 70 <= single <= 130


def test_drawn_frames_never_fill_a_batch_and_sources_come_by_their_records(
    exams: list[Exam],
) -> None:
    drawn = [
        replace(exam, source="phantom", record_id=f"ph{i}", frames=(Path(f"ph{i}.jpg"),))
        for i, exam in enumerate(exams[:60])
    ]
    sampler = _sampler([*exams, *drawn])
    assert set(sampler.sources) == {"bkai", "kvasir"}
    assert sum(sampler.sources.values()) == pytest.approx(1.0)
    rows = [
        frame
        for i in range(100)
        for frame in sampler.draw(np.random.default_rng(i)).frames[: sampler.config.batch]
    ]
    assert np.mean([frame.name.startswith("ph") for frame in rows]) < 0.1


def test_opinions_are_balanced_with_impressions_and_absent_without(exams: list[Exam]) -> None:
    told = _sampler(exams).draw(np.random.default_rng(2)).opinions
    assert abs(int((told == 0).sum()) - int((told == 1).sum())) <= 1
    withheld = _sampler(exams, "attunement.impression=false").draw(np.random.default_rng(2))
    assert (withheld.opinions == -1).all()
    assert not any(withheld.opinion_texts)


def test_the_one_hot_arm_changes_the_targets_and_nothing_else(exams: list[Exam]) -> None:
    soft, hard = _sampler(exams), _sampler(exams, "attunement.targets=one_hot")
    one, other = (s.draw(np.random.default_rng(4)) for s in (soft, hard))
    assert (one.frames, one.texts, one.presence_texts, one.opinion_texts) == (
        other.frames,
        other.texts,
        other.presence_texts,
        other.opinion_texts,
    )
    eye = torch.eye(soft.config.batch)
    assert torch.equal(batch_targets(other, hard.config, similarity_tables()), eye)
    assert not torch.equal(batch_targets(one, soft.config, similarity_tables()), eye)


def test_targets_are_rows_of_mass_one_and_the_plain_arm_is_one_hot(exams: list[Exam]) -> None:
    sampler = _sampler(exams)
    targets = batch_targets(
        sampler.draw(np.random.default_rng(4)), sampler.config, similarity_tables()
    )
    assert torch.allclose(targets.sum(-1), torch.ones(len(targets)))
    plain = _sampler(exams, "attunement.targets=plain")
    batch = plain.draw(np.random.default_rng(4))
    assert len(batch.texts) == plain.config.batch + plain.config.background
    assert torch.equal(
        batch_targets(batch, plain.config, similarity_tables()), torch.eye(len(batch.texts))
    )
    assert any(len(exam.lesions) > 1 for exam, _, _ in plain.rows)


def test_finding_texts_hold_no_lesion_number_and_no_histology(exams: list[Exam]) -> None:
    for exam in exams:
        for lesion in exam.lesions:
            assert not any(c.isdigit() for c in lesion.text.split(" ", 3)[1:2])
            for word in ("adenoma", "neoplas", "hyperplas", "dysplas"):
                assert word not in lesion.text.lower()


def test_targets_too_soft_to_teach_are_refused_and_nearly_one_hot_ones_warned_of(
    exams: list[Exam], caplog: pytest.LogCaptureFixture
) -> None:
    for tau, told in (("1.0", "lower it"), ("0.12", ""), ("0.02", "nearly one-hot")):
        sampler = _sampler(exams, f"attunement.tau={tau}")
        _, median, _ = effective_band(sampler, 5, 1)
        caplog.clear()
        if told == "lower it":
            with pytest.raises(ConfigError, match=r"effective targets of 32, found .*; lower it"):
                check_band(sampler.config, median)
        else:
            check_band(sampler.config, median)
            assert (told in caplog.text) if told else not caplog.text
