"""Writes docs/state-machines.md out of the core's tables: `tools/state_tables.py > docs/state-machines.md`."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from agent.core import alarm, incident, run

HEAD = """\
# State machines

Three things in the core are machines, each a literal table: a tier of an alarm, an incident, a run. This page is made from
those tables by `tools/state_tables.py`; a test compares the two. Tests walk every pair (`tests/core/test_alarm.py`,
`test_incident.py`, `test_run_table.py`).

Down the side stands where the thing is, along the top what happens to it, in the cell where it goes. A dot is a pair that
the table does not list.
"""


@dataclass(frozen=True, slots=True)
class Machine:
    """One table with what people need to read it. `unlisted`: what happens with a pair that is not listed."""

    title: str
    text: str
    states: type[StrEnum]
    moves: type[StrEnum]
    table: Mapping[Any, StrEnum]  # (state, move) -> state
    unlisted: str
    means: Mapping[StrEnum, str]


S, M = run.RunState, run.Move
A, T = alarm.AlarmState, alarm.Seen

MACHINES = (
    Machine(
        "A tier of an alarm",
        """\
Every tier of an alarm's ladder is a machine of its own ([the shipped ones](alarms.md)). The alarm keeps one id from the
first tier that becomes active until the last is normal. Silence leads towards an alarm, never away from it.
`core/alarm.py`.""",
        alarm.AlarmState,
        alarm.Seen,
        alarm.TRANSITIONS,
        "it stays where it is.",
        {
            A.NORMAL: "nothing is wrong",
            A.PENDING: "the enter conditions hold, and the on-delay runs",
            A.ACTIVE: "they have held for the on-delay",
            A.CLEARING: "a leave condition holds, and the off-delay runs",
            T.BAD: "all enter conditions are seen to hold",
            T.GOOD: "a leave condition is seen to hold",
            T.BETWEEN: "neither: the gap of the hysteresis",
            T.UNKNOWN: "it cannot be seen",
            T.ELAPSED: "the delay that runs is over",
        },
    ),
    Machine(
        "An incident",
        """\
The alarms of one cause, from the first active one until the last is normal. Id and start stay when the cause is refined.
`core/incident.py`, `core/incidents.py`.""",
        incident.IncidentState,
        incident.Turn,
        incident.TRANSITIONS,
        "it is an error: an ended incident never moves again.",
        {
            incident.IncidentState.OPEN: "an alarm of it stands",
            incident.IncidentState.CLOSED: "its last alarm is normal",
            incident.IncidentState.MERGED: "it turned out to be part of an older one, which goes on",
            incident.Turn.UPDATED: "its cause, tier or alarms changed",
            incident.Turn.CLEARED: "its last alarm became normal",
            incident.Turn.ABSORBED: "one cause explains it together with an older one",
        },
    ),
    Machine(
        "A run",
        """\
One execution of a runbook. Its intent is a durable record before a command leaves; a command that came back, well or not,
is followed by looking; a restart looks first. `held` waits for a person. `core/run.py`, `core/progress.py`.""",
        run.RunState,
        run.Move,
        run.TRANSITIONS,
        "it is refused, and the run stays as it was.",
        {
            S.WAITING: "before a command: the guards are asked, or a person, or a hold keeps it here",
            S.ACTING: "a command is on its way",
            S.VERIFYING: "the plant is asked whether it stands as wanted",
            S.UNDOING: "a command takes a step back, and the plant is asked",
            S.DONE: "every step is proven",
            S.UNDONE: "nothing was touched, or all of it is taken back",
            S.HELD: "nothing that may be done without a person is safe",
            M.PERMITTED: "the guards allow the command; its intent is in the journal",
            M.REFUSED: "the guards do not allow it, and nothing has been touched",
            M.WITHDRAWN: "the intent was recorded, and the command did not leave",
            M.RETURNED: "the command came back, well or not, or is given up",
            M.CONFIRMED: "the wanted state (undoing: the start state) is seen",
            M.NEXT: "confirmed, and there is another step",
            M.DENIED: "it was not seen in time",
            M.STUCK: "nothing that may be done without a person is safe",
            M.RESEND: "not done, and harmless to send again, once, under the same key",
            M.RESTARTED: "the agent came back in the middle, or was suspended",
            M.GO_ON: "a person: look again and go on",
            M.UNDO: "a person, or the cause clearing: take it back",
        },
    ),
)


def page() -> str:
    """Return the whole page."""
    return "\n".join([HEAD, *map(section, MACHINES)])


def section(machine: Machine) -> str:
    """Return one machine: its table, and what its words mean."""
    rows = [row(machine, state) for state in machine.states]
    return "\n".join(
        [
            f"## {machine.title}",
            "",
            machine.text,
            "",
            cells(["", *machine.moves]),
            "|---" * (len(machine.moves) + 1) + "|",
            *rows,
            "",
            f"A dot: {machine.unlisted}",
            "",
            "| where | |",
            "|---|---|",
            *(cells([f"`{state}`", machine.means[state]]) for state in machine.states),
            "",
            "| what happens | |",
            "|---|---|",
            *(cells([f"`{move}`", machine.means[move]]) for move in machine.moves),
            "",
        ]
    )


def row(machine: Machine, state: StrEnum) -> str:
    """Return where each move leads from *state*."""
    targets = (machine.table.get((state, move)) for move in machine.moves)
    return cells([f"`{state}`", *("·" if to is None else f"**{to}**" for to in targets)])


def cells(words: Iterable[str]) -> str:
    """Return one row of a table."""
    return f"| {' | '.join(words)} |"


if __name__ == "__main__":
    sys.stdout.write(page())
