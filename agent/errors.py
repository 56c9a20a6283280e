"""
The errors of the program, sorted by what to do next.

    ChangeoverError
    ├── ConfigError          the person who wrote the site file mends it; carries every problem at once
    ├── ProbeFault           a device could not be looked at; becomes an observation of unknown quality
    ├── ActionFailed         a command did not do its work; the run looks at the plant and goes on from there
    ├── JournalBroken        what was remembered cannot be trusted; the agent watches and does not act
    ├── StateDirectoryInUse  another agent owns the state directory; this one ends with exit code 3
    └── InvariantViolation   we were about to do wrong; the agent goes on hold and keeps watching
"""

from __future__ import annotations

from dataclasses import dataclass


class ChangeoverError(Exception):
    """Root of every error that this program raises on purpose."""


@dataclass(frozen=True, slots=True)
class Problem:
    """One mistake in the site file: where it stands, what is wrong, and the cure."""

    line: int
    column: int
    path: str
    message: str
    cure: str = ""

    def __str__(self) -> str:
        return f"{self.line}:{self.column}: {self.path}: {self.message}" + (f"; {self.cure}" if self.cure else "")


class ConfigError(ChangeoverError):
    """The site file is wrong. `problems` holds every mistake that was found, in file order."""

    def __init__(self, source: str, problems: tuple[Problem, ...]) -> None:
        self.source = source
        self.problems = problems
        super().__init__("\n".join(f"{source}:{problem}" for problem in problems))


class ProbeFault(ChangeoverError):
    """
    A device could not be looked at. *fault* is one of FAULTS below: a fact about the wire, never about the thing behind it.
    """

    def __init__(self, fault: str, detail: str = "") -> None:
        self.fault = fault
        self.detail = detail
        super().__init__(f"{fault}: {detail}" if detail else fault)


FAULTS = (
    "refused",  # the far side refused the connection
    "timed_out",  # no answer before the deadline
    "closed",  # the connection ended in the middle
    "unreachable",  # the network said that there is no way
    "send_failed",  # our own send did not succeed
    "binding_failed",  # the probe did not leave by the line that it was bound to
    "wait",  # a NUT server has no first answer of its driver yet
    "data_stale",  # a NUT server says that its driver has gone quiet
    "driver_not_connected",  # a NUT server has lost its driver
    "access_denied",  # the server answered, and does not let us in
    "unknown_ups",  # the server does not know the device of that name
    "bad_reply",  # an answer that breaks the protocol or holds an impossible value
    "stale",  # the last answer is older than three periods
    "not_seen",  # never asked since start, or everything was forgotten in a time gap
    "failed",  # anything else, with the detail
)


class ActionFailed(ChangeoverError):
    """A command did not do its work; the reason is the text. The plant may have moved all the same."""


class JournalBroken(ChangeoverError):
    """A middle part of the journal is missing or altered. `seq` is the first record that cannot be trusted."""

    def __init__(self, seq: int, reason: str) -> None:
        self.seq = seq
        self.reason = reason
        super().__init__(f"journal broken at record {seq}: {reason}")


class StateDirectoryInUse(ChangeoverError):
    """Another agent owns the state directory."""


class InvariantViolation(ChangeoverError):
    """A rule that must always hold would be broken. `rule` is its number in docs/invariants.md."""

    def __init__(self, rule: str, detail: str) -> None:
        self.rule = rule
        super().__init__(f"{rule}: {detail}")
