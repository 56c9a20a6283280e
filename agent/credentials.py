"""
Finds what must stay private, and refuses it when others may read it.

`{secret: NAME}` in the site file is a file of that name in a directory of credentials; a whole path is that file. Loading
the site file reads none of them: that needs the agent's own rights.
"""

from __future__ import annotations

import os
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from agent.errors import ChangeoverError

DIRECTORY: Final = "CREDENTIALS_DIRECTORY"  # set by systemd for the unit's own processes, see systemd.exec(5)
PREFIX: Final = "secret_"  # `LoadCredential=secret:DIR` puts it before the name of each file of DIR
OTHERS: Final = stat.S_IRWXG | stat.S_IRWXO
BYTES_MAX: Final = 64 * 1024


class CredentialError(ChangeoverError):
    """A certificate, key or password file cannot be used; the text has file, reason and cure."""


@dataclass(frozen=True, slots=True)
class Secret:
    """A private file by its name in the directory of credentials."""

    name: str


def private_file(where: Path | Secret, credentials: Path | None = None) -> Path:
    """
    Return the file, when it is there and nobody but its owner may read it. *credentials* is a directory given by hand;
    without it systemd's is taken.

    Raises CredentialError.
    """
    if isinstance(where, Path):
        return checked(where, OTHERS)
    if credentials is not None:
        return checked(credentials / where.name, OTHERS)
    directory = os.environ.get(DIRECTORY)
    if directory is None:
        raise CredentialError(
            f"secret {where.name}: there is no directory of credentials; run the agent by systemd with LoadCredential=, "
            "or give --credentials DIR"
        )
    # systemd guards the directory itself. It may give our user access by an access list, whose mask shows as group bits.
    allowed = Path(directory, PREFIX + where.name)
    return checked(allowed if allowed.exists() else Path(directory, where.name), stat.S_IRWXO)


def checked(path: Path, forbidden: int) -> Path:
    """Return *path* when it is a plain file without any of the *forbidden* rights. Raises CredentialError."""
    try:
        found = path.stat()
    except OSError as error:
        raise CredentialError(f"{path} cannot be read: {error.strerror}") from error
    if not stat.S_ISREG(found.st_mode):
        raise CredentialError(f"{path} is not a file")
    mode = stat.S_IMODE(found.st_mode)
    if mode & forbidden:
        raise CredentialError(f"{path} has mode {mode:04o}: others may read it; chmod 0600 {path}")
    return path


def private_text(where: Path | Secret, credentials: Path | None = None) -> tuple[Path, str]:
    """Return the file and what it says. Raises CredentialError."""
    path = private_file(where, credentials)
    try:
        with path.open("rb") as file:
            data = file.read(BYTES_MAX + 1)
        if len(data) > BYTES_MAX:
            raise CredentialError(f"{path} has more than {BYTES_MAX // 1024} KiB")
        return path, data.decode()
    except UnicodeDecodeError as error:
        raise CredentialError(f"{path} is not UTF-8") from error
    except OSError as error:
        raise CredentialError(f"{path} cannot be read: {error.strerror}") from error
