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


def test_free_set_keeps_the_callers_order() -> None:
    assert LabelSet.from_free(free("b", "a", "c")).names == ("b", "a", "c")


def test_a_prompt_may_stand_twice() -> None:
    assert LabelSet.from_free(free("a", "b", prompts=("x", "x"))).labels[0].prompts == ("x", "x")


def test_limits_themselves_are_allowed() -> None:
    prompts = [f"{index:02d}" + "x" * 510 for index in range(16)]
    assert len(LabelSet.from_free(free(*map(str, range(32)), prompts=prompts)).labels) == 32


@pytest.mark.parametrize(
    ("labels", "named", "pointer"),
    [
        ([], "2 to 32 labels; found 0", ""),
        (free("a"), "found 1", ""),
        (free(*map(str, range(33))), "found 33", ""),
        (free("a", "b", "a"), "found that of /0 again", "/2/label"),
        (free("a", " "), "1 to 64 characters", "/1/label"),
        (free("a", "b" * 65), "1 to 64 characters", "/1/label"),
        (free("a", "b", prompts=()), "1 to 16 prompts", "/0/prompts"),
        (free("a", "b", prompts=map(str, range(17))), "found 17", "/0/prompts"),
        (free("a", "b", prompts=("x", "")), "1 to 512 characters", "/0/prompts/1"),
        (free("a", "b", prompts=("x" * 513,)), "found 513", "/0/prompts/0"),
        (free("a", "b", prompts=(1,)), "list of strings", "/0/prompts"),
        ([{"label": "a"}, {"label": "b"}], "label and prompts", "/0"),
        ([{"label": "a", "prompts": ["x"], "more": 1}] * 2, "label and prompts", "/0"),
        ([{"label": 1, "prompts": ["x"]}] * 2, "a string", "/0/label"),
        ([{"label": "a", "prompts": "xy"}] * 2, "list of strings", "/0/prompts"),
        (["a", "b"], "label and prompts", "/0"),
    ],
)
def test_free_set_that_breaks_a_rule_is_refused_naming_it_and_its_place(
    labels: Any, named: str, pointer: str
) -> None:
    with pytest.raises(LabelSetInvalid, match=named) as refused:
        LabelSet.from_free(labels)
    assert refused.value.pointer == pointer


def test_positive_label_must_be_one_of_the_labels() -> None:
    with pytest.raises(LabelSetInvalid, match="positive"):
        LabelSet("x", (Label("a", "", ("x",)), Label("b", "", ("y",))), "c")


@pytest.mark.parametrize(
    ("data", "named"),
    [
        (b'{"x": {"positive": null, "labels": []}}', "/x"),
        (
            b'{"x": {"positive": null, "labels": ['
            b'{"label": "a", "definition": "", "prompts": ["p"]},'
            b'{"label": "a", "definition": "", "prompts": ["p"]}]}}',
            "/x/labels/1/label",
        ),
        (b'{"x": {"labels": []}}', "without positive"),
        (b'{"x": {"positive": 1, "labels": []}}', "/x/positive"),
        (b'{"x": []}', "an object"),
        (b'{"x": {"positive": null, "labels": {}}}', "a list"),
    ],
)
def test_damaged_file_is_refused_naming_the_place(data: bytes, named: str) -> None:
    with pytest.raises(BundleCorrupt, match=named):
        read_label_sets(data)
