"""
Records: what the core decided. Nothing else changes durable state, and replaying them gives the same state again.

A new body is added here, and its rule in `apply`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from agent.core.alarm import Alarm, RungState
from agent.core.incident import Cause
from agent.core.model import AlarmKey, At, Fact, Outcome, Request, Tier
from agent.core.run import Move, RunState


@dataclass(frozen=True, slots=True)
class AgentStarted:
    """The agent came up. `new_boot`: the machine has been restarted since the last record."""

    version: str
    site_digest: str
    new_boot: bool
    safe_reason: str | None = None


@dataclass(frozen=True, slots=True)
class GapSeen:
    """We did not run for `gap_s` seconds; delays start anew."""

    gap_s: float
    reason: str


@dataclass(frozen=True, slots=True)
class ClockStepSeen:
    """UTC moved against boot time. Changes nothing."""

    step_s: float


@dataclass(frozen=True, slots=True)
class JournalTrouble:
    """The journal could not, or can again, be written."""

    durable: bool
    reason: str


@dataclass(frozen=True, slots=True)
class DelaysRebased:
    """The running delays of these alarms started anew, after a reboot or a gap."""

    alarms: Mapping[str, Alarm]


@dataclass(frozen=True, slots=True)
class AlarmMoved:
    """An alarm changed. `was` and `tier`: its tier before and after. All rungs normal: it is over."""

    key: AlarmKey
    id: str | None
    was: Tier
    tier: Tier
    rungs: Mapping[str, RungState]
    blind: bool
    unconfirmed: bool
    older_than_start: bool
    facts: tuple[Fact, ...]


@dataclass(frozen=True, slots=True)
class IncidentOpened:
    """A new incident."""

    id: str
    cause: Cause
    tier: Tier
    alarms: tuple[AlarmKey, ...]
    against: tuple[str, ...]
    evidence: tuple[Fact, ...]


@dataclass(frozen=True, slots=True)
class IncidentChanged:
    """Cause, tier or alarms of an open incident changed; it keeps id and start."""

    id: str
    cause: Cause
    tier: Tier
    alarms: tuple[AlarmKey, ...]
    against: tuple[str, ...]
    evidence: tuple[Fact, ...]


@dataclass(frozen=True, slots=True)
class IncidentMerged:
    """Two incidents turned out to be one."""

    id: str
    into: str


@dataclass(frozen=True, slots=True)
class IncidentClosed:
    """The last alarm of an incident is normal."""

    id: str


@dataclass(frozen=True, slots=True)
class Refused:
    """A runbook did not act. `look`: points that would settle the question are asked for at once."""

    runbook: str
    incident: str
    code: str
    text: str
    facts: tuple[Fact, ...]
    look: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class RunOpened:
    """
    A run begins. `approved` False: a person is asked first. `deadline_s`: end of its waiting, boot seconds. `asked_by`:
    the person who ordered it, None when it began by itself.
    """

    run: str
    runbook: str
    runbook_digest: str
    incident: str
    approved: bool | None
    deadline_s: float
    facts: tuple[Fact, ...]
    asked_by: str | None = None


@dataclass(frozen=True, slots=True)
class RunApproved:
    """A person approved a run."""

    run: str
    owner: str
    deadline_s: float


@dataclass(frozen=True, slots=True)
class StepIntended:
    """A command will leave as soon as this record is durable."""

    run: str
    step: int
    move: Move
    request: Request
    deadline_s: float


@dataclass(frozen=True, slots=True)
class StepWithdrawn:
    """The command did not leave: its evidence was too old, or a hold came first."""

    run: str
    key: str
    reason: str
    deadline_s: float


@dataclass(frozen=True, slots=True)
class StepSent:
    """The executor has accepted the command durably."""

    run: str
    key: str


@dataclass(frozen=True, slots=True)
class StepResulted:
    """The command came back, or was given up; from now on the plant is looked at."""

    run: str
    key: str
    outcome: Outcome
    detail: str
    returned_s: float
    deadline_s: float
    look: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class StepVerified:
    """The wanted state was seen. `last`: that was the last step."""

    run: str
    step: int
    last: bool
    deadline_s: float
    facts: tuple[Fact, ...]


@dataclass(frozen=True, slots=True)
class StepDenied:
    """The wanted state was not seen in time."""

    run: str
    step: int
    reason: str
    facts: tuple[Fact, ...]


@dataclass(frozen=True, slots=True)
class StepUndone:
    """One step has been taken back; the one before it is next."""

    run: str
    step: int
    reason: str
    facts: tuple[Fact, ...]


@dataclass(frozen=True, slots=True)
class RunLookedAgain:
    """After a restart, a gap or a person's word: the plant is asked again before anything else."""

    run: str
    move: Move
    returned_s: float
    deadline_s: float
    ask: str | None
    look: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class RunPaused:
    """A hold keeps a run where it stands."""

    run: str
    paused: bool
    by: str
    deadline_s: float | None


