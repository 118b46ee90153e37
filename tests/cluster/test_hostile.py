"""The hostile corpus of tests/proofs, against the cluster with the shipped bundle."""

from tests.proofs.test_hostile import (
    client,
    no_failures,
    test_bad_file_has_its_own_outcome_and_its_neighbours_score_as_alone,
    test_bad_request_has_its_own_error,
    test_request_id_that_is_none_does_not_come_back,
    test_slow_and_silent_clients_are_let_go_and_others_are_answered_meanwhile,
    test_what_is_no_good_http_gets_no_second_answer,
)

__all__ = [
    "client",
    "no_failures",
    "test_bad_file_has_its_own_outcome_and_its_neighbours_score_as_alone",
    "test_bad_request_has_its_own_error",
    "test_request_id_that_is_none_does_not_come_back",
    "test_slow_and_silent_clients_are_let_go_and_others_are_answered_meanwhile",
    "test_what_is_no_good_http_gets_no_second_answer",
]
