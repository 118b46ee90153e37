"""The attention alone: only `unify` moves, towards the task, and lost frames end no run."""

from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="needs torch (extra `train`)")
pytest.importorskip("open_clip", reason="needs open_clip (extra `train`)")

from tests.training.tiny_stages import kept_frames, tiny_bench, tiny_exams, tiny_recipe  # noqa: E402
from training.attending import learn_to_attend  # noqa: E402
from training.errors import Diverged, FrameUnreadable  # noqa: E402
from training.loop import Schedule  # noqa: E402
from training.model import EndoClip, load_weights  # noqa: E402
from training.step import Encoded  # noqa: E402
from training.unification import PatientSampler, UnificationTask, unify_records  # noqa: E402

SCHEDULE = Schedule(150, 3e-2, 7, 0.0)


@pytest.fixture
def sampler(tmp_path: Path) -> PatientSampler:
    exams = tiny_exams(tmp_path / "frames")
    return PatientSampler(exams, kept_frames(exams), tiny_recipe().unification)


def test_only_unify_moves_and_the_loss_falls_the_same_way_each_time(
    sampler: PatientSampler,
) -> None:
    bench, again = tiny_bench(), tiny_bench()
    before = {name: value.clone() for name, value in bench.model.state_dict().items()}
    losses = learn_to_attend(bench, UnificationTask(sampler, True), SCHEDULE)
    assert np.mean(losses[-20:]) < np.mean(losses[:20])
    after = bench.model.state_dict()
    moved = {name for name, value in before.items() if not torch.equal(value, after[name])}
    assert moved == {"unify.query.weight", "unify.key.weight", "unify.log_scale"}
    assert learn_to_attend(again, UnificationTask(sampler, True), SCHEDULE) == losses
    assert all(p.grad is None for n, p in bench.model.named_parameters() if "unify" not in n)


def test_a_lost_frame_costs_its_draw_and_nothing_else(sampler: PatientSampler) -> None:
    lost = sampler.pools[1][0].frames[0]
    lost.unlink()
    losses = learn_to_attend(tiny_bench(), UnificationTask(sampler, True), SCHEDULE)
    assert len(losses) == SCHEDULE.steps


def test_frames_that_are_all_lost_are_named(sampler: PatientSampler) -> None:
    for pool in sampler.pools:
        for path in (frame for exam in pool for frame in exam.frames):
            path.unlink(missing_ok=True)
    with pytest.raises(FrameUnreadable, match="No such file"):
        learn_to_attend(tiny_bench(), UnificationTask(sampler, True), SCHEDULE)


class _Endless(UnificationTask):
    def losses(self, model: EndoClip, encoded: Encoded, told: object) -> dict[str, torch.Tensor]:
        named = super().losses(model, encoded, told)  # type: ignore[arg-type]
        return named | {"record_loss": named["record_loss"] * float("inf")}


def test_a_loss_that_is_not_finite_ends_it(sampler: PatientSampler) -> None:
    with pytest.raises(Diverged, match="attention_lr"):
        learn_to_attend(tiny_bench(), _Endless(sampler, True), SCHEDULE)


def test_the_stage_ends_with_it_and_says_so(tmp_path: Path) -> None:
    exams = tiny_exams(tmp_path / "frames")
    told = {}
    for steps in (0, 20):
        config = tiny_recipe(**{"unification.attention_steps": steps}).unification
        sampler = PatientSampler(exams, kept_frames(exams), config)
        folder, bench = tmp_path / str(steps), tiny_bench()
        folder.mkdir()
        told[steps] = unify_records(folder, bench, sampler, True, Schedule(3, 1e-3, 5, 0.0))
        load_weights(tiny_bench().model, folder / "weights.pt")
    assert "attention_last_loss" not in told[0]
    assert told[20]["attention_last_loss"] > 0
    assert told[20]["last_loss"] == told[0]["last_loss"]
    assert told[20]["attention_scale"] != told[0]["attention_scale"]