@dataclass(frozen=True, slots=True)
class RunAborted:
    """A person wants this run to go no further; from now on it is taken back."""

    run: str
    owner: str


@dataclass(frozen=True, slots=True)
class RunEnded:
    """A run ended. `end`: done, undone or held. `move`: by which move of its table."""

    run: str
    end: RunState
    move: Move
    reason: str


@dataclass(frozen=True, slots=True)
class ArrangementEntered:
    """The site is in an abnormal arrangement that lasts. `asked_by`: the person who ordered it, if one did."""

    name: str
    runbook: str
    run: str
    incident: str
    line: str
    asked_by: str | None = None


@dataclass(frozen=True, slots=True)
class ArrangementLeft:
    """The site is back in its normal arrangement."""

    name: str
    run: str


@dataclass(frozen=True, slots=True)
class ArrangementLost:
    """The plant no longer stands as this arrangement has it, and it was no run of ours that ended it."""

    name: str
    reason: str
    facts: tuple[Fact, ...]


@dataclass(frozen=True, slots=True)
class Spent:
    """One run counts against the budget of this runbook."""

    runbook: str
    run: str


@dataclass(frozen=True, slots=True)
class Locked:
    """A runbook is locked until a person resets it."""

    runbook: str
    reason: str
    incident: str


@dataclass(frozen=True, slots=True)
class Unlocked:
    """A person reset a runbook: lockout, block and spent budget are gone."""

    runbook: str
    owner: str


@dataclass(frozen=True, slots=True)
class Blocked:
    """A runbook stays quiet for a time."""

    runbook: str
    reason: str
    for_s: float


@dataclass(frozen=True, slots=True)
class BlockLifted:
    """A person ended the quiet time of a runbook."""

    runbook: str
    owner: str


@dataclass(frozen=True, slots=True)
class AlarmAcknowledged:
    """A person took note of an alarm as it stood: `tier` and what is lighter. Ends with the alarm."""

    key: AlarmKey
    id: str
    owner: str
    tier: Tier


@dataclass(frozen=True, slots=True)
class AlarmShelved:
    """A person wants to hear nothing of an alarm at `tier` or lighter for a time. Ends with the alarm, if not before."""

    key: AlarmKey
    owner: str
    reason: str
    for_s: float
    tier: Tier


@dataclass(frozen=True, slots=True)
class AlarmUnshelved:
    """A shelved alarm is told of again: by a person's word, or because its time is over."""

    key: AlarmKey
    by: str


@dataclass(frozen=True, slots=True)
class HoldSet:
    """No new command leaves."""

    owner: str
    reason: str
    let_finish: bool
    for_s: float | None


@dataclass(frozen=True, slots=True)
class HoldReleased:
    """The hold is over."""

    owner: str


@dataclass(frozen=True, slots=True)
class SiteReloaded:
    """
    Another site file is in force. `no_longer_covered`, `newly_covered`: one line for each thing that is watched, named
    as a cause or acted on differently than before. `needs_restart`: what of it waits for the agent's next start.
    """

    digest: str
    owner: str
    no_longer_covered: tuple[str, ...]
    newly_covered: tuple[str, ...]
    needs_restart: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class ConfigRefused:
    """A site file was not taken, and the one before it stays. `problems`: one line each. `code`: wrong_file or not_now."""

    source: str
    owner: str
    code: str
    problems: tuple[str, ...]


Body = (
    AgentStarted
    | GapSeen
    | ClockStepSeen
    | JournalTrouble
    | DelaysRebased
    | AlarmMoved
    | IncidentOpened
    | IncidentChanged
    | IncidentMerged
    | IncidentClosed
    | Refused
    | RunOpened
    | RunApproved
    | StepIntended
    | StepWithdrawn
    | StepSent
    | StepResulted
    | StepVerified
    | StepDenied
    | StepUndone
    | RunLookedAgain
    | RunPaused
    | RunAborted
    | RunEnded
    | ArrangementEntered
    | ArrangementLeft
    | ArrangementLost
    | Spent
    | Locked
    | Unlocked
    | Blocked
    | BlockLifted
    | AlarmAcknowledged
    | AlarmShelved
    | AlarmUnshelved
    | HoldSet
    | HoldReleased
    | SiteReloaded
    | ConfigRefused
)


@dataclass(frozen=True, slots=True)
class Record:
    """One decision and its moment."""

    at: At
    body: Body
