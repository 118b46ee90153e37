"""Whole-frame views: lesions are covered, decoys stay clear of them, the treatment is the same."""

from pathlib import Path

import numpy as np
import pytest

from training.scope import Patches, cloned, plan_patches, scope_view
from training.sources import SourceImage

BOX = (120.0, 90.0, 160.0, 126.0)


def _image(*boxes: tuple[float, float, float, float]) -> SourceImage:
    return SourceImage(
        "f", Path("f.jpg"), "frame", "bkai", "g", "polyp", "", (384, 298), boxes, "384x298"
    )


def _scene() -> tuple[np.ndarray, np.ndarray]:
    """A round field of smooth mucosa with one bright lesion, black around it."""
    y, x = np.mgrid[0:298, 0:384]
    field = np.hypot(x - 192, y - 149) < 140
    shade = 120 + 40 * x / 384
    pixels = np.stack([shade + 60, shade, shade - 20], axis=-1)
    lesion = ((x - 140) / 20) ** 2 + ((y - 108) / 18) ** 2 < 1
    pixels[lesion] = (250, 240, 230)
    return np.where(field[..., None], pixels, 0).astype(np.uint8), field


def _plan() -> Patches:
    pixels, field = _scene()
    found = plan_patches(_image(BOX), field, pixels, np.random.default_rng(1))
    assert found is not None
    return found


def test_the_lesion_is_covered_by_what_surrounds_it() -> None:
    pixels, _ = _scene()
    x0, y0, x1, y1 = (int(v) for v in BOX)
    covered = cloned(pixels, _plan().covers)
    around = pixels[y0 - 12 : y0 - 6, x0:x1].reshape(-1, 3).mean(axis=0)
    inside = covered[y0:y1, x0:x1].reshape(-1, 3)
    assert np.abs(inside.mean(axis=0) - around).max() < 8
    assert inside.max() < 235  # nothing of the lesion is left


def test_decoys_leave_the_lesion_as_it_is_and_change_as_much() -> None:
    pixels, _ = _scene()
    plan = _plan()
    x0, y0, x1, y1 = (int(v) for v in BOX)
    decoyed = cloned(pixels, plan.decoys)
    assert np.array_equal(decoyed[y0:y1, x0:x1], pixels[y0:y1, x0:x1])
    assert len(plan.decoys) == len(plan.covers)
    sizes = [
        {(t[2] - t[0], t[3] - t[1]) for t in (p.target for p in patches)}
        for patches in (plan.covers, plan.decoys)
    ]
    assert sizes[0] == sizes[1]


def test_nothing_outside_the_patches_changes() -> None:
    pixels, _ = _scene()
    for patches in (_plan().covers, _plan().decoys):
        changed = (cloned(pixels, patches) != pixels).any(axis=-1)
        for patch in patches:
            x0, y0, x1, y1 = patch.target
            changed[y0:y1, x0:x1] = False
        assert not changed.any()


@pytest.mark.parametrize("boxes", [(), ((60.0, 40.0, 320.0, 260.0),)])
def test_a_frame_without_room_serves_neither_kind(boxes: tuple[tuple[float, ...], ...]) -> None:
    pixels, field = _scene()
    assert plan_patches(_image(*boxes), field, pixels, np.random.default_rng(0)) is None  # type: ignore[arg-type]


def test_the_lesion_stays_in_view_and_what_is_outside_the_field_never_is() -> None:
    _, field = _scene()
    for seed in range(30):
        drawn = scope_view(field, np.random.default_rng(seed), (0, BOX))
        assert drawn is not None
        window, seen = drawn
        assert window.lesion == 0
        assert window.cover >= 0.8
        assert not (seen & ~field).any()
    shapes = {scope_view(field, np.random.default_rng(s))[1].sum() for s in range(10)}  # type: ignore[index]
    assert len(shapes) > 5  # no two fields alike: the frame's own border does not show


def test_a_lesion_outside_every_field_shape_has_no_view() -> None:
    _, field = _scene()
    corner = (0.0, 0.0, 20.0, 20.0)
    assert scope_view(field, np.random.default_rng(0), (0, corner)) is None
