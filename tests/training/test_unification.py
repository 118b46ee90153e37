"""Stage 3: who is in a batch, what the records' targets are, and how class sentences are pooled."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="needs torch (extra `train`)")

from tests.training.test_attunement import CONFIGS, _exams  # noqa: E402
from training.config import load  # noqa: E402
from training.errors import ConfigError  # noqa: E402
from training.model import Unify  # noqa: E402
from training.unification import (  # noqa: E402
    Bags,
    PatientSampler,
    class_query_loss,
    record_targets,
)

CONFIG = load(CONFIGS / "default.toml").unification


def _sampler() -> PatientSampler:
    exams = _exams(200)
    return PatientSampler(
        exams, {e.record_id: list(e.frames[:1]) for e in exams if e.positive}, CONFIG
    )


def test_a_batch_holds_multi_single_and_lesion_free_records_of_distinct_groups() -> None:
    bags = _sampler().draw(np.random.default_rng(0))
    counts = [min(2, len(exam.lesions)) for exam in bags.exams]
    assert sorted(counts) == [0, 0, 1, 1, 2, 2, 2, 2]
    groups = [group for exam in bags.exams for group in exam.groups]
    assert len(groups) == len(set(groups))
    assert bags.mask.sum().item() == sum(len(f) for f in [*bags.frames, *bags.joined])


def test_a_batch_holds_one_exam_of_a_patient() -> None:
    exams = [
        replace(e, patient_id=f"p{i % 9}", groups=frozenset()) for i, e in enumerate(_exams(90))
    ]
    sampler = PatientSampler(exams, {}, CONFIG)
    for seed in range(10):
        bags = sampler.draw(np.random.default_rng(seed))
        patients = [exam.patient_id for exam in bags.exams]
        assert len(patients) == len(set(patients)) > 1


def test_every_kept_frame_is_in_the_bag_as_far_as_it_fits() -> None:
    sampler = _sampler()
    for seed in range(20):
        bags = sampler.draw(np.random.default_rng(seed))
        for exam, frames in zip(bags.exams, bags.frames, strict=True):
            assert set(sampler.kept.get(exam.record_id, [])) <= set(frames)
            assert len(frames) == len(set(frames)) <= CONFIG.frames


def test_records_grow_by_background_that_shares_no_group_with_them() -> None:
    sampler = _sampler()
    giver = {frame: exam for exam in sampler.pools[2] for frame in exam.frames}
    grown = []
    for seed in range(20):
        bags = sampler.draw(np.random.default_rng(seed))
        for exam, joined in zip(bags.exams, bags.joined, strict=True):
            grown.append(len(joined))
            assert not any(giver[bags.others[i]].groups & exam.groups for i in joined)
    assert min(grown) < 5
    assert 50 < max(grown) <= CONFIG.longest


def test_padded_embeddings_hold_own_frames_first_and_zeros_behind() -> None:
    bags = Bags([], [[Path("a"), Path("b")], [Path("c")]], [Path("x"), Path("y")], [[1], [0, 1, 1]])
    own, others = torch.eye(3), 10 * torch.eye(3)[:2]
    padded = bags.padded(own, others)
    assert bags.mask.tolist() == [[True, True, True, False], [True] * 4]
    assert torch.equal(padded[0], torch.stack([own[0], own[1], others[1], torch.zeros(3)]))
    assert torch.equal(padded[1], torch.stack([own[2], others[0], others[1], others[1]]))


def test_records_sharing_a_group_never_meet() -> None:
    sampler = _sampler()
    shared = frozenset({"bkai_shared"})
    for pool in sampler.pools:
        for i, exam in enumerate(pool):
            pool[i] = type(exam)(**{**exam.__dict__, "groups": shared})
    assert len(sampler.draw(np.random.default_rng(0)).exams) == 1


def test_a_kind_that_is_missing_is_refused() -> None:
    with pytest.raises(ConfigError, match="multi-lesion"):
        PatientSampler([e for e in _exams(50) if len(e.lesions) < 2], {}, CONFIG)


def test_lesion_free_records_are_identical_and_share_nothing_with_the_others() -> None:
    exams = _sampler().draw(np.random.default_rng(1)).exams
    targets = record_targets(exams, 0.2)
    free = [i for i, e in enumerate(exams) if not e.positive]
    with_lesion = [i for i, e in enumerate(exams) if e.positive]
    a, b = free
    assert targets[a, a].item() == pytest.approx(targets[a, b].item())
    assert targets[a, with_lesion].max().item() < 0.02


class _Model:
    """Gives unify and a logit scale, the two things the loss asks of a model."""

    def __init__(self, dim: int) -> None:
        self.unify = Unify(dim)
        self.logit_scale = torch.tensor(20.0)


def test_one_lesion_among_200_normal_frames_is_still_an_exam_with_a_polyp() -> None:
    # The positive sentence alone attends; both are scored on the vector it pooled.
    positive, negative = torch.eye(8)[0], torch.eye(8)[1]
    frames = torch.cat([positive[None], negative.repeat(200, 1)])[None]
    mask = torch.ones(1, 201, dtype=torch.bool)
    captions = torch.stack([positive, negative])
    model = _Model(8)
    with torch.no_grad():
        model.unify.log_scale.fill_(3.5)  # 33: what training makes of 14 within a stage
    with_polyp = class_query_loss(model, frames, mask, captions, torch.tensor([0]))
    without = class_query_loss(model, frames, mask, captions, torch.tensor([1]))
    assert with_polyp.item() < 0.1 < without.item()
    # Were each sentence to attend for itself, the negative one would find a frame as good.
    pooled, _ = model.unify(frames, mask, captions)
    own = (pooled[0] * captions).sum(-1)
    assert own[1].item() > 0.99


def test_records_without_a_stated_class_are_left_out() -> None:
    frames = torch.nn.functional.normalize(torch.randn(2, 3, 8), dim=-1)
    mask = torch.ones(2, 3, dtype=torch.bool)
    nothing = class_query_loss(_Model(8), frames, mask, torch.eye(8)[:2], torch.tensor([-1, -1]))
    assert nothing.item() == 0.0
