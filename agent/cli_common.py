"""What the commands share: options, the site file, the socket, and how they end."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NoReturn, TypeVar

import click

from agent.errors import ConfigError

if TYPE_CHECKING:  # heavy; a command imports it when it is run
    from agent.config import Config

DONE: Final = 0
FAILED: Final = 1  # or found wanting
WRONG: Final = 2  # usage or site file
SITE_FILE: Final = Path("/etc/changeover/site.yaml")
SOCKET: Final = Path("/run/changeover/control.sock")

F = TypeVar("F", bound=Callable[..., Any])


def site_file_option(command: F) -> F:
    """Add `-c`, the site file."""
    return click.option(
        "-c",
        "--config",
        "config_path",
        type=click.Path(path_type=Path, dir_okay=False),
        default=SITE_FILE,
        show_default=True,
        help="The site file.",
    )(command)


def socket_option(command: F) -> F:
    """Add `--socket`, where the agent is spoken to."""
    return click.option(
        "--socket",
        "socket_path",
        type=click.Path(path_type=Path),
        default=None,
        help="The agent's control socket; as the site file says unless given.",
    )(command)


def json_option(command: F) -> F:
    """Add `--json`."""
    return click.option("--json", "as_json", is_flag=True, help="Print JSON.")(command)


def end(text: str, code: int) -> NoReturn:
    """Print *text* to standard error and end with *code*."""
    click.echo(text, err=True)
    sys.exit(code)


def print_json(data: Any) -> None:
    """Print *data* as JSON."""
    click.echo(json.dumps(data, indent=2, ensure_ascii=False, allow_nan=False))


def read_config(path: Path) -> Config:
    """Return what the site file at *path* says. Raises ConfigError."""
    from agent.config import load
    from probes import PROBES
    from runbooks import ACTIONS

    return load(path, PROBES, ACTIONS)


def load_config(path: Path) -> Config:
    """Return what the site file at *path* says; print every mistake in it and end otherwise."""
    try:
        return read_config(path)
    except ConfigError as error:
        end(str(error), WRONG)


def find_socket(config_path: Path, socket_path: Path | None) -> Path:
    """
    Return the socket to speak to. A site file that is broken, or missing at its usual place, must not keep a person from
    a hold: the usual socket is taken then, and told.
    """
    if socket_path is not None:
        return socket_path
    if config_path == SITE_FILE and not config_path.exists():
        return SOCKET
    try:
        return read_config(config_path).server.socket
    except ConfigError:
        click.echo(f"{config_path} is wrong (see: changeover check); speaking to {SOCKET}", err=True)
        return SOCKET
