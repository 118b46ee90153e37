"""The drift simulation counts alarms as an operator would, and takes a shift to the optics."""

import numpy as np
import pytest

pytest.importorskip("sklearn", reason="needs scikit-learn (extra `train`)")

from bench.drift import LOOKS, Frames, Held, Scenario, _begun, row, stream


def test_alarms_less_than_three_days_apart_are_one() -> None:
    quiet = [False] * 12
    assert _begun([*quiet, True, *quiet[:5], True, *quiet, True]) == 2
    assert _begun(quiet) == 0


def test_a_cast_is_seen_in_the_optics_and_a_stream_without_one_is_quiet() -> None:
    rng = np.random.default_rng(0)
    count = 400
    rows = rng.normal(size=(count, 8)).astype(np.float32)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    margins, light = rng.normal(size=count), rng.normal(1, 0.1, (count, 6)).astype(np.float32)
    passed = np.ones(count, dtype=bool)
    cast = light - np.array([0.3, 0, 0, 0, 0, 0], np.float32)
    by_change = {
        "as filmed": Frames(rows, margins, light, passed),
        "cast": Frames(rows, margins, cast, passed),
    }
    held = Held(np.arange(count).astype(str), np.full(count, "A"), 0.0, by_change)
    told = stream(held, Scenario("cast", change="cast"), 1)
    assert told.pop(("earlier", "optics"))[1]
    assert {key for key, alarms in told.items() if any(alarms)} == set()
    assert set(told) == {(a, b) for a in ("reference", "earlier") for b in ("image", "prevalence")}
    quiet = stream(held, Scenario("quiet"), 1)
    assert not any(quiet["earlier", "optics"])
    assert row(Scenario("quiet"), [quiet]).count(" / ") == 5 * (len(LOOKS) - 1)
