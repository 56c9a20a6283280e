"""
Line profiles: how often a line is probed, and when it is dead, bad and good again.

`fast`: the first loss starts a burst of three, so that four losses in a row are dead. `default`: four losses in a row,
burst included. `calm`: ten seconds of silence.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, slots=True)
class Profile:
    """
    One profile.

    Dead: `dead_lost_in_row` losses in a row or, where that is None, `dead_silent_s` of silence. Bad: a loss of
    `bad_loss_ratio` or more over `window_s`. Good again: less than `good_below_ratio` lost for `good_for_s`.
    """

    name: str
    period_s: float
    window_s: float
    dead_lost_in_row: int | None
    dead_silent_s: float
    bad_loss_ratio: float
    carrier_delay_s: float
    hold_down_s: float
    good_for_s: float
    good_below_ratio: float = 0.01
    burst_count: int = 3
    burst_gap_s: float = 0.02


PROFILES: Final[Mapping[str, Profile]] = {
    "fast": Profile("fast", 0.1, 2.0, 4, 10.0, 0.25, 0.0, 0.0, 60.0),
    "default": Profile("default", 0.5, 15.0, 4, 10.0, 0.40, 0.5, 0.0, 600.0),
    "calm": Profile("calm", 1.0, 30.0, None, 10.0, 0.40, 3.0, 15.0, 600.0),
}
