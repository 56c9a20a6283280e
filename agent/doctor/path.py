"""What the answer of the path means: does the site's own traffic arrive, and by which line?"""

from __future__ import annotations

from typing import Final

from agent.core.model import Quality
from agent.doctor.asked import Asked, Heard, Reading, read_stream
from agent.doctor.finding import Finding, note, ok, wrong
from probes.wire.echo import parse_target

NO_ANSWER_CURE: Final = (
    "look at the lines above; where they answer, look at this host's own routes: ip route get {address}"
)
NO_LINE_CURE: Final = "interface or source of the line must be the one that `ip route get {address}` shows"


def is_enough(asked: Asked, heard: Heard) -> bool:
    """Tell whether an answer came: a silence may only be the first packet's."""
    return heard.value("answered") is True


def read_path(asked: Asked, heard: Heard) -> list[Finding]:
    """Return whether the site's own traffic arrives, and by which line."""
    name, target = asked.equipment, asked.config.target
    address = parse_target(target).address
    answered = heard.value("answered")
    if answered is None:
        return read_stream(asked, heard)
    if not answered:
        text = f"{target} does not answer the way this host routes it"
        return [wrong(name, text, NO_ANSWER_CURE.format(address=address))]
    line = heard.value("line")
    if line is None:
        one = heard.seen.get("line")
        doubt = f" ({one.fault})" if one is not None and one.quality is Quality.SUSPECT else ""
        text = f"{target} answers, but by no line of the site that could be told{doubt}"
        return [wrong(name, text, NO_LINE_CURE.format(address=address))]
    told = f"{target} answers, by {line}"
    if getattr(asked.patient.config.lines.get(str(line)), "role", "") == "standby":
        return [note(name, f"{told}: the site is on its standby line")]
    return [ok(name, told)]


READING: Final = Reading(stream=read_path, is_enough=is_enough)
