"""What single values mean, and what is said of those that mean nothing."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent import fields
from agent.fields import Node, Notes, Rate
from agent.yaml_source import parse


def node(text: str) -> Node:
    document = parse("x", text)
    return Node(Notes(document), (), document.data)


def complaint(read, text: str) -> str:
    at = node(text)

    assert read(at) is None
    return f"{at.notes.problems[0].message}; {at.notes.problems[0].cure}"


@pytest.mark.parametrize(
    ("text", "length_s"), [("500ms", 0.5), ("10s", 10.0), ("1.5m", 90.0), ("2h", 7200.0), ("7d", 604_800.0), ("0", 0.0)]
)
def test_a_length_of_time_is_in_seconds(text, length_s):
    assert fields.seconds(node(text)) == length_s


@pytest.mark.parametrize("text", ["10", "10 s", "1e3", "-1s", "s", "true", "[1s]", "400d", "10sec", "~", "１０s"])
def test_what_is_no_length_of_time_is_refused(text):
    assert complaint(fields.seconds, text)


@pytest.mark.parametrize(("text", "share"), [("25%", 0.25), ("0.25", 0.25), ("1", 1.0), ("0", 0.0), ("0.5%", 0.005)])
def test_a_ratio_is_between_zero_and_one(text, share):
    assert fields.ratio(node(text)) == pytest.approx(share)


def test_a_ratio_that_was_meant_as_percent_is_guessed_in_the_cure():
    assert complaint(fields.ratio, "25") == "must lie between 0% and 100%, got 25; did you mean 25%?"


@pytest.mark.parametrize(
    ("text", "rate"), [("2/1h", Rate(2, 3600.0)), ("1 / 24h", Rate(1, 86_400.0)), ("none", Rate(None, 0.0))]
)
def test_a_rate_is_a_count_in_a_time(text, rate):
    assert fields.rate(node(text)) == rate


@pytest.mark.parametrize("text", ["2", "0/1h", "2/0s", "2/h", "-1/1h", "2/1", "~", "unlimited"])
def test_what_is_no_rate_is_refused(text):
    assert complaint(fields.rate, text)


@pytest.mark.parametrize("text", ["hq.example", "192.0.2", "192.0.2.256", "::1", "1", "192.0.2.1/24", "０.0.0.0"])
def test_what_is_no_address_is_refused(text):
    assert complaint(fields.address, f"'{text}'").endswith("names are not looked up")


@pytest.mark.parametrize(("text", "pair"), [("127.0.0.1:0", ("127.0.0.1", 0)), ("[::1]:9478", ("::1", 9478))])
def test_an_address_with_port_is_a_pair(text, pair):
    assert fields.host_port(node(f"'{text}'")) == pair


@pytest.mark.parametrize(
    "text", ["127.0.0.1", "127.0.0.1:", "127.0.0.1:70000", ":9478", "localhost:9478", "127.0.0.1:-1"]
)
def test_what_is_no_address_with_port_is_refused(text):
    assert complaint(fields.host_port, f"'{text}'")


@given(st.text(max_size=30))
def test_no_text_breaks_a_reader(text):
    at = Node(Notes(parse("x", "")), (), text)
    for read in (fields.seconds, fields.ratio, fields.rate, fields.address, fields.host_port, fields.name, fields.text):
        before = len(at.notes.problems)
        value = read(at)
        assert (value is None) == (len(at.notes.problems) > before)


@dataclass(frozen=True, slots=True)
class Sample:
    """A plug-in's keys, one of each type."""

    word: str
    period_s: float = 1.0
    share_ratio: float = 0.5
    factor: float = 2.0
    count: int | None = None
    is_on: bool = False
    names: tuple[str, ...] = ("a",)
    targets: Mapping[str, str] | None = None
    kind: Literal["one", "two"] = "one"

    def __post_init__(self) -> None:
        if self.period_s <= 0:
            raise ValueError(f"period_s: must be above 0, got {self.period_s:g}")
        if self.factor > 9:
            raise ValueError("factor: must be at most 9")


def test_a_record_is_filled_from_keys_without_units():
    at = node(
        "{word: w, period: 2m, share: 25%, factor: 3, count: 4, is_on: true, names: [b, c], targets: {d: e}, kind: two}"
    )

    assert fields.record(at, Sample) == Sample("w", 120.0, 0.25, 3.0, 4, True, ("b", "c"), {"d": "e"}, "two")


def test_what_is_left_out_has_its_default():
    assert fields.record(node("{word: w}"), Sample) == Sample("w")


def test_one_value_stands_for_a_list_of_one():
    assert fields.record(node("{word: w, names: b}"), Sample) == Sample("w", names=("b",))


def test_nothing_is_allowed_only_where_none_is():
    assert fields.record(node("{word: w, count: ~}"), Sample) == Sample("w")
    assert fields.record(node("{word: ~}"), Sample) is None


def test_a_record_tells_every_mistake():
    at = node(
        "{period_s: 1s, period: 1, share: x, factor: y, count: 1.5, is_on: yes, names: [1], targets: [d], kind: three}"
    )

    assert fields.record(at, Sample) is None
    assert [str(problem).split(": ")[1] for problem in at.notes.problems] == [
        "period_s", "(file)", "period", "share", "factor", "count", "is_on", "names[0]", "targets", "kind"
    ]  # fmt: skip


def test_a_records_own_checks_are_all_heard():
    at = node("{word: w, period: 0s, factor: 10}")

    assert fields.record(at, Sample) is None
    assert [str(problem) for problem in at.notes.problems] == [
        "1:19: period: must be above 0, got 0 (in seconds)", "1:31: factor: must be at most 9"
    ]  # fmt: skip
