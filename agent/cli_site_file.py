"""The command that lets a running agent read its site file anew."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import click

from agent.cli_common import FAILED, WRONG, json_option, print_json, site_file_option, socket_option
from agent.cli_people import tell

PARTS = (
    ("no_longer_covered", "NO LONGER COVERED:"),
    ("newly_covered", "newly covered:"),
    ("needs_restart", "not yet in force:"),
)


@click.command()
@site_file_option
@socket_option
@json_option
def reload(config_path: Path, socket_path: Path | None, *, as_json: bool) -> None:
    """Let the running agent read its site file anew. It refuses a wrong one and keeps the one before."""
    answer = tell(config_path, socket_path, "reload")
    if as_json:
        print_json(answer)
    else:
        show(answer)
    if not answer["ok"]:
        sys.exit(WRONG if answer["code"] == "wrong_file" else FAILED)


def show(answer: Any) -> None:
    """Print what became of it; why not goes to the error stream."""
    if not answer["ok"]:
        for problem in answer["problems"]:
            click.echo(problem, err=True)
        click.echo("not taken: the site file before is in force", err=True)
        return
    click.echo("taken")
    for key, title in PARTS:
        for place, line in enumerate(answer[key]):
            if place == 0:
                click.echo(title)
            click.echo(f"  {line}")
