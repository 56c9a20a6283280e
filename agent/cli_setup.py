"""The commands of the first hour: a first site file, and a doctor that tries all that it names."""

from __future__ import annotations

import contextlib
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Final

import click

from agent.cli_common import DONE, FAILED, SITE_FILE, end, json_option, load_config, print_json, site_file_option

if TYPE_CHECKING:
    from agent.survey import Survey

SITE_MODE: Final = 0o640


def target(ctx: click.Context, param: click.Parameter, value: str | None) -> str | None:
    """Return a target of a line as it was given."""
    from probes.wire.echo import parse_target

    try:
        return value if value is None else str(parse_target(value))
    except ValueError as error:
        raise click.BadParameter(str(error), ctx, param) from error


@click.command()
@click.option(
    "--output",
    type=click.Path(path_type=Path, dir_okay=False),
    default=SITE_FILE,
    show_default=True,
    help="Where to write it; a file that is there stays as it is.",
)
@click.option("--hq", metavar="ADDRESS", default=None, callback=target, help="A router at headquarters, for each line.")
@json_option
def init(output: Path, hq: str | None, *, as_json: bool) -> None:
    """Write a first site file from what this machine sees: its UPS, default routes, gateways and disks."""
    import asyncio

    from agent.first_site import fill_ins, first_site
    from agent.survey import survey, this_machine

    if output.exists():
        end(f"{output} is there already and stays as it is; name another with --output", FAILED)
    seen = asyncio.run(survey(this_machine()))
    text = first_site(seen, hq)
    write_new(output, text)
    if as_json:
        print_json({"written": str(output), "fill_ins": fill_ins(text), "seen": seen.data()})
        return
    click.echo("\n".join((f"{output} is written from what this machine shows:", *survey_rows(seen))))
    click.echo(f"{fill_ins(text)} places in it are marked FILL IN; then:")
    click.echo(f"  changeover check -c {output}\n  changeover doctor -c {output}")


def write_new(path: Path, text: str) -> None:
    """Write *text* to *path*, whole or not at all, never over a file; end with the reason otherwise."""
    try:
        file = path.open("x", encoding="utf-8")
    except FileExistsError:
        end(f"{path} is there already and stays as it is; name another with --output", FAILED)
    except OSError as error:
        end(f"{path} cannot be written: {error.strerror or error}; name another place with --output", FAILED)
    try:
        with file:
            file.write(text)
            share(file.fileno(), path.parent)
    except OSError as error:
        path.unlink(missing_ok=True)
        end(f"{path} cannot be written: {error.strerror or error}", FAILED)


def share(descriptor: int, directory: Path) -> None:
    """Let the group of *directory* read the file, whatever the umask: the service is of the group of /etc/changeover."""
    os.fchmod(descriptor, SITE_MODE)
    with contextlib.suppress(PermissionError):  # a directory of others, such as /tmp
        os.fchown(descriptor, -1, directory.stat().st_gid)


def survey_rows(seen: Survey) -> list[str]:
    """Return what was seen, one row for each source."""
    from runbooks.routes import text as route_text

    rows = {
        "host": f"{seen.hostname}, {seen.timezone or 'no time zone'}",
        "devices": ", ".join(one.name for one in seen.devices) or "none",
        "routes": ", ".join(map(route_text, seen.routes)) or "none",
        "disks": ", ".join(seen.disks),
    }
    titles = {"host": "host", "devices": "UPS", "routes": "default routes", "disks": "disks"}
    shown = {key: f"not seen: {seen.unseen[key]}" if key in seen.unseen else row for key, row in rows.items()}
    return [f"  {titles[key]}: {row}" for key, row in shown.items()]


@click.command()
@site_file_option
@json_option
def doctor(config_path: Path, *, as_json: bool) -> None:
    """Try every login and probe once, and look at what the agent needs: say what is wrong, and the cure."""
    import asyncio

    from agent.app import this_machine
    from agent.doctor import data, examine, is_well, lines

    config = load_config(config_path)
    found = asyncio.run(examine(config, this_machine()))
    if as_json:
        print_json(data(found))
    else:
        click.echo("\n".join(lines(found)))
    sys.exit(DONE if is_well(found) else FAILED)
