"""
The text of a first site file, made of what the machine shows. Whatever was seen, `check` takes the file as it is.

What only people know stands as a comment marked FILL IN; a line that a person forgets to fill in is refused by `check`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from agent.fields import NAME, TEXT_MAX
from agent.ports import Route
from agent.survey import NUT_HOST, NUT_PORT, Survey
from probes.line_config import check_interface
from probes.wire.echo import parse_address
from probes.wire.nut import shown
from probes.wire.nut_devices import Device
from runbooks.routes import text as route_text

HOST: Final = "this-host"
MAINS: Final = "mains"
ROLES: Final = ("primary", "standby")
KEPT_NAMES: Final = (HOST, MAINS, "path")
PLAIN: Final = re.compile(r"[A-Za-z/][A-Za-z0-9_./-]*|[0-9]+(?:\.[0-9]+){3}")
NOT_TEXT: Final = frozenset({"true", "false", "null"})
NOTE_COLUMN: Final = 34

HEAD: Final = """\
# The first site file of this branch, written by `changeover init` from what this machine shows. Look it over, fill in what
# is marked FILL IN, then try it:
#
#     changeover check -c FILE       every mistake; what is watched, what is not covered
#     changeover doctor -c FILE      tries each probe once and says what is wrong and the cure
#
# Every key with its default stands in docs/configuration.md, a whole example in config.example.yaml.
"""
NO_UPS: Final = f"""\
  # No UPS: {{reason}}.
  # Without one nobody is told of a power cut before everything stops. FILL IN: install the NUT server (Debian: apt install
  # nut-server), name the UPS in /etc/nut/ups.conf, see it answer to `upsc NAME@{NUT_HOST}`, and take away these "# ":
  # {MAINS}:
  #   kind: utility
  # ups-a:
  #   kind: ups
  #   fed_by: {MAINS}
  #   ups: NAME                   # FILL IN: its name in ups.conf, without the brackets
"""
NO_LINE: Final = """\
  # No line: {reason}. FILL IN, and take away these "# ":
  # wan1:
  #   kind: line
  #   role: primary
  #   interface: INTERFACE
  #   gateway: ADDRESS
  #   targets: {{cpe: ADDRESS, edge: ADDRESS, hq: ADDRESS}}
"""
RUNBOOK: Final = """\
# When wan1 is dead or bad and wan2 is proven better, the traffic goes by wan2; when wan1 has been good again, back.
runbooks:
  standby:
    use: standby_line
    mode: watch                   # says what it would have done; later ask, then auto
    bind: {primary: wan1, standby: wan2}
