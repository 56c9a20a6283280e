"""Every sentence that the demo says, in one table."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

TEXTS: Final[Mapping[str, str]] = {
    # ---- beginning and end
    "title": "changeover demo: the agent of a branch on this machine, its equipment simulated. Nothing here is changed.",
    "scene": "  A UPS, line wan1 (in use), line wan2 (kept ready), headquarters behind both.",
    "metrics": "  metrics:              http://{host}:{port}/metrics",
    "status_command": "  in another terminal:  {program} status -c {site}",
    "log": "  its log:              {log}",
    "keys": "  keys: 1 2 break or mend wan1, wan2 - m mains - b battery low - h headquarters - s full status - q quit",
    "hint": "press 1 to break the line in use and watch the traffic move; press it again to mend the line",
    "story": "a short story follows: wan1 breaks and is mended, then the mains fails",
    "taken_over": "the story ends here: the keys are yours",
    "shown": "shown: {what}",
    "shown_nothing": "shown: the branch as it stands, nothing was broken",
    "shown_swap": "wan1 broke and traffic moved to wan2, proven after {ms:.0f} ms",
    "shown_return": "it returned to wan1, proven",
    "shown_mains": "the mains failed, and that was named as the cause",
    "not_returned": "the return takes {seconds:.0f} s or more and was not waited for",
    "not_proven": "FAILED: no swap was proven by traffic; everything is kept in {directory}",
    "agent_ended": "FAILED: the agent ended: {error}; everything is kept in {directory}",
    "no_start": "the demo cannot start: {error}",
    # ---- what is done to the branch
    "wan1_dead": "wan1 breaks: nothing is refused, nothing comes back",
    "wan1_dead_end": "wan1 is mended; it must stay good for {good_for_s:.0f} s before traffic returns",
    "wan2_dead": "wan2 breaks: nothing is refused, nothing comes back",
    "wan2_dead_end": "wan2 is mended",
    "mains_absent": "the mains fails: the UPS runs on its battery",
    "mains_absent_end": "the mains is back",
    "battery_low": "the battery is nearly empty",
    "battery_low_end": "the battery is full again",
    "hq_dead": "headquarters falls silent behind both lines",
    "hq_dead_end": "headquarters answers again",
    # ---- what the agent decides
    "alarm": "alarm {tier}: {text}",
    "incident": "incident {id}: {cause}{unsettled}",
    "incident_now": "incident {id} is now: {cause}{unsettled}",
    "incident_merged": "incident {id} is the same as {into}",
    "incident_over": "incident {id} is over: {cause}",
    "unsettled": " (not settled)",
    "refused": "traffic stays on {line}: {why}",
    "decided": "{run} decided: traffic moves from {leaves} to {enters}",
    "approval": "{run} waits for approval: traffic would move from {leaves} to {enters}",
    "commanded": "{run} commanded: {verb} to {to}",
    "undoing": "{run} commanded: take it back, {verb} to {to}",
    "withdrawn": "{run} did not send: {why}",
    "failed": "{run} command {outcome}: {detail}",
    "proven": "{run} proven by traffic: headquarters answers over {line}, {ms:.0f} ms after {since}",
    "since_broke": "{line} broke",
    "since_command": "the command",
    "denied": "{run} not proven: {why}",
    "ended": "{run} ended {end}: {why}",
    "locked": "{runbook} is locked until a person resets it: {why}",
    "gap": "time jumped by {gap_s:.1f} s: everything is looked at anew",
    "hold": "on hold by {owner}: {why}",
    "released": "hold released by {owner}",
    "journal": "the journal cannot be written: {why}",
    # ---- how it stands
    "stands": "now: traffic {traffic} | wan1 {wan1} | wan2 {wan2} | {mains} | site {site}",
    "traffic_by": "by {line}",
    "traffic_none": "not answered",
    "mains_on": "mains present",
    "mains_off": "on battery",
    "mains_unknown": "mains unknown",
}


def say(key: str, /, **words: object) -> str:
    """Return the sentence *key* with *words* in it."""
    return TEXTS[key].format(**words)
