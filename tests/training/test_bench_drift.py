"""The drift simulation counts alarms as an operator would."""

import pytest

pytest.importorskip("sklearn", reason="needs scikit-learn (extra `train`)")

from bench.drift import _begun


def test_alarms_less_than_three_days_apart_are_one() -> None:
    quiet = [False] * 12
    assert _begun([*quiet, True, *quiet[:5], True, *quiet, True]) == 2
    assert _begun(quiet) == 0
