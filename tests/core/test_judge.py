"""Judging: three-valued conditions, freshness, suspect answers, and the gap between enter and leave."""

from __future__ import annotations

import itertools

import pytest

from agent.core.judge import FRESH_PERIODS, Condition, Op, Points, Verdict, all_of, any_of, compare, holds, verdict
from agent.core.model import Observation, PointId, PointSpec, Quality, Value

POINT = PointId("ups-a.load_ratio")
OTHER = PointId("ups-a.on_battery")
NOW_S = 1000.0
PERIOD_S = 2.0
HIGH = (Condition(POINT, Op.ABOVE, 0.7),)
FINE = (Condition(POINT, Op.BELOW, 0.6),)


def seen(value: Value, quality: Quality = Quality.GOOD, *, age_s: float = 0.0, point: PointId = POINT) -> Observation:
    return Observation(point, value, quality, NOW_S - age_s, NOW_S - age_s, "nut:ups-a")


def points(
    *observations: Observation, blind_before: float = 0.0, last_good: dict[PointId, Value] | None = None
) -> Points:
    specs = {point: PointSpec("", PERIOD_S, "") for point in (POINT, OTHER)}
    return Points({o.point: o for o in observations}, last_good or {}, specs, blind_before)


def answer(op: Op, value: Value, observed: Observation | None) -> bool | None:
    sight = points() if observed is None else points(observed)
    return holds(Condition(POINT, op, value), sight, NOW_S)


@pytest.mark.parametrize(
    ("op", "limit", "below", "at", "above"),
    [
        (Op.ABOVE, 0.7, False, False, True),
        (Op.BELOW, 0.7, True, False, False),
        (Op.AT_LEAST, 0.7, False, True, True),
        (Op.AT_MOST, 0.7, True, True, False),
        (Op.IS, 0.7, False, True, False),
        (Op.IS_NOT, 0.7, True, False, True),
    ],
)
def test_a_comparison_answers_as_its_name_says(op: Op, limit: float, below: bool, at: bool, above: bool) -> None:
    assert [answer(op, limit, seen(value)) for value in (0.6, 0.7, 0.8)] == [below, at, above]


@pytest.mark.parametrize("op", [Op.ABOVE, Op.BELOW, Op.AT_LEAST, Op.AT_MOST, Op.IS, Op.IS_NOT])
@pytest.mark.parametrize(
    "observed",
    [
        None,
        seen(None, Quality.UNKNOWN),
        seen(0.9, Quality.UNKNOWN),
        seen(0.9, Quality.SUSPECT),
        seen(0.9, age_s=FRESH_PERIODS * PERIOD_S + 0.1),
    ],
)
def test_what_cannot_be_seen_or_trusted_makes_no_comparison_true_or_false(op: Op, observed: Observation | None) -> None:
    assert answer(op, 0.7, observed) is None


@pytest.mark.parametrize(
    ("observed", "unseen", "suspect", "trusted"),
    [
        (None, True, None, None),
        (seen(None, Quality.UNKNOWN), True, None, None),
        (seen(0.5, age_s=6.1), True, None, None),
        (seen(None, Quality.SUSPECT), False, True, False),
        (seen(0.5), False, False, True),
    ],
)
def test_only_unseen_is_made_true_by_not_seeing(
    observed: Observation | None, unseen: bool, suspect: bool | None, trusted: bool | None
) -> None:
    assert answer(Op.UNSEEN, None, observed) is unseen
    assert answer(Op.SEEN, None, observed) is (not unseen)
    assert answer(Op.SUSPECT, None, observed) is suspect
    assert answer(Op.TRUSTED, None, observed) is trusted


@pytest.mark.parametrize("op", [Op.ABOVE, Op.BELOW, Op.AT_LEAST, Op.AT_MOST])
@pytest.mark.parametrize(("value", "limit"), [("OL", 0.7), (None, 0.7), (0.7, "OL"), (0.7, None)])
def test_text_and_number_cannot_be_ordered(op: Op, value: Value, limit: Value) -> None:
    assert compare(op, value, limit) is None


def test_a_point_is_fresh_for_three_of_its_periods_and_no_longer() -> None:
    limit_s = FRESH_PERIODS * PERIOD_S

    assert points(seen(0.5, age_s=limit_s)).fresh(POINT, NOW_S) is not None
    assert points(seen(0.5, age_s=limit_s + 0.01)).fresh(POINT, NOW_S) is None


