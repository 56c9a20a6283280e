"""The window of one rung: what is lost, how much, in a row, and since when."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from probes.line_window import ABSENCE_S, LIMIT_S_MAX, LIMIT_S_MIN, RATIO_PROBES_MIN, LineWindow

RTT_S = 0.004


class Story:
    """A window of 20 probes that is fed one each 100 ms: "." is answered after 4 ms, "x" never."""

    def __init__(self, pattern: str, window_s: float = 2.05) -> None:
        self.window = LineWindow(window_s)
        self.now = 1000.0
        self.sent = 0
        self.go(pattern)

    def go(self, pattern: str) -> None:
        for answered in pattern:
            self.window.sent(self.sent, self.now)
            if answered == ".":
                self.window.answered(self.sent, self.now + RTT_S)
            self.sent += 1
            self.now += 0.1
            self.window.settle(self.now)


def test_answered_probes_are_no_loss():
    window = Story("." * 20).window

    assert window.lost_in_row == 0
    assert window.loss_ratio == 0
    assert window.first_lost_at is None
    assert window.rtt_s == pytest.approx(RTT_S)
    assert window.newest_settled_at == pytest.approx(1001.9)


def test_a_run_of_losses_begins_with_the_send_time_of_its_first_probe():
    window = Story("." * 10 + "xxx").window

    assert window.lost_in_row == 3
    assert window.first_lost_at == pytest.approx(1001.0)
    assert window.newest_settled_at == pytest.approx(1001.2)


def test_an_answer_ends_the_run_and_the_next_loss_begins_a_new_one():
    story = Story("." * 10 + "xxx.")
    assert (story.window.lost_in_row, story.window.first_lost_at) == (0, None)

    story.go("x")

    assert story.window.lost_in_row == 1
    assert story.window.first_lost_at == pytest.approx(1001.4)


def test_the_ratio_is_of_the_window_and_no_more():
    story = Story("x" * 10 + "." * 10)
    assert story.window.loss_ratio == pytest.approx(0.5)

    story.go("." * 20)

    assert story.window.loss_ratio == 0


def test_few_probes_give_no_ratio():
    assert Story("x" * (RATIO_PROBES_MIN - 3)).window.loss_ratio is None
    assert Story("." + "x" * (RATIO_PROBES_MIN - 1)).window.loss_ratio == pytest.approx(0.9)


def test_a_burst_counts_for_the_run_but_not_for_the_ratio():
    story = Story("." * 15 + "x")
    for number in range(3):
        story.window.sent(1000 + number, story.now, in_burst=True)
        story.now += 0.02
    story.window.settle(story.now + LIMIT_S_MIN)

    assert story.window.lost_in_row == 4
    assert story.window.loss_ratio == pytest.approx(1 / 16)


def test_a_probe_is_lost_after_the_round_trip_time_and_its_variation():
    window = LineWindow(2.0)
    assert window.limit_s == LIMIT_S_MAX  # nothing was ever answered

    for number in range(50):
        window.sent(number, number / 10)
        window.answered(number, number / 10 + 0.05)
        window.settle(number / 10 + 0.09)

    assert window.rtt_s == pytest.approx(0.05)
    assert window.limit_s == pytest.approx(0.06, abs=0.001)
    window.sent(50, 5.0)
    window.settle(5.0 + 0.055)
    assert window.lost_in_row == 0
    assert window.settles_at == pytest.approx(5.06, abs=0.001)
    window.settle(5.0 + 0.062)
    assert window.lost_in_row == 1


def test_the_time_to_wait_has_a_floor_and_a_ceiling():
    assert Story("." * 30).window.limit_s == LIMIT_S_MIN
    slow = LineWindow(30.0)
    slow.sent(1, 0.0)
    slow.answered(1, 0.9)

    assert slow.limit_s == LIMIT_S_MAX


def test_a_late_answer_mends_the_ratio_but_does_not_end_the_run():
    story = Story("." * 18 + "xx")
    assert story.window.loss_ratio == pytest.approx(0.1)

    story.window.answered(19, story.now)

    assert story.window.loss_ratio == pytest.approx(0.05)
    assert story.window.lost_in_row == 2
    assert story.window.silent_s(story.now + 1) == pytest.approx(1.0)
    story.go(".")
    assert story.window.lost_in_row == 0


def test_late_answers_teach_the_window_that_the_way_has_become_longer():
    story = Story("." * 20)
    lost = []
    for number in range(100, 130):
        story.window.sent(number, story.now)
        story.window.settle(story.now + min(story.window.limit_s + 0.001, 0.08))
        lost.append(story.window.lost_in_row)
        story.window.answered(number, story.now + 0.08)
        story.now += 0.1

    assert lost[0] == 1
    assert not any(lost[3:])


def test_a_lost_probe_that_was_overtaken_by_a_later_answer_begins_no_run():
    window = Story("." * 10).window
    window.sent(100, 1001.0)
    window.sent(101, 1001.01)
    window.answered(101, 1001.014)

    window.settle(1001.05)

    assert window.lost_in_row == 0  # the newest probe was answered, whatever became of the one before
    assert window.first_lost_at is None


def test_duplicate_and_unknown_answers_say_nothing():
    story = Story("." * 9 + "x")
    before = (story.window.lost_in_row, story.window.rtt_s, story.window.loss_ratio)

    story.window.answered(3, story.now)
    story.window.answered(999, story.now)

    assert (story.window.lost_in_row, story.window.rtt_s, story.window.loss_ratio) == before


def test_silence_counts_from_the_last_answer_and_is_none_while_it_answers():
    story = Story("." * 10)
    assert story.window.silent_s(story.now + 5) == 0

    story.go("x" * 10)

    assert story.window.silent_s(story.now) == pytest.approx(1.1 - RTT_S)


def test_silence_of_a_rung_that_never_answered_counts_from_its_first_probe():
    story = Story("x" * 30)

    assert story.window.silent_s(story.now) == pytest.approx(3.0)


def test_what_was_under_way_while_we_were_absent_is_no_loss():
    story = Story("." * 20)
    story.window.sent(500, story.now)

    story.window.settle(story.now + ABSENCE_S + 0.2)

    assert story.window.lost_in_row == 0
    assert story.window.loss_ratio is None  # everything in the window is too old to speak


def test_time_waits_from_the_moment_the_probe_had_left():
    story = Story("." * 10)
    story.window.sent(500, story.now, story.now + 0.05)  # we were stopped between reading the clock and sending

    story.window.settle(story.now + 0.06)

    assert story.window.lost_in_row == 0
    assert story.window.settles_at == pytest.approx(story.now + 0.05 + LIMIT_S_MIN)


def test_forgetting_leaves_nothing_but_the_round_trip_time():
    window = Story("." * 10 + "xxxx").window

    window.forget()

    assert window.lost_in_row == 0
    assert (window.first_lost_at, window.loss_ratio, window.newest_settled_at) == (None, None, None)
    assert window.rtt_s is not None


def test_a_dropped_probe_was_never_there():
    story = Story("." * 10)
    story.window.sent(500, story.now)

    story.window.drop(500)
    story.window.settle(story.now + 0.5)

    assert story.window.lost_in_row == 0


@given(st.lists(st.tuples(st.booleans(), st.floats(0.0, 0.3)), max_size=120), st.sampled_from([0.1, 0.5]))
def test_whatever_comes_back_and_when_the_facts_agree_with_each_other(fates, period_s):
    """Each probe is answered after its delay or never; the facts are compared with a count over all that is known."""
    window = LineWindow(2.0)
    coming: list[tuple[float, int]] = []
    steps = len(fates) * int(period_s / 0.02)
    for step in range(steps + 60):
        now = step * 0.02
        if step % int(period_s / 0.02) == 0 and step < steps:
            number = step // int(period_s / 0.02)
            window.sent(number, now)
            is_answered, delay_s = fates[number]
            coming += [(now + delay_s, number)] if is_answered else []
        for at, number in [entry for entry in coming if entry[0] <= now]:
            window.answered(number, at)
            coming.remove((at, number))
        window.settle(now)

        ratio = window.loss_ratio
        assert ratio is None or 0 <= ratio <= 1
        assert (window.first_lost_at is None) == (window.lost_in_row == 0)
        assert LIMIT_S_MIN <= window.limit_s <= LIMIT_S_MAX
        assert window.silent_s(now) >= 0
        if window.first_lost_at is not None:
            assert window.newest_settled_at is not None
            assert window.first_lost_at <= window.newest_settled_at
        assert len(window._probes) <= 2.0 / period_s + LIMIT_S_MAX / period_s + 2


@given(st.text(alphabet=".x", min_size=1, max_size=80))
def test_with_quick_answers_the_run_is_the_tail_of_the_story(pattern):
    window = Story("." + pattern).window

    assert window.lost_in_row == len(pattern) - len(pattern.rstrip("x"))
    last = ("." + pattern)[-20:]
    assert window.loss_ratio == (pytest.approx(last.count("x") / len(last)) if len(last) >= RATIO_PROBES_MIN else None)
