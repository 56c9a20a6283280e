"""The commands by which people look at a running agent and tell it what to do."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from agent.cli_common import (
    FAILED,
    end,
    find_socket,
    json_option,
    load_config,
    print_json,
    site_file_option,
    socket_option,
)
from agent.control_client import ControlRefused, NobodyAnswers, request
from agent.errors import JournalBroken


def length_of_time(ctx: click.Context, param: click.Parameter, value: str | None) -> float | None:
    """Return seconds for a length of time with its unit, as in 30m or 2h."""
    if value is None:
        return None
    from agent.fields import DURATION, DURATION_CURE, UNIT_S

    found = DURATION.fullmatch(value)
    if found is None or found[1]:
        raise click.BadParameter(f"{value} is no length of time; {DURATION_CURE}", ctx, param)
    return float(found[2]) * UNIT_S[found[3]]


def tell(config_path: Path, socket_path: Path | None, verb: str, **words: Any) -> Any:
    """Return the agent's answer to *verb*; end with a reason when it says no or is not there."""
    try:
        return request(find_socket(config_path, socket_path), verb, **words)
    except NobodyAnswers as error:
        end(f"{error}: nothing was done", FAILED)
    except ControlRefused as error:
        end(f"{error} ({error.code})", FAILED)


def report(answer: Any, *, as_json: bool) -> None:
    """Print what stands after a person's word."""
    if as_json:
        print_json(answer)
        return
    from agent.render.now import block_text, hold_text, run_row

    click.echo(hold_text(answer["hold"]) if answer["hold"] else "no hold")
    for block in answer["blocks"]:
        click.echo(block_text(block))
    for run in answer["runs"]:
        click.echo(run_row(run))


# ---------------------------------------------------------------- looking


def look(config_path: Path, socket_path: Path | None, verb: str, **words: Any) -> Any:
    """Return the agent's view, or what its journal remembers while it is down."""
    try:
        return request(find_socket(config_path, socket_path), verb, **words)
    except ControlRefused as error:
        end(f"{error} ({error.code})", FAILED)
    except NobodyAnswers as error:
        click.echo(f"{error}; reading its journal", err=True)
    return cold_view(config_path, verb, **words)


def cold_view(config_path: Path, verb: str, **words: Any) -> Any:
    """Return the view that the journal of an agent that is down gives."""
    from agent.cli_cold import NothingRemembered, remembered
    from agent.clock import SystemClock
    from agent.views import UnknownName, explain, plan, status

    config = load_config(config_path)
    try:
        cold = remembered(config.state_dir)
        now = SystemClock().now()
        if verb == "status":
            return status(config.site, cold.state, now, cold.journal, running=False)
        if verb == "plan":
            return plan(config.site, cold.state, now, words["runbook"])
        return explain(config.site, cold.state, now, words["id"])
    except JournalBroken as error:
        end(f"{error}; see: changeover journal verify -c {config_path}", FAILED)
    except OSError as error:
        end(f"the journal in {config.state_dir} cannot be read: {error.strerror or error}", FAILED)
    except (NothingRemembered, UnknownName) as error:
        end(str(error), FAILED)


@click.command()
@site_file_option
@socket_option
@json_option
def status(config_path: Path, socket_path: Path | None, *, as_json: bool) -> None:
    """Show what stands now; with the agent down, what its journal remembers."""
    found = look(config_path, socket_path, "status")
    if as_json:
        print_json(found)
        return
    from agent.render import status_text

    click.echo(status_text(found), nl=False)


@click.command()
@click.argument("name", metavar="ID")
@site_file_option
@socket_option
@json_option
def explain(name: str, config_path: Path, socket_path: Path | None, *, as_json: bool) -> None:
    """Say why: ID is an incident (I3), an alarm (A7 or wan1.hq_dead), a run (R2) or a runbook."""
    found = look(config_path, socket_path, "explain", id=name)
    if as_json:
        print_json(found)
        return
    from agent.render import explain_text

    click.echo(explain_text(found), nl=False)


# ---------------------------------------------------------------- deciding


@click.command()
@click.option("--reason", default="", help="Why; it is shown to everybody and kept in the journal.")
@click.option(
    "--for",
    "for_s",
    metavar="TIME",
    default=None,
    callback=length_of_time,
    help="For how long, as in 30m or 2h; until released unless given.",
)
@click.option("--let-finish", is_flag=True, help="Let runs that have begun end first.")
@site_file_option
@socket_option
@json_option
def hold(
    reason: str, for_s: float | None, config_path: Path, socket_path: Path | None, *, let_finish: bool, as_json: bool
) -> None:
    """Let no new command leave. The agent goes on watching and telling."""
    words = {"reason": reason, "for_s": for_s, "let_finish": let_finish}
    report(tell(config_path, socket_path, "hold", **words), as_json=as_json)


@click.command()
@site_file_option
@socket_option
@json_option
def release(config_path: Path, socket_path: Path | None, *, as_json: bool) -> None:
    """End a hold. A run that stands still waits on until a person chooses (changeover runbook)."""
    report(tell(config_path, socket_path, "release"), as_json=as_json)


@click.command()
@click.argument("run")
@site_file_option
@socket_option
@json_option
def approve(run: str, config_path: Path, socket_path: Path | None, *, as_json: bool) -> None:
    """Approve RUN, which asks before it acts."""
    report(tell(config_path, socket_path, "approve", run=run), as_json=as_json)


@click.group()
def runbook() -> None:
    """Look at the runbooks, start one, and decide about runs."""


@runbook.command("go-on")
@click.argument("run")
@site_file_option
@socket_option
@json_option
def go_on(run: str, config_path: Path, socket_path: Path | None, *, as_json: bool) -> None:
    """Let RUN look again and go on from what it sees."""
    report(tell(config_path, socket_path, "choose", run=run, choice="go-on"), as_json=as_json)


@runbook.command()
@click.argument("run")
@site_file_option
@socket_option
@json_option
def undo(run: str, config_path: Path, socket_path: Path | None, *, as_json: bool) -> None:
    """Let RUN take back what it has done."""
    report(tell(config_path, socket_path, "choose", run=run, choice="undo"), as_json=as_json)


@runbook.command()
@click.argument("name", metavar="RUNBOOK")
@site_file_option
@socket_option
@json_option
def reset(name: str, config_path: Path, socket_path: Path | None, *, as_json: bool) -> None:
    """Lift the lockout, the quiet time and the spent budget of RUNBOOK, or of the runbook of a run."""
    report(tell(config_path, socket_path, "reset", runbook=name), as_json=as_json)
