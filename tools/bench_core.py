"""Measure how many events the core judges in one second of processor time, with every invariant asked after each."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from agent.core.engine import Stepped
from agent.core.model import Event
from tests.fakes.sites import Driver

EVENTS_PER_S_MIN = 10_000
SECONDS = 200  # of the site's time, in which everything is seen once a second
REPEATS = 3  # the best counts, for the machine may be busy
FAR = ("edge", "hq", "second_site")


class Counting(Driver):
    """A driver that counts its events and forgets what it said, as the daemon does once it is written down."""

    events = 0

    def send(self, event: Event) -> Stepped:
        self.events += 1
        stepped = super().send(event)
        self.records.clear()
        del self.effects[:-1]
        return stepped


def calm(driver: Counting) -> None:
    """All is well."""
    driver.keep_good(SECONDS)


def outage(driver: Counting) -> None:
    """Both lines are dead and the UPS is on its battery: an incident stands, and every guard is asked each time."""
    dead = {"wan1": FAR, "wan2": FAR}
    for _ in range(SECONDS):
        driver.now_s += 1.0
        for name, rungs in dead.items():
            driver.rungs(name, rungs)
        driver.mains("ups-a", present=False)
        driver.path(None)


def flapping(driver: Counting) -> None:
    """The primary's access comes and goes each second."""
    for second in range(SECONDS):
        driver.now_s += 1.0
        driver.rungs("wan1", FAR if second % 2 else ())
        driver.rungs("wan2")
        driver.mains("ups-a", present=True)
        driver.path("wan1")


def rate(course: Callable[[Counting], None]) -> float:
    """Return the events per second of processor time in *course*."""
    driver = Counting()
    driver.start()
    driver.all_good()
    driver.keep_good(5)
    before, started_s = driver.events, time.process_time()
    course(driver)
    return (driver.events - before) / (time.process_time() - started_s)


def main() -> int:
    """Print one row per course; return 1 if the calm one is below its limit."""
    print(f"{'course':<10} {'events per processor second':>28}")
    rates = {course.__name__: max(rate(course) for _ in range(REPEATS)) for course in (calm, outage, flapping)}
    for name, found in rates.items():
        print(f"{name:<10} {found:>28,.0f}")
    print(f"limit (calm) {EVENTS_PER_S_MIN:>26,}")
    return 1 if rates["calm"] < EVENTS_PER_S_MIN else 0


if __name__ == "__main__":
    sys.exit(main())
