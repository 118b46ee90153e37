"""The reference of a bundle: sums per exam, one file that may be missing, and refusals by name."""

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from model_store.bundle import Bundle
from model_store.errors import BundleCorrupt
from model_store.reference import Exam, Exams, read_reference, write_reference
from tests.tiny_bundle import build_tiny_bundle
from tests.tiny_reference import tiny_reference

Arrays = dict[str, Any]


def arrays_of(data: bytes) -> Arrays:
    with np.load(io.BytesIO(data)) as stored:
        return {name: stored[name] for name in stored.files}


def written(arrays: Arrays) -> bytes:
    out = io.BytesIO()
    np.savez(out, **arrays)
    return out.getvalue()


def changed(**values: Any) -> Callable[[Arrays], Arrays]:
    return lambda arrays: arrays | values


def test_what_is_written_is_read_and_equal_references_are_equal_files():
    data = write_reference(tiny_reference())
    assert write_reference(read_reference(data)) == data
    assert write_reference(tiny_reference()) == data


def test_an_exam_is_the_same_frame_by_frame_and_at_once():
    reference = tiny_reference()
    rows = np.random.default_rng(1).normal(size=(9, 4))
    margins = np.linspace(-2, 2, 9)
    optics = np.random.default_rng(2).random((9, 6)).astype(np.float32)
    at_once = reference.measure(rows, margins, optics)
    one_by_one = [
        reference.measure(rows[i : i + 1], margins[i : i + 1], optics[i : i + 1]) for i in range(9)
    ]
    total = sum(one_by_one[1:], one_by_one[0])
    for name in ("image", "margin", "frames", "optics"):
        assert getattr(total, name) == pytest.approx(getattr(at_once, name))
    assert at_once.frames.tolist() == [4, 5]
    means = Exams.of([at_once])
    assert means.margin[0] == pytest.approx(0.0, abs=1e-6)
    assert means.optics is not None
    assert means.optics[0] == pytest.approx(optics.mean(axis=0), rel=1e-5)
    assert means.image[0, 1] == pytest.approx((rows[4:] @ reference.axes.T).mean(axis=0), rel=1e-5)


def test_an_exam_without_a_positive_frame_has_zeros_there():
    sums = (np.array([[3.0, 3.0], [0.0, 0.0]]), np.array([-3.0, 0.0]))
    exam = Exam(*sums, np.array([3, 0]), np.ones(6))
    means = Exams.of([exam])
    assert means.image.tolist() == [[[1, 1], [0, 0]]]
    assert means.frames.tolist() == [[3, 0]]


def test_optics_of_an_exam_are_not_known_where_those_of_a_frame_are_not():
    reference = tiny_reference()
    rows, margins = np.ones((2, 4)), np.ones(2)
    known = reference.measure(rows, margins, np.ones((2, 6)))
    assert known.optics.tolist() == [2] * 6
    for other in (
        reference.measure(rows, margins),
        reference.measure(rows, margins, np.array([[1.0] * 6, [np.nan] * 6])),
    ):
        assert np.isnan((known + other).optics).all()
        assert np.isfinite((known + other).image).all()


def test_a_bundle_opens_with_a_reference_and_without(tmp_path: Path):
    with_one = {"reference.npz": write_reference(tiny_reference())}
    found = Bundle.open(build_tiny_bundle(tmp_path / "with", more=with_one)).reference
    assert found is not None
    assert len(found.exams) == len(tiny_reference().exams)
    assert Bundle.open(build_tiny_bundle(tmp_path / "without")).reference is None


@pytest.mark.parametrize(
    ("edit", "named"),
    [
        (changed(more=np.ones(1)), "as_met, axes"),
        (changed(axes=np.ones((0, 4), np.float32)), "1 to 64 axes"),
        (changed(exams_frames=np.zeros((0, 2), np.int32)), "1 to 512 exams"),
        (changed(exams_margin=np.full(60, np.nan, np.float32)), "/exams_margin"),
        (changed(exams_frames=np.zeros((60, 2), np.int32)), "/exams_frames"),
        (changed(exams_frames=np.full((60, 2), -1, np.int32)), "/exams_frames"),
        (changed(exams_image=np.zeros((60, 3, 2), np.float32)), "/exams_image"),
        (changed(label_set=np.array(3)), "/label_set"),
        (changed(threshold=np.array(np.inf)), "/threshold"),
        (lambda arrays: {}, "1 to 512 exams"),
    ],
)
def test_a_damaged_reference_is_refused_by_name(edit: Callable[[Arrays], Arrays], named: str):
    with pytest.raises(BundleCorrupt, match=r"reference\.npz") as caught:
        read_reference(written(edit(arrays_of(write_reference(tiny_reference())))))
    assert named in str(caught.value)


@pytest.mark.parametrize("data", [b"", b"PK\x03\x04", b"no archive"])
def test_what_is_no_archive_of_arrays_is_refused(data: bytes):
    with pytest.raises(BundleCorrupt, match=r"reference\.npz"):
        read_reference(data)


def test_a_pickled_object_is_refused_unread():
    arrays = arrays_of(write_reference(tiny_reference()))
    arrays["origin"] = np.array([object()], dtype=object)
    with pytest.raises(BundleCorrupt, match="plain arrays"):
        read_reference(written(arrays))


@pytest.mark.parametrize(
    ("edit", "named"),
    [
        (changed(label_set=np.array("colour")), "positive label"),
        (changed(label_set=np.array("unheard-of")), "positive label"),
        (changed(axes=np.ones((2, 5), np.float32)), "width 4"),
    ],
)
def test_a_reference_of_another_model_is_refused(
    tmp_path: Path, edit: Callable[[Arrays], Arrays], named: str
):
    data = written(edit(arrays_of(write_reference(tiny_reference()))))
    with pytest.raises(BundleCorrupt, match=named):
        build_tiny_bundle(tmp_path / "odd", more={"reference.npz": data})
