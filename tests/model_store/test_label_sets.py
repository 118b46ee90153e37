"""Label sets keep their order and their rules, whether they come from a bundle or a request."""

from typing import Any

import pytest

from model_store.errors import BundleCorrupt, LabelSetInvalid
from model_store.label_sets import Label, LabelSet, read_label_sets, write_label_sets
from tests import tiny_bundle


def free(*names: str, prompts: Any = ("a sentence",)) -> list[dict[str, Any]]:
    return [{"label": name, "prompts": list(prompts)} for name in names]


def test_sets_and_their_label_order_survive_a_round_trip() -> None:
    sets = tiny_bundle.label_sets()
    assert read_label_sets(write_label_sets(sets)) == {item.name: item for item in sets}


def test_positive_index_follows_the_order_of_the_labels() -> None:
    labels = tiny_bundle.label_sets()[0].labels
    assert LabelSet("x", labels, "polyp").positive_index == 0
    assert LabelSet("x", labels[::-1], "polyp").positive_index == 1
    assert LabelSet("x", labels).positive_index is None


def test_a_set_can_be_scored_without_its_positive_label() -> None:
    named = tiny_bundle.label_sets()[0]
    assert named.without_positive().positive is None
    assert named.without_positive().labels == named.labels


def test_free_set_keeps_the_callers_order() -> None:
    assert LabelSet.from_free(free("b", "a", "c")).names == ("b", "a", "c")


def test_limits_themselves_are_allowed() -> None:
    prompts = [f"{index:02d}" + "x" * 510 for index in range(16)]
    assert len(LabelSet.from_free(free(*map(str, range(32)), prompts=prompts)).labels) == 32


@pytest.mark.parametrize(
    ("labels", "named"),
    [
        ([], "2 to 32 labels; found 0"),
        (free("a"), "found 1"),
        (free(*map(str, range(33))), "found 33"),
        (free("a", "b", "a"), "a repeated"),
        (free("a", " "), "1 to 64 characters"),
        (free("a", "b" * 65), "1 to 64 characters"),
        (free("a", "b", prompts=()), "1 to 16 prompts"),
        (free("a", "b", prompts=map(str, range(17))), "found 17"),
        (free("a", "b", prompts=("x", "x")), "distinct prompts"),
        (free("a", "b", prompts=("",)), "1 to 512 characters"),
        (free("a", "b", prompts=("x" * 513,)), "one of 513"),
        (free("a", "b", prompts=(1,)), "labels/0/prompts"),
        ([{"label": "a"}, {"label": "b"}], "labels/0"),
        ([{"label": "a", "prompts": ["x"], "more": 1}] * 2, "labels/0"),
        ([{"label": 1, "prompts": ["x"]}] * 2, "labels/0"),
        ([{"label": "a", "prompts": "xy"}] * 2, "labels/0"),
        (["a", "b"], "labels/0"),
    ],
)
def test_free_set_that_breaks_a_rule_is_refused_naming_it(labels: Any, named: str) -> None:
    with pytest.raises(LabelSetInvalid, match=named):
        LabelSet.from_free(labels)


def test_positive_label_must_be_one_of_the_labels() -> None:
    with pytest.raises(LabelSetInvalid, match="positive"):
        LabelSet("x", (Label("a", "", ("x",)), Label("b", "", ("y",))), "c")


@pytest.mark.parametrize(
    ("data", "named"),
    [
        (b'{"x": {"positive": null, "labels": []}}', "/x"),
        (b'{"x": {"labels": []}}', "without positive"),
        (b'{"x": {"positive": 1, "labels": []}}', "/x/positive"),
        (b'{"x": []}', "an object"),
        (b'{"x": {"positive": null, "labels": {}}}', "a list"),
    ],
)
def test_damaged_file_is_refused_naming_the_place(data: bytes, named: str) -> None:
    with pytest.raises(BundleCorrupt, match=named):
        read_label_sets(data)
