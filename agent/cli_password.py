"""The command that makes a line of a password file."""

from __future__ import annotations

import sys

import click

from agent.cli_common import FAILED, WRONG, end


@click.command()
@click.argument("user")
def password(user: str) -> None:
    """
    Print the line of USER for a password file (server.metrics_password_file). The password is asked for; without a
    terminal it is the first line of the standard input.
    """
    from agent.passwords import USER, line, why_not_password

    if USER.fullmatch(user) is None:
        end("USER has letters, digits and . _ @ -, at most 40, and begins with a letter or digit", WRONG)
    if sys.stdin.isatty():
        word = click.prompt("Password", hide_input=True, confirmation_prompt=True, err=True)
    else:
        word = sys.stdin.readline().rstrip("\r\n")
    reason = why_not_password(word)
    if reason is not None:
        end(reason, FAILED)
    click.echo(line(user, word))
