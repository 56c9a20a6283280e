"""The commands about runbooks: what there is, what one would do, and a person's word to start, abort or lift."""

from __future__ import annotations

from pathlib import Path

import click

from agent.cli_common import json_option, print_json, site_file_option, socket_option
from agent.cli_people import look, report, runbook, tell


@runbook.command("list")
@site_file_option
@socket_option
@json_option
def list_books(config_path: Path, socket_path: Path | None, *, as_json: bool) -> None:
    """List the runbooks: mode, budget used, open run, and what keeps each quiet."""
    found = look(config_path, socket_path, "status")["runbooks"]
    if as_json:
        print_json({"runbooks": found})
        return
    from agent.render import runbooks_text

    click.echo(runbooks_text(found), nl=False)


@runbook.command()
@click.argument("name", metavar="RUNBOOK")
@site_file_option
@socket_option
@json_option
def plan(name: str, config_path: Path, socket_path: Path | None, *, as_json: bool) -> None:
    """Show what RUNBOOK would do now, step by step, and what each guard says. Nothing is done."""
    found = look(config_path, socket_path, "plan", runbook=name)
    if as_json:
        print_json(found)
        return
    from agent.render import plan_text

    click.echo(plan_text(found), nl=False)


@runbook.command()
@click.argument("name", metavar="RUNBOOK")
@site_file_option
@socket_option
@json_option
def run(name: str, config_path: Path, socket_path: Path | None, *, as_json: bool) -> None:
    """
    Start RUNBOOK now, whatever the cause.

    Everything else is asked as ever: hold, lockout, quiet time, budget, another run, and that the way there is good.
    From where it brings the site, a person brings it back (changeover runbook run RUNBOOK.return).
    """
    report(tell(config_path, socket_path, "run", runbook=name), as_json=as_json)


@runbook.command()
@click.argument("run", metavar="RUN")
@site_file_option
@socket_option
@json_option
def abort(run: str, config_path: Path, socket_path: Path | None, *, as_json: bool) -> None:
    """Let RUN go no further, and take back what it has done; past its point of no return it is held."""
    report(tell(config_path, socket_path, "abort", run=run), as_json=as_json)


@click.command()
@click.argument("name", metavar="RUNBOOK")
@site_file_option
@socket_option
@json_option
def lift(name: str, config_path: Path, socket_path: Path | None, *, as_json: bool) -> None:
    """End the quiet time of RUNBOOK. A lockout is lifted by: changeover runbook reset."""
    report(tell(config_path, socket_path, "lift", runbook=name), as_json=as_json)
