"""The commands by which people take note of alarms: who has seen them, and which nobody wants to hear of for a while."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from agent.cli_common import json_option, print_json, site_file_option, socket_option
from agent.cli_people import length_of_time, tell


def report_alarms(answer: Any, *, as_json: bool) -> None:
    """Print the alarms that a person spoke of, as they stand now."""
    if as_json:
        print_json(answer)
        return
    from agent.render.now import alarm_row

    for alarm in answer["alarms"]:
        click.echo(alarm_row(alarm))


@click.command()
@click.argument("name", metavar="ID")
@site_file_option
@socket_option
@json_option
def ack(name: str, config_path: Path, socket_path: Path | None, *, as_json: bool) -> None:
    """
    Acknowledge an alarm (A7 or wan1.hq_dead), or all that stand in an incident (I3): you have taken note.

    It changes no alarm. It ends with the alarm, and when that becomes heavier.
    """
    report_alarms(tell(config_path, socket_path, "ack", id=name), as_json=as_json)


@click.command()
@click.argument("alarm")
@click.option(
    "--for",
    "for_s",
    metavar="TIME",
    required=True,
    callback=length_of_time,
    help="For how long, as in 30m or 2h; 24 h at most.",
)
@click.option("--reason", required=True, help="Why; it is shown to everybody and kept in the journal.")
@site_file_option
@socket_option
@json_option
def shelve(
    alarm: str, for_s: float, reason: str, config_path: Path, socket_path: Path | None, *, as_json: bool
) -> None:
    """
    Leave ALARM (A7 or wan1.hq_dead) out of the site's tier and out of notices for a time.

    It is judged and acted on all the same. It comes back at the end of that time, when it becomes heavier, and with a
    new occurrence.
    """
    words = {"alarm": alarm, "for_s": for_s, "reason": reason}
    report_alarms(tell(config_path, socket_path, "shelve", **words), as_json=as_json)


@click.command()
@click.argument("alarm")
@site_file_option
@socket_option
@json_option
def unshelve(alarm: str, config_path: Path, socket_path: Path | None, *, as_json: bool) -> None:
    """Let a shelved ALARM be told of again."""
    report_alarms(tell(config_path, socket_path, "unshelve", alarm=alarm), as_json=as_json)
