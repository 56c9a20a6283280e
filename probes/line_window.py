"""
What the last probes of one rung say: loss over a window, losses in a row, silence, round-trip time. Pure.

A probe is lost when it is unanswered for the smoothed round-trip time + 4 x its variation + 10 ms, within 20 ms and 1 s
(1 s while nothing was ever answered), and somebody has looked since (`settle`). Whoever calls `settle` has drained the
socket before, so that an answer which only waited for us is no loss.

A late answer, to a probe that was already counted as lost, takes that loss out of `loss_ratio`, ends `silent_s` and
corrects the round-trip time: those say what came back. It does not end a run of losses (`lost_in_row`): that takes an
answer in time to a probe sent after the newest lost one.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from typing import Final

MARGIN_S: Final = 0.01
LIMIT_S_MIN: Final = 0.02
LIMIT_S_MAX: Final = 1.0
# Fewer probes give no ratio: one lost probe among the first four would be a "bad" line.
RATIO_PROBES_MIN: Final = 10
# Nobody settled for so long: we were suspended, stopped or starved, and what was under way then proves nothing.
ABSENCE_S: Final = 2.0


@dataclass(slots=True)
class _Probe:
    asked_at: float
    left_at: float
    in_burst: bool
    answered: bool | None = None  # None: neither answered nor lost yet


class LineWindow:
    """The window of one rung, *window_s* long. All instants are boot seconds."""

    def __init__(self, window_s: float) -> None:
        self.window_s = window_s
        self.rtt_s: float | None = None
        self.jitter_s: float | None = None
        self.lost_in_row = 0
        self.first_lost_at: float | None = None
        self.newest_settled_at: float | None = None
        self.newest_answered_at: float | None = None  # send time, of an answer in time
        self._newest_lost_at = float("-inf")
        self._heard_at: float | None = None
        self._settled_at: float | None = None
        self._probes: OrderedDict[int, _Probe] = OrderedDict()

    def sent(self, sequence: int, asked_at: float, left_at: float | None = None, in_burst: bool = False) -> None:
        """
        Note a probe. *asked_at* was read before it was sent: evidence rests on it. It waits from *left_at*, after that.

        A burst's probe counts for all but the ratio: bursts come when something is lost, and would weigh it twice.
        """
        if self._heard_at is None:
            self._heard_at = asked_at
        self._probes[sequence] = _Probe(asked_at, asked_at if left_at is None else left_at, in_burst)

    def answered(self, sequence: int, at: float) -> None:
        """Note an answer that came at *at*. One to a probe that is unknown, or was answered before, says nothing."""
        probe = self._probes.get(sequence)
        if probe is None or probe.answered:
            return
        self._smooth(max(at - probe.left_at, 0.0))
        self._heard_at = max(at, self._heard_at or at)
        if probe.answered is None:
            self._note_settled(probe.asked_at)
            self.newest_answered_at = max(probe.asked_at, self.newest_answered_at or probe.asked_at)
            if probe.asked_at >= self._newest_lost_at:
                self.lost_in_row, self.first_lost_at = 0, None
        probe.answered = True

    def drop(self, sequence: int) -> None:
        """Forget one probe: it turned out to say nothing of this line."""
        self._probes.pop(sequence, None)

    def settle(self, now: float) -> None:
        """Count as lost what has waited too long at *now*, and let go of what has left the window."""
        is_absence = self._settled_at is not None and now - self._settled_at > ABSENCE_S
        self._settled_at = now
        if is_absence:
            self._forget_awaited()
        limit_s = self.limit_s
        for probe in self._probes.values():
            if probe.answered is None and now - probe.left_at >= limit_s:
                probe.answered = False
                self._note_lost(probe.asked_at)
        while self._probes:
            sequence, oldest = next(iter(self._probes.items()))
            if oldest.answered is None or now - oldest.asked_at <= self.window_s:
                break
            del self._probes[sequence]

    def forget(self) -> None:
        """Forget every probe and the present run: they were no evidence. The round-trip time stays."""
        self._probes.clear()
        self.lost_in_row, self.first_lost_at = 0, None
        self.newest_settled_at = self.newest_answered_at = self._heard_at = None
        self._newest_lost_at = float("-inf")

    @property
    def limit_s(self) -> float:
        """How long a probe may be unanswered before it is lost."""
        if self.rtt_s is None or self.jitter_s is None:
            return LIMIT_S_MAX
        return min(max(self.rtt_s + 4 * self.jitter_s + MARGIN_S, LIMIT_S_MIN), LIMIT_S_MAX)

    @property
    def loss_ratio(self) -> float | None:
        """The lost part of the settled probes in the window, bursts left out; None while they are too few."""
        settled = [probe for probe in self._probes.values() if probe.answered is not None and not probe.in_burst]
        if len(settled) < RATIO_PROBES_MIN:
            return None
        return sum(not probe.answered for probe in settled) / len(settled)

    @property
    def settles_at(self) -> float | None:
        """When the oldest probe under way will be lost, None while none is."""
        waiting = (probe.left_at for probe in self._probes.values() if probe.answered is None)
        oldest = min(waiting, default=None)
        return None if oldest is None else oldest + self.limit_s

    def silent_s(self, now: float) -> float:
        """Return how long nothing was heard, or since the first probe; 0 while the newest probe was answered."""
        if not self.lost_in_row or self._heard_at is None:
            return 0.0
        return max(now - self._heard_at, 0.0)

    def _smooth(self, sample_s: float) -> None:
        # RFC 6298, section 2.
        if self.rtt_s is None or self.jitter_s is None:
            self.rtt_s, self.jitter_s = sample_s, sample_s / 2
            return
        self.jitter_s += (abs(sample_s - self.rtt_s) - self.jitter_s) / 4
        self.rtt_s += (sample_s - self.rtt_s) / 8

    def _note_settled(self, asked_at: float) -> None:
        self.newest_settled_at = max(asked_at, self.newest_settled_at or asked_at)

    def _note_lost(self, asked_at: float) -> None:
        self._note_settled(asked_at)
        self._newest_lost_at = max(asked_at, self._newest_lost_at)
        if self.newest_answered_at is None or asked_at > self.newest_answered_at:
            self.lost_in_row += 1
            self.first_lost_at = asked_at if self.first_lost_at is None else self.first_lost_at

    def _forget_awaited(self) -> None:
        for sequence in [sequence for sequence, probe in self._probes.items() if probe.answered is None]:
            del self._probes[sequence]
