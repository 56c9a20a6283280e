"""points.db: what is kept, what is not, and that the loop never waits for it."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from agent.core.model import At, Observation, PointId, PointSpec, Quality, Value
from agent.runtime.points import PointLimits, PointStore, Sample, read_points

LOAD = PointId("ups-a.load_percent")
STATE = PointId("mains.position")
UTC_S = 1_700_000_000.0
FAST = PointLimits(flush_s=0.01)
DEADLINE_S = 10.0


class HandClock:
    """A clock that stands until it is moved."""

    def __init__(self) -> None:
        self.boot_s = 1000.0

    def now(self) -> At:
        return At("boot", self.boot_s, UTC_S + self.boot_s)


def seen(
    point: PointId, value: Value, at: float, quality: Quality = Quality.GOOD, fault: str | None = None
) -> Observation:
    return Observation(point, value, quality, at - 0.1, at, "test", fault)


def kept(directory: Path, point: PointId) -> list[Value]:
    return [sample.value for sample in read_points(directory, point)]


def until(condition: Callable[[], bool]) -> None:
    """Poll until *condition* holds."""
    pause = threading.Event()
    for _ in range(int(DEADLINE_S / 0.01)):
        if condition():
            return
        pause.wait(0.01)
    raise AssertionError("the condition did not come true before the deadline")


def test_a_reading_is_kept_with_its_utc_time_and_quality(tmp_path: Path) -> None:
    store = PointStore(tmp_path, HandClock(), limits=FAST)
    store.offer([seen(LOAD, 41.5, 990.0), seen(STATE, None, 991.0, Quality.UNKNOWN, "timed_out")])
    store.close()

    assert list(read_points(tmp_path, LOAD)) == [Sample(UTC_S + 990.0, 41.5, Quality.GOOD, None)]
    assert list(read_points(tmp_path, STATE)) == [Sample(UTC_S + 991.0, None, Quality.UNKNOWN, "timed_out")]


def test_a_move_within_the_deadband_is_not_kept_and_one_beyond_it_is(tmp_path: Path) -> None:
    specs = {LOAD: PointSpec("percent", 5.0, "load", deadband=2.0)}
    store = PointStore(tmp_path, HandClock(), specs, FAST)
    for second, value in enumerate([40.0, 41.0, 42.0, 42.5, 43.0, 45.0]):
        store.offer([seen(LOAD, value, 1000.0 + second)])
    store.close()

    assert kept(tmp_path, LOAD) == [40.0, 42.5, 45.0]


def test_a_slow_drift_is_measured_from_what_was_kept_last(tmp_path: Path) -> None:
    specs = {LOAD: PointSpec("percent", 5.0, "load", deadband=2.0)}
    store = PointStore(tmp_path, HandClock(), specs, FAST)
    for step in range(30):
        store.offer([seen(LOAD, 40.0 + step * 0.25, 1000.0 + step)])
    store.close()

    assert kept(tmp_path, LOAD) == [40.0, 42.25, 44.5, 46.75]


def test_a_point_that_does_not_change_is_kept_once_a_minute(tmp_path: Path) -> None:
    store = PointStore(tmp_path, HandClock(), limits=FAST)
    for second in range(0, 300, 5):
        store.offer([seen(STATE, "closed", 1000.0 + second)])
    store.close()

    assert [one.at_utc_s - UTC_S for one in read_points(tmp_path, STATE)] == [1000.0, 1060.0, 1120.0, 1180.0, 1240.0]


def test_a_change_of_quality_or_fault_is_kept_at_once(tmp_path: Path) -> None:
    store = PointStore(tmp_path, HandClock(), limits=FAST)
    store.offer([seen(STATE, "open", 1000.0)])
    store.offer([seen(STATE, "open", 1001.0, Quality.SUSPECT, "contradicts")])
    store.offer([seen(STATE, None, 1002.0, Quality.UNKNOWN, "refused")])
    store.offer([seen(STATE, None, 1003.0, Quality.UNKNOWN, "timed_out")])
    store.offer([seen(STATE, None, 1004.0, Quality.UNKNOWN, "timed_out")])
    store.close()

    assert [one.fault for one in read_points(tmp_path, STATE)] == [None, "contradicts", "refused", "timed_out"]


def test_only_the_asked_span_is_read(tmp_path: Path) -> None:
    store = PointStore(tmp_path, HandClock(), limits=FAST)
    store.offer([seen(LOAD, float(second), 1000.0 + second) for second in range(10)])
    store.close()

    span = read_points(tmp_path, LOAD, UTC_S + 1003.0, UTC_S + 1005.0)
    assert [one.value for one in span] == [3.0, 4.0, 5.0]
    assert kept(tmp_path, PointId("nobody.knows")) == []


def test_a_restart_goes_on_in_the_same_file(tmp_path: Path) -> None:
    for number in range(3):
        store = PointStore(tmp_path, HandClock(), limits=FAST)
        store.offer([seen(LOAD, float(number), 1000.0 + number)])
        store.close()

    assert kept(tmp_path, LOAD) == [0.0, 1.0, 2.0]


def test_values_that_sqlite_cannot_hold_as_they_are_do_not_stop_the_writer(tmp_path: Path) -> None:
    store = PointStore(tmp_path, HandClock(), limits=FAST)
    store.offer([seen(LOAD, 2**70, 1000.0), seen(STATE, "half\udc80", 1000.0), seen(LOAD, 1, 1001.0)])
    store.close()

    assert kept(tmp_path, LOAD) == [float(2**70), 1]
    assert kept(tmp_path, STATE) == ["half\\udc80"]


def test_a_disk_that_does_not_keep_up_drops_the_oldest_and_counts(tmp_path: Path) -> None:
    store = PointStore(tmp_path, HandClock(), limits=PointLimits(flush_s=60.0, buffer_rows=10))
    for number in range(25):
        store.offer([seen(LOAD, number, 1000.0 + number)])

    assert store.dropped == 15
    store.close()
    assert kept(tmp_path, LOAD) == list(range(15, 25))


def test_a_locked_file_is_told_and_written_when_it_is_free_again(tmp_path: Path) -> None:
    store = PointStore(tmp_path, HandClock(), limits=FAST)
    with closing(sqlite3.connect(tmp_path / "points.db", isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        store.offer([seen(LOAD, 1.0, 1000.0)])
        until(lambda: "locked" in store.trouble)
        other.execute("ROLLBACK")
    until(lambda: store.trouble == "" and kept(tmp_path, LOAD) == [1.0])
    store.close()


def test_the_last_space_of_a_disk_is_left_to_the_journal(tmp_path: Path) -> None:
    store = PointStore(tmp_path, HandClock(), limits=PointLimits(flush_s=0.01, leave_free_bytes=2**60))
    store.offer([seen(LOAD, 1.0, 1000.0)])

    until(lambda: "are free" in store.trouble)

    store.close()
    assert kept(tmp_path, LOAD) == []


def test_what_is_older_than_seven_days_is_forgotten(tmp_path: Path) -> None:
    clock = HandClock()
    limits = PointLimits(flush_s=0.01, keep_s=7 * 86_400.0)
    store = PointStore(tmp_path, clock, limits=limits)
    store.offer([seen(LOAD, 1.0, 1000.0), seen(LOAD, 2.0, 90_000.0)])
    until(lambda: kept(tmp_path, LOAD) == [1.0, 2.0])

    clock.boot_s = 1001.0 + 7 * 86_400.0

    until(lambda: kept(tmp_path, LOAD) == [2.0])
    store.close()


def test_the_file_stays_within_its_bound_by_forgetting_the_oldest(tmp_path: Path) -> None:
    clock = HandClock()
    limits = PointLimits(flush_s=0.005, size_bytes=100_000, log_bytes=50_000, trim_every_s=0.0)
    store = PointStore(tmp_path, clock, limits=limits)
    written = 0
    for batch in range(40):
        store.offer([seen(LOAD, number, 1000.0 + number) for number in range(batch * 500, batch * 500 + 500)])
        written += 500
        last = written - 1
        until(lambda last=last: [one.value for one in read_points(tmp_path, LOAD, UTC_S + 1000.0 + last)] == [last])  # type: ignore[misc]
    store.close()

    assert (tmp_path / "points.db").stat().st_size < 4 * limits.size_bytes
    values = kept(tmp_path, LOAD)
    assert values[-1] == written - 1
    assert values == list(range(written - len(values), written))


@pytest.mark.parametrize("damage", [b"this is not a database at all", b""])
def test_a_damaged_file_is_put_aside_and_begun_anew(tmp_path: Path, damage: bytes) -> None:
    (tmp_path / "points.db").write_bytes(damage)

    store = PointStore(tmp_path, HandClock(), limits=FAST)
    store.offer([seen(LOAD, 1.0, 1000.0)])
    store.close()

    assert kept(tmp_path, LOAD) == [1.0]
    assert (tmp_path / "points.db.broken").exists() == bool(damage)
