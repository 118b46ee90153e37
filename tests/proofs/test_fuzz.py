"""Invented bytes, fed to the image code and the form parsers; `make soak` feeds 200,000.

The inputs and the rules are `bench.fuzz`'s.
"""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench import fuzz

INPUTS = 5_000


@pytest.mark.parametrize("name", fuzz.TARGETS)
def test_invented_input_is_read_or_refused_and_nothing_else(name: str) -> None:
    found = fuzz.run(name, round(INPUTS * fuzz.TARGETS[name][1]), 1)
    read = found["pixels"] + found["read"]
    # Inputs that are all refused at the first byte would prove nothing.
    assert read > 0.02 * found.total(), found
    assert len(found) >= 3, found


def test_rule_that_is_broken_is_found_out(monkeypatch: pytest.MonkeyPatch) -> None:
    @given(st.integers(0, 1000))
    def broken(number: int) -> None:
        fuzz.Seen.inputs += 1
        if number > 900:
            raise KeyError(number)

    monkeypatch.setitem(fuzz.TARGETS, "broken", (broken, 1.0))
    with pytest.raises(KeyError):
        fuzz.run("broken", 1000, 1)


def test_pieces_that_mean_something_else_are_found_out() -> None:
    _, body = fuzz.form(b"x", request="{}")
    kind = "multipart/form-data; boundary=hostile"
    whole: Any = fuzz.read(body, kind, 0, [])
    assert whole == fuzz.read(body, kind, 0, [1, 2, 3])
    assert whole != fuzz.read(body[:-9], kind, 0, [])