def test_an_age_that_is_asked_for_stands_over_the_three_periods() -> None:
    sight = points(seen(0.5, age_s=5.0))

    assert sight.fresh(POINT, NOW_S, max_age_s=4.9) is None
    assert points(seen(0.5, age_s=8.0)).fresh(POINT, NOW_S, max_age_s=8.0) is not None


def test_what_was_asked_before_start_or_gap_does_not_count_however_new() -> None:
    sight = points(seen(0.9, age_s=1.0), blind_before=NOW_S - 0.5)

    assert sight.fresh(POINT, NOW_S) is None
    assert sight.fact(POINT, NOW_S).quality is Quality.UNKNOWN


def test_a_point_that_the_site_does_not_know_is_not_fresh() -> None:
    stranger = PointId("ups-z.load_ratio")
    sight = points(seen(0.9, age_s=0.1, point=stranger))

    assert sight.fresh(stranger, NOW_S) is None


def test_a_fact_shows_no_value_that_cannot_be_seen_now() -> None:
    old = points(seen(0.9, age_s=60.0)).fact(POINT, NOW_S)
    new = points(seen(0.9, age_s=1.0)).fact(POINT, NOW_S)

    assert (old.value, old.quality, old.age_s) == (None, Quality.UNKNOWN, 60.0)
    assert (new.value, new.quality, new.age_s, new.source) == (0.9, Quality.GOOD, 1.0, "nut:ups-a")


def test_the_last_good_value_is_remembered_when_nothing_is_seen_any_more() -> None:
    condition = Condition(OTHER, Op.LAST_WAS, True)
    silent = seen(None, Quality.UNKNOWN, point=OTHER)

    assert holds(condition, points(silent, last_good={OTHER: True}), NOW_S) is True
    assert holds(condition, points(silent, last_good={OTHER: False}), NOW_S) is False
    assert holds(condition, points(), NOW_S) is False


TRUTHS = (True, False, None)
CONDITION_FOR: dict[bool | None, Condition] = {
    True: Condition(POINT, Op.ABOVE, 0.5),
    False: Condition(POINT, Op.BELOW, 0.5),
    None: Condition(OTHER, Op.IS, True),
}


@pytest.mark.parametrize(("one", "two"), list(itertools.product(TRUTHS, TRUTHS)))
def test_and_and_or_follow_the_three_valued_tables(one: bool | None, two: bool | None) -> None:
    """Kleene: a known answer decides as soon as it can, else the open one stays open."""
    sight = points(seen(0.9))
    both = (CONDITION_FOR[one], CONDITION_FOR[two])
    conjunction = False if False in (one, two) else (None if None in (one, two) else True)
    disjunction = True if True in (one, two) else (None if None in (one, two) else False)

    assert all_of(both, sight, NOW_S) is conjunction
    assert any_of(both, sight, NOW_S) is disjunction


def test_a_rung_is_bad_good_between_or_unknown() -> None:
    def said(observation: Observation) -> Verdict:
        return verdict(HIGH, FINE, points(observation), NOW_S)

    assert said(seen(0.75)) is Verdict.BAD
    assert said(seen(0.55)) is Verdict.GOOD
    assert [said(seen(value)) for value in (0.6, 0.65, 0.7)] == [Verdict.BETWEEN] * 3
    assert said(seen(0.75, Quality.SUSPECT)) is Verdict.UNKNOWN
    assert said(seen(None, Quality.UNKNOWN)) is Verdict.UNKNOWN


def test_a_rung_whose_leave_is_seen_is_good_although_its_enter_is_not_seen() -> None:
    enter = (Condition(OTHER, Op.IS, True), Condition(POINT, Op.ABOVE, 0.7))
    leave = (Condition(OTHER, Op.IS, False),)
    sight = points(seen(False, point=OTHER), seen(None, Quality.UNKNOWN))

    assert verdict(enter, leave, sight, NOW_S) is Verdict.GOOD


def test_a_rung_of_which_one_enter_condition_is_unseen_is_not_bad() -> None:
    enter = (Condition(OTHER, Op.IS, True), Condition(POINT, Op.ABOVE, 0.7))
    leave = (Condition(OTHER, Op.IS, False),)
    sight = points(seen(True, point=OTHER), seen(None, Quality.UNKNOWN))

    assert verdict(enter, leave, sight, NOW_S) is Verdict.UNKNOWN


def test_a_condition_reads_as_words() -> None:
    assert str(Condition(POINT, Op.AT_LEAST, 0.7)) == "ups-a.load_ratio at least 0.7"
    assert str(Condition(POINT, Op.UNSEEN)) == "ups-a.load_ratio unseen"
