"""The commands that show what stands: the incidents, and everything as it changes."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any, Final

import click

from agent.cli_common import DONE, FAILED, end, find_socket, json_option, print_json, site_file_option, socket_option
from agent.cli_people import length_of_time, look
from agent.control_client import ControlRefused, NobodyAnswers, request

ASK_EACH_S: Final = 1.0


@click.command()
@click.option("--ended", "with_ended", is_flag=True, help="The last ended ones too.")
@site_file_option
@socket_option
@json_option
def incidents(config_path: Path, socket_path: Path | None, *, with_ended: bool, as_json: bool) -> None:
    """List the open incidents with their alarms; with the agent down, those that its journal remembers."""
    found = look(config_path, socket_path, "status")
    ended = found["ended_incidents"] if with_ended else []
    if as_json:
        print_json({"incidents": found["incidents"]} | ({"ended_incidents": ended} if with_ended else {}))
        return
    from agent.render import incidents_text

    click.echo(incidents_text(found["incidents"], found["alarms"], ended), nl=False)


@click.command()
@click.option(
    "--for", "for_s", metavar="TIME", default=None, callback=length_of_time, help="End after so long, as in 30s or 2h."
)
@site_file_option
@socket_option
@json_option
def watch(for_s: float | None, config_path: Path, socket_path: Path | None, *, as_json: bool) -> None:
    """
    Show what stands, anew whenever it changes, until Ctrl-C. With --json, one line of JSON each time.

    An agent that goes away is told of and waited for.
    """
    from agent.clock import boot_s

    socket = find_socket(config_path, socket_path)
    until_s = float("inf") if for_s is None else boot_s() + for_s
    shown: Any = None
    try:
        while True:
            shown = show_change(socket, shown, as_json=as_json)
            if boot_s() + ASK_EACH_S > until_s:
                time.sleep(max(0.0, until_s - boot_s()))
                sys.exit(DONE)
            time.sleep(ASK_EACH_S)
    except KeyboardInterrupt:
        sys.exit(DONE)


def show_change(socket: Path, shown: Any, *, as_json: bool) -> Any:
    """Print what stands unless it is as *shown*; return what a change is told by. Ends when there never was an agent."""
    from agent.render import lasting, watch_text

    try:
        found = request(socket, "status")
    except (NobodyAnswers, ControlRefused) as error:
        if shown is None:
            end(f"{error}: there is nothing to watch", FAILED)
        if shown != str(error):
            click.echo(f"{error}; waiting for it", err=True)
        return str(error)
    stands = lasting(found)
    if stands != shown:
        show(json.dumps(found, ensure_ascii=False, allow_nan=False) if as_json else watch_text(found), as_json=as_json)
    return stands


def show(text: str, *, as_json: bool) -> None:
    """Print *text* at once: on a terminal in the place of what was there, elsewhere after it."""
    if not as_json and sys.stdout.isatty():
        click.clear()
    click.echo(text)
    sys.stdout.flush()
