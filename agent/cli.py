"""
The command line. Exit codes: 0 done, 1 failed or found wanting, 2 usage or site file, 3 another agent owns the state.

Heavy parts are imported by the commands that need them, so that help and completion answer at once.
"""

from __future__ import annotations

import logging
import os
import sys
from pathlib import Path

import click

from agent import __version__
from agent.cli_alarms import ack, shelve, unshelve
from agent.cli_common import (
    DONE,
    FAILED,
    WRONG,
    end,
    json_option,
    load_config,
    print_json,
    read_config,
    site_file_option,
)
from agent.cli_journal import export
from agent.cli_password import password
from agent.cli_people import approve, explain, hold, release, runbook, status
from agent.cli_runbook import lift
from agent.cli_setup import doctor, init
from agent.cli_site_file import reload
from agent.cli_watch import incidents, watch
from agent.errors import ConfigError

LEVELS = ("debug", "info", "warning", "error")


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="changeover", message="%(prog)s %(version)s")
def main() -> None:
    """The continuity agent of a branch site: it watches power, lines and hosts, and moves the site to its standby."""


def start_log(level: str) -> None:
    """Send the log to standard error; the system's journal puts its own time before each line."""
    time_word = "" if "JOURNAL_STREAM" in os.environ else "%(asctime)s "
    logging.basicConfig(level=level.upper(), format=f"{time_word}%(levelname)s %(name)s: %(message)s")


@main.command()
@site_file_option
@click.option("--state-dir", type=click.Path(path_type=Path), default=None, help="Instead of the site file's.")
@click.option(
    "--credentials",
    type=click.Path(path_type=Path, file_okay=False),
    default=None,
    help="The directory of secrets, instead of systemd's.",
)
@click.option("--log-level", type=click.Choice(LEVELS), default="info", show_default=True)
def run(config_path: Path, state_dir: Path | None, credentials: Path | None, log_level: str) -> None:
    """Run the agent until SIGTERM or SIGINT; SIGHUP lets it read its site file anew."""
    from agent import app

    start_log(log_level)
    try:
        sys.exit(app.run(config_path, state_dir=state_dir, credentials=credentials))
    except OSError as error:
        end(f"cannot run: {error}", FAILED)


@main.command()
@click.option(
    "--for", "seconds", type=click.FloatRange(min=0, min_open=True), default=None, help="End after so many SECONDS."
)
@click.option("--language", type=click.Choice(("en", "zh")), default="en", show_default=True)
def demo(seconds: float | None, language: str) -> None:
    """Show the agent at work on a simulated branch. Needs no privilege."""
    from drills.simsite.demo import main as show

    sys.exit(show(seconds, language))


@main.command()
@site_file_option
@json_option
def check(config_path: Path, *, as_json: bool) -> None:
    """Check the site file: every mistake at once; then what is watched and which faults are covered."""
    try:
        config = read_config(config_path)
    except ConfigError as error:
        if as_json:
            print_json({"problems": problem_rows(error)})
        end(str(error), WRONG)
    from agent.coverage import report

    coverage = report(config)
    if as_json:
        print_json({"problems": [], "coverage": coverage.data()})
    else:
        click.echo("\n".join(coverage.lines()))


def problem_rows(error: ConfigError) -> list[dict[str, str | int]]:
    """Return the mistakes of a site file for JSON."""
    return [
        {"file": error.source, "line": p.line, "column": p.column, "path": p.path, "message": p.message, "cure": p.cure}
        for p in error.problems
    ]


@main.group()
def journal() -> None:
    """Look at the journal."""


@journal.command()
@site_file_option
@click.option("--state-dir", type=click.Path(path_type=Path), default=None, help="Instead of the site file's.")
@json_option
def verify(config_path: Path, state_dir: Path | None, *, as_json: bool) -> None:
    """Check every record of the journal, and change nothing. Safe beside a running agent."""
    from dataclasses import asdict

    from agent.runtime.journal_file import DATABASE, HEAD
    from agent.runtime.journal_verify import verify as look_through

    directory = state_dir if state_dir is not None else load_config(config_path).state_dir
    try:
        if not any((directory / name).exists() for name in (DATABASE, HEAD)):
            end(f"there is no journal in {directory}", FAILED)
        found = look_through(directory)
    except OSError as error:
        end(f"the journal in {directory} cannot be read: {error.strerror or error}", FAILED)
    if as_json:
        print_json({"sound": found.is_sound, **asdict(found)})
    else:
        for problem in found.problems:
            click.echo(problem, err=True)
        verdict = "sound" if found.is_sound else "NOT SOUND"
        last = found.last_seq if found.last_seq is not None else "none"
        click.echo(f"{directory}: {verdict}: {found.entries} records in {found.segments} segments, last {last}")
    sys.exit(DONE if found.is_sound else FAILED)


for command in (
    status,
    explain,
    hold,
    release,
    approve,
    runbook,
    init,
    doctor,
    reload,
    password,
    watch,
    incidents,
    ack,
    shelve,
    unshelve,
    lift,
):
    main.add_command(command)
journal.add_command(export)
