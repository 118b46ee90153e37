"""The guard of `make bench-check` can fail, and reads what `make bench --write` writes."""

import pytest

from bench.results import fallen, read_ratios, write_ratios


def test_what_is_written_is_read_back() -> None:
    ratios = {"frames per CPU-second, 8 of a patient": 0.912, "pooling": 0.99}
    text = "\n".join(
        ["# Results", "| no ratio | 3 |", *write_ratios(ratios), "", "## More", "| x | 1 |"]
    )
    assert read_ratios(text) == ratios


def test_a_file_without_ratios_is_no_pass() -> None:
    with pytest.raises(ValueError, match="Ratios that are held"):
        read_ratios("# Results\n\n| a | 1.0 |\n")


def test_a_ratio_that_falls_by_more_than_15_percent_is_named() -> None:
    assert fallen({"a": 1.0, "b": 0.8}, {"a": 0.86, "b": 0.9}) == []
    assert fallen({"a": 1.0, "b": 0.8}, {"a": 0.84, "b": 0.8}) == ["a: 1.000 recorded, 0.840 now"]


def test_a_ratio_that_is_no_longer_measured_is_named() -> None:
    assert fallen({"a": 1.0}, {}) == ["a: 1.000 recorded, not measured"]
