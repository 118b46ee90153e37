"""The exam tests of the single process against the cluster, on each store that it may have."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from bench.cluster import Clustered
from tests.cluster.conftest import digest_of
from tests.service.postgres import exams_in, missing, postgres
from tests.service.test_exams import (
    http,
    test_a_closed_exam_takes_only_what_it_has,
    test_a_frame_without_an_id_is_known_by_its_content,
    test_a_rejected_frame_is_not_kept_and_may_come_again,
    test_a_result_is_that_of_one_request_with_all_frames,
    test_an_exam_from_opening_to_deletion,
    test_another_frame_under_an_id_is_a_conflict_and_nothing_is_kept,
    test_bad_options_are_refused,
    test_json_form_and_heatmaps,
    test_no_body_is_all_defaults_and_other_bodies_are_refused,
    test_opening_again_finds_the_exam_or_a_conflict,
    test_order_and_repetition_change_nothing,
    test_segments_are_of_the_frames_that_have_a_time,
    test_what_is_not_there_is_not_found,
)

__all__ = [
    "http",
    "test_a_closed_exam_takes_only_what_it_has",
    "test_a_frame_without_an_id_is_known_by_its_content",
    "test_a_rejected_frame_is_not_kept_and_may_come_again",
    "test_a_result_is_that_of_one_request_with_all_frames",
    "test_an_exam_from_opening_to_deletion",
    "test_another_frame_under_an_id_is_a_conflict_and_nothing_is_kept",
    "test_bad_options_are_refused",
    "test_json_form_and_heatmaps",
    "test_no_body_is_all_defaults_and_other_bodies_are_refused",
    "test_opening_again_finds_the_exam_or_a_conflict",
    "test_order_and_repetition_change_nothing",
    "test_segments_are_of_the_frames_that_have_a_time",
    "test_what_is_not_there_is_not_found",
]

NEEDS_POSTGRES = pytest.mark.skipif(bool(missing()), reason=missing() or "-")


@pytest.fixture(
    scope="module", autouse=True, params=["sqlite", pytest.param("postgres", marks=NEEDS_POSTGRES)]
)
def store(request: pytest.FixtureRequest, cluster: Clustered, bundle: Path) -> Iterator[None]:
    """That of the settings, an SQLite file, or a PostgreSQL server."""
    if request.param == "sqlite":
        yield
        return
    with postgres() as url:
        cluster.deploy(bundle=digest_of(bundle), exam_store=url)
        yield
        assert exams_in(url) > 0
        cluster.deploy(bundle=digest_of(bundle))
