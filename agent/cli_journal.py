"""The command that hands the journal to others: every record as a line of JSON, the chain looked through on the way."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Final

import click

from agent.cli_common import DONE, FAILED, end, load_config, site_file_option

if TYPE_CHECKING:
    from agent.runtime.journal_export import Span
    from agent.runtime.journal_verify import VerifyReport

COPIES_MAX: Final = 3  # a running agent may be merging its log just while we copy
DAY_S: Final = 86_400.0


def a_bound(ctx: click.Context, param: click.Parameter, value: str | None) -> tuple[str, float] | None:
    """Return ("seq", number) or ("utc_s", seconds) for a number of a record, or a moment; a date ends with its day."""
    from datetime import UTC, datetime

    if value is None:
        return None
    if value.isascii() and value.isdigit():
        return "seq", int(value)
    try:
        moment = datetime.fromisoformat(value)
    except ValueError as error:
        text = f"{value} is neither a record's number nor a moment such as 2026-03-02 or 2026-03-02T01:30:00Z"
        raise click.BadParameter(text, ctx, param) from error
    moment = moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)
    whole_day_s = DAY_S - 0.001 if len(value) == len("2026-03-02") and param.name == "last" else 0.0
    return "utc_s", moment.timestamp() + whole_day_s


@click.command()
@click.option("--from", "first", metavar="RECORD|TIME", default=None, callback=a_bound, help="Not before this.")
@click.option("--to", "last", metavar="RECORD|TIME", default=None, callback=a_bound, help="Not after this.")
@click.option(
    "--output",
    type=click.Path(path_type=Path, dir_okay=False),
    default=None,
    help="A new file, instead of standard output.",
)
@site_file_option
@click.option("--state-dir", type=click.Path(path_type=Path), default=None, help="Instead of the site file's.")
def export(
    first: tuple[str, float] | None,
    last: tuple[str, float] | None,
    output: Path | None,
    config_path: Path,
    state_dir: Path | None,
) -> None:
    """
    Give every record of the journal as a line of JSON, and follow its chain on the way.

    A bound is a record's number or a moment in UTC, both ends included. Reads a copy, so that it is safe beside a
    running agent and changes nothing.
    """
    directory = state_dir if state_dir is not None else load_config(config_path).state_dir
    if output is not None and output.exists():
        end(f"{output} is there already and stays as it is", FAILED)
    try:
        with sound_copy(directory) as (copy, report):
            count = write_out(copy, span_of(first, last), output)
    except OSError as error:
        end(f"the journal in {directory} cannot be exported: {error.strerror or error}", FAILED)
    if report.first_seq is not None and report.first_seq > 1:
        click.echo(f"records before {report.first_seq} are in {directory / 'exports'}", err=True)
    for problem in report.problems:
        click.echo(problem, err=True)
    verdict = "the chain holds" if report.is_sound else "NOT SOUND; what could be followed was exported"
    click.echo(f"{count} of {report.entries} records exported: {verdict}", err=True)
    sys.exit(DONE if report.is_sound else FAILED)


@contextmanager
def sound_copy(directory: Path) -> Iterator[tuple[Path, VerifyReport]]:
    """Give a copy of the journal in *directory* with what was found in it; ends when there is none. Raises OSError."""
    from agent.cli_cold import copied
    from agent.runtime.journal_file import DATABASE, HEAD
    from agent.runtime.journal_verify import verify

    if not any((directory / name).exists() for name in (DATABASE, HEAD)):
        end(f"there is no journal in {directory}", FAILED)
    with ExitStack() as stack:
        for _ in range(COPIES_MAX):
            stack.close()
            copy = stack.enter_context(copied(directory))
            report = verify(copy)
            if report.is_sound:
                break
        yield copy, report


def write_out(copy: Path, span: Span, output: Path | None) -> int:
    """Write the records of *span*, as far as the chain can be followed; return how many. Raises OSError."""
    from agent.errors import JournalBroken
    from agent.runtime.journal_export import exported

    count = 0
    with ExitStack() as stack:
        file: IO[str] = sys.stdout if output is None else stack.enter_context(output.open("x", encoding="utf-8"))
        try:
            for _, line in exported(copy, span):
                file.write(line + "\n")
                count += 1
        except JournalBroken as broken:
            click.echo(f"ends before record {broken.seq}", err=True)
        file.flush()
    return count


def span_of(first: tuple[str, float] | None, last: tuple[str, float] | None) -> Span:
    """Return what two bounds mean together."""
    from agent.runtime.journal_export import Span

    bounds: dict[str, Any] = {
        f"{side}_{kind}": value for side, bound in (("from", first), ("to", last)) if bound for kind, value in (bound,)
    }
    return Span(**bounds)