"""
LATER: Final = '# FILL IN the hq target of wan1 and of wan2, then take away these "# ": it needs them for its proof.\n'


@dataclass(frozen=True, slots=True)
class Way:
    """One line, as its default route shows it; gateway "" where the route has none."""

    name: str
    role: str
    interface: str
    gateway: str
    route: str


def first_site(seen: Survey, hq: str | None = None) -> str:
    """Return the site file. *hq*: the target at headquarters for each line, where a person has told it."""
    lines, left_out = ways(seen.routes, has_target=hq is not None)
    return "\n".join(
        (
            HEAD,
            site_section(seen),
            "equipment:",
            power_section(seen, [line.name for line in lines]),
            line_section(seen, lines, left_out, hq),
            host_section(seen),
            runbook_section(lines, hq),
        )
    ).rstrip("\n") + "\n"  # fmt: skip


def fill_ins(text: str) -> int:
    """Return how many places of *text* wait for a person, those of the heading left out."""
    return text.removeprefix(HEAD).count("FILL IN")


# ---------------------------------------------------------------- sections


def site_section(seen: Survey) -> str:
    """Return who this site is."""
    label = seen.hostname.partition(".")[0]
    shown_name = seen.hostname if is_text(seen.hostname) else "branch"
    zone = f"  timezone: {scalar(seen.timezone)}\n" if seen.timezone else no_zone(seen)
    return (
        "site:\n"
        + noted(
            f"  id: {scalar(fit_name(label, 'branch', ()))}", "FILL IN: short and lasting, in every record and metric"
        )
        + noted(f"  name: {scalar(shown_name)}", "FILL IN: for people")
        + zone
        + noted("  language: en", "zh or en")
        + f"  agent:\n    host: {HOST}\n"
        + noted("    # fed_by: ups-a", "FILL IN: the UPS that this machine hangs on")
    )


def no_zone(seen: Survey) -> str:
    """Return the place of a time zone that is not known."""
    reason = seen.unseen.get("timezone", "this machine names none")
    return f"  # timezone: Asia/Shanghai       # FILL IN, else times are shown in UTC: {comment(reason)}\n"


def power_section(seen: Survey, taken: Iterable[str]) -> str:
    """Return the mains and each UPS."""
    supplies = [one for one in seen.devices if is_text(one.name)]
    if not supplies:
        place = f"{NUT_HOST}:{NUT_PORT}"
        reason = seen.unseen.get("devices")
        told = f"the NUT server at {place} could not be asked ({comment(reason)})" if reason else f"{place} has none"
        return NO_UPS.format(reason=told)
    used = [*KEPT_NAMES, *taken]
    text = f"  {MAINS}:\n    kind: utility\n"
    for one in supplies:
        word = fit_name(one.name, "ups", used)
        used.append(word)
        text += "\n" + ups_entry(word, one)
    return text


def ups_entry(word: str, device: Device) -> str:
    """Return one UPS."""
    about = f"  # {comment(device.text)}\n" if device.text.strip() else ""
    return (
        f"{about}  {scalar(word)}:\n    kind: ups\n    fed_by: {MAINS}\n"
        f"    ups: {scalar(device.name)}\n    host: {NUT_HOST}\n    port: {NUT_PORT}\n"
    )


def line_section(seen: Survey, lines: Sequence[Way], left_out: Sequence[str], hq: str | None) -> str:
    """Return each line, and what was not taken for one."""
    aside = "".join(f"  # Not taken for a line: {comment(reason)}.\n" for reason in left_out)
    if not lines:
        reason = seen.unseen.get("routes", "this machine has no default route that could be one")
        return aside + NO_LINE.format(reason=comment(reason))
    return aside + "\n".join(line_entry(line, hq) for line in lines)


def line_entry(line: Way, hq: str | None) -> str:
    """Return one line; what it can be asked at is the gateway, and what a person has told."""
    title = "The line in use" if line.role == ROLES[0] else "A line kept ready"
    text = f"  # {title}, as the route says: {comment(line.route)}.\n"
    text += f"  {line.name}:\n    kind: line\n    role: {line.role}\n"
    text += noted("    profile: default", "fast for a line that carries money, calm for one that is paid by the byte")
    text += f"    interface: {scalar(line.interface)}\n"
    text += f"    gateway: {line.gateway}\n" if line.gateway else ""
    text += noted("    # provider: NAME", "FILL IN: two lines of one provider fail together")
    text += "    targets:\n"
    text += noted(f"      cpe: {line.gateway}", "taken for the provider's box on site") if line.gateway else ""
    text += noted("      # edge: ADDRESS", "FILL IN: the provider's side of the line, the first hop behind its box")
    if hq is not None:
        return text + f"      hq: {scalar(hq)}\n"
    return text + noted("      # hq: ADDRESS", "FILL IN: a router at headquarters that answers echoes")


def host_section(seen: Survey) -> str:
    """Return this machine with its disks."""
    reason = seen.unseen.get("disks")
    told = f"  # Its disks could not be listed: {comment(reason)}.\n" if reason else ""
    disks = ", ".join(scalar(path) for path in seen.disks if is_text(path))
    return f"  # The machine that the agent runs on.\n{told}  {HOST}:\n    kind: host\n    disks: [{disks}]\n"


def runbook_section(lines: Sequence[Way], hq: str | None) -> str:
    """Return the runbook that moves the site to its standby line, ready or as a comment."""
    if len(lines) < len(ROLES):
        return "# With a second line stands here what moves the site to it: docs/configuration.md, runbooks.\n"
    if hq is not None:
        return RUNBOOK
    return LATER + "".join(f"# {row}\n" for row in RUNBOOK.splitlines()[1:])


# ---------------------------------------------------------------- lines


def ways(routes: Sequence[Route], *, has_target: bool) -> tuple[tuple[Way, ...], tuple[str, ...]]:
    """
    Return the lines that default routes show, the one in use first, and why others are none.

    *has_target*: a line without gateway has something that it can be asked at all the same.
    """
    lines: list[Way] = []
    left_out: list[str] = []
    for route in sorted(routes, key=lambda route: route.metric):
        reason = why_no_line(route, lines, has_target)
        if reason is not None:
            left_out.append(f"{route_text(route)}: {reason}")
            continue
        role = ROLES[min(len(lines), 1)]
        lines.append(Way(f"wan{len(lines) + 1}", role, route.interface, route.gateway, route_text(route)))
    return tuple(lines), tuple(left_out)


def why_no_line(route: Route, lines: Sequence[Way], has_target: bool) -> str | None:
    """Return why *route* shows no line beside *lines*, None when it does."""
    if route.ours:
        return "the agent added it"
    if "," in route.interface:
        return "it goes by several at once; give each a default route of its own"
    if not is_line(route):
        return "it leads out by no interface and gateway of IPv4"
    if not route.gateway and not has_target:
        return "it has no gateway to ask; write the line by hand, with an hq target"
    for line in lines:
        if route.interface == line.interface:
            return f"{line.name} leaves by {line.interface} too; two lines on one interface need a source each"
        if route.gateway and route.gateway == line.gateway:
            return f"{line.name} has the gateway {line.gateway} too; two lines need two"
    return None


def is_line(route: Route) -> bool:
    """Tell whether interface and gateway of *route* may stand in a site file."""
    try:
        check_interface(route.interface)
        if route.gateway:
            parse_address(route.gateway)
    except ValueError:
        return False
    return route.interface not in ("blackhole", "unreachable", "prohibit", "throw")


# ---------------------------------------------------------------- words


def fit_name(word: str, otherwise: str, taken: Collection[str]) -> str:
    """Return *word* as a name for the site file, unlike each of *taken*."""
    fit = re.sub(r"[^A-Za-z0-9_-]+", "-", word).strip("-_")[:36] or otherwise
    names = (fit, *(f"{fit}-{number}" for number in range(2, len(taken) + 3)))
    return next(name for name in names if NAME.fullmatch(name) and name not in taken)


def is_text(word: str) -> bool:
    """Tell whether *word* may be a value of the site file."""
    return bool(word.strip()) and word.isprintable() and len(word) <= TEXT_MAX


def scalar(word: str) -> str:
    """Return *word* as YAML that is read back as this text."""
    return word if PLAIN.fullmatch(word) and word.lower() not in NOT_TEXT else json.dumps(word, ensure_ascii=False)


def comment(words: str) -> str:
    """Return *words*, which may come from outside, fit for one line of a comment."""
    return shown(words.strip())


def noted(row: str, note: str) -> str:
    """Return *row* with a comment behind it."""
    return f"{row.ljust(NOTE_COLUMN - 1)} # {note}\n"
