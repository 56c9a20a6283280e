"""Plain data and back: whatever the core keeps comes back equal, and one value has one text."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Any, Literal, NewType

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.core import model
from agent.runtime.codec import PlainError, canonical, digest, from_plain, to_plain

Name = NewType("Name", str)


class Colour(StrEnum):
    RED = "red"
    BLUE = "blue"


@dataclass(frozen=True, slots=True)
class Leaf:
    size: float
    tag: Name = Name("x")
    note: str | None = None


@dataclass(frozen=True, slots=True)
class Fork:
    left: Leaf
    right: Fork | None = None


@dataclass(frozen=True, slots=True)
class Tree:
    colour: Colour
    value: model.Value
    leaves: tuple[Leaf, ...] = ()
    pair: tuple[str, int] = ("a", 1)
    pairs: tuple[tuple[str, model.Value], ...] = ()
    either: Leaf | Fork | None = None
    by_name: Mapping[str, Leaf] = field(default_factory=dict)
    by_colour: Mapping[Colour, float] = field(default_factory=dict)
    by_pair: Mapping[tuple[str, int], bool] = field(default_factory=dict)
    names: frozenset[Name] = frozenset()
    deadline: float | None = None
    mode: Literal["on", "off"] = "on"
    many: tuple[Leaf | Fork, ...] = ()
    some: tuple[float, ...] | None = None
    shade: Colour | None = None


@dataclass(frozen=True, slots=True)
class WithKind:
    kind: str


@dataclass(frozen=True, slots=True)
class Clash:
    either: WithKind | Leaf


NUMBERS = st.floats(allow_nan=False)
FINITE = st.floats(allow_nan=False, allow_infinity=False)
VALUES = st.none() | st.booleans() | st.integers() | FINITE | st.text()
LEAVES = st.builds(Leaf, size=NUMBERS, tag=st.text().map(Name), note=st.none() | st.text())
FORKS = st.recursive(
    st.builds(Fork, left=LEAVES), lambda inner: st.builds(Fork, left=LEAVES, right=st.none() | inner), max_leaves=4
)
TREES = st.builds(
    Tree,
    colour=st.sampled_from(Colour),
    value=VALUES,
    leaves=st.lists(LEAVES, max_size=3).map(tuple),
    pair=st.tuples(st.text(), st.integers()),
    pairs=st.lists(st.tuples(st.text(), VALUES), max_size=3).map(tuple),
    either=st.none() | LEAVES | FORKS,
    by_name=st.dictionaries(st.text(), LEAVES, max_size=3),
    by_colour=st.dictionaries(st.sampled_from(Colour), NUMBERS),
    by_pair=st.dictionaries(st.tuples(st.text(), st.integers()), st.booleans(), max_size=3),
    names=st.frozensets(st.text().map(Name), max_size=3),
    deadline=st.none() | NUMBERS,
    mode=st.sampled_from(["on", "off"]),
    many=st.lists(LEAVES | FORKS, max_size=3).map(tuple),
    some=st.none() | st.lists(NUMBERS, max_size=3).map(tuple),
    shade=st.none() | st.sampled_from(Colour),
)


@given(TREES)
def test_what_is_written_comes_back_equal(tree: Tree) -> None:
    text = canonical(to_plain(tree))

    back = from_plain(Tree, json.loads(text))

    assert back == tree
    assert canonical(to_plain(back)) == text


@given(st.one_of(st.builds(model.Ticked), *[st.builds(cls) for cls in (model.CommandEnded, model.HoldAsked)]))
def test_an_event_comes_back_as_the_class_that_it_was(event: Any) -> None:
    assert from_plain(model.Event, json.loads(canonical(to_plain(event)))) == event


@given(st.text())
def test_every_text_can_be_stored_as_utf8(text: str) -> None:
    canonical({"text": text + "\udc80"}).encode()

    assert json.loads(canonical(text + "\udc80")) == text + "\udc80"


def test_the_order_in_which_a_mapping_was_filled_does_not_show() -> None:
    one = Tree(Colour.RED, 1, by_pair={("a", 1): True, ("b", 2): False}, names=frozenset(map(Name, "abcdef")))
    other = replace(one, by_pair={("b", 2): False, ("a", 1): True}, names=frozenset(map(Name, "fedcba")))

    assert canonical(to_plain(one)) == canonical(to_plain(other))


def test_an_integer_in_a_field_of_floats_reads_like_the_float() -> None:
    assert (
        canonical(to_plain(Leaf(5)))
        == canonical(to_plain(Leaf(5.0)))
        == '{"kind":"Leaf","note":null,"size":5.0,"tag":"x"}'
    )


def test_a_value_keeps_its_type() -> None:
    for value in (True, 1, 1.0, "1", None):
        back = from_plain(Tree, json.loads(canonical(to_plain(Tree(Colour.RED, value)))))
        assert type(back.value) is type(value)


def test_the_canonical_text_is_sorted_and_tight_and_not_escaped() -> None:
    assert canonical({"b": [1, 2.50], "a": "线路"}) == '{"a":"线路","b":[1,2.5]}'


def test_what_is_not_a_number_is_refused() -> None:
    with pytest.raises(PlainError, match="size: is not a number"):
        to_plain(Leaf(math.nan))
    with pytest.raises(PlainError):
        canonical({"value": math.nan})
    with pytest.raises(PlainError):
        canonical({"value": math.inf})


def test_keys_of_a_newer_version_are_ignored() -> None:
    assert from_plain(Leaf, {"size": 1.0, "colour": "red"}) == Leaf(1.0)


def test_missing_keys_take_the_default_or_are_told() -> None:
    assert from_plain(Leaf, {"size": 2}) == Leaf(2.0)
    with pytest.raises(PlainError, match=r"^left\.size: missing in Leaf"):
        from_plain(Fork, {"left": {}})


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ({"colour": "green", "value": 1}, "colour: Colour knows no 'green'"),
        ({"colour": "red", "value": []}, "value: one of bool, int, float, str, NoneType wanted"),
        ({"colour": "red", "value": 1, "leaves": [{"size": "big"}]}, "leaves.0.size: a number wanted, got 'big'"),
        ({"colour": "red", "value": 1, "leaves": {}}, "leaves: a list wanted"),
        ({"colour": "red", "value": 1, "pair": ["a"]}, "pair: a list of 2 wanted"),
        ({"colour": "red", "value": 1, "pair": ["a", True]}, "pair.1: int wanted, got True"),
        ({"colour": "red", "value": 1, "either": {"size": 1}}, "either: kind None is none of Leaf, Fork"),
        ({"colour": "red", "value": 1, "by_name": {"a": 3}}, "by_name.a: Leaf wanted, got 3"),
        ({"colour": "red", "value": 1, "mode": "half"}, "mode: one of 'on', 'off' wanted"),
        ({"colour": "red", "value": 1, "many": [{"kind": "Fork", "left": 1}]}, "many.0.left: Leaf wanted, got 1"),
        ([], "Tree wanted, got"),
    ],
)
def test_data_that_does_not_fit_says_where(data: Any, message: str) -> None:
    with pytest.raises(PlainError) as caught:
        from_plain(Tree, data)

    assert message in str(caught.value)


def test_a_class_of_a_union_may_not_use_the_name_of_the_tag() -> None:
    with pytest.raises(TypeError, match="may have no field named 'kind'"):
        to_plain(Clash(Leaf(1.0)))


def test_a_type_without_a_plain_form_is_refused() -> None:
    with pytest.raises(TypeError, match="has no plain form"):
        to_plain(object())
    with pytest.raises(TypeError, match="has no plain form"):
        from_plain(bytes, "a")


def test_another_class_than_declared_is_refused_rather_than_written_in_part() -> None:
    with pytest.raises(TypeError, match="a Leaf was declared, a Fork was given"):
        to_plain(Fork(Fork(Leaf(1.0))))  # type: ignore[arg-type]


def test_the_digest_depends_on_what_came_before() -> None:
    assert digest("a", "") != digest("a", digest("b", ""))
    assert len(digest("a", "")) == 64
