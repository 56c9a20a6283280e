"""What the pages are guarded by, made of the files that the site file names: TLS, passwords, both or none."""

from __future__ import annotations

import ssl
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from agent.credentials import CredentialError, Secret, private_file, private_text
from agent.passwords import Hash, PasswordFileError, parsed


class TlsFiles(Protocol):
    """The files of TLS. With `client_ca` a client must show a certificate that it has signed."""

    @property
    def certificate(self) -> Path: ...
    @property
    def key(self) -> Path | Secret: ...
    @property
    def client_ca(self) -> Path | None: ...


@dataclass(frozen=True, slots=True)
class Access:
    """`context` None: no TLS. `users` None: no password is asked for."""

    context: ssl.SSLContext | None = None
    users: Mapping[str, Hash] | None = None

    def is_fit_for_the_network(self) -> bool:
        """Tell whether pages may leave this machine: by TLS, and to those alone who show that they may have them."""
        knows_clients = self.context is not None and self.context.verify_mode is ssl.CERT_REQUIRED
        return self.context is not None and (knows_clients or self.users is not None)


def read_access(tls: TlsFiles | None, password_file: Path | Secret | None, credentials: Path | None) -> Access:
    """Read the files. Raises CredentialError."""
    return Access(
        tls_context(tls, credentials) if tls is not None else None,
        users_in(password_file, credentials) if password_file is not None else None,
    )


def tls_context(files: TlsFiles, credentials: Path | None) -> ssl.SSLContext:
    """Return the server's side of TLS 1.2 or newer. Raises CredentialError."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.options |= ssl.OP_NO_COMPRESSION | ssl.OP_NO_RENEGOTIATION
    key = private_file(files.key, credentials)
    if not files.certificate.is_file():
        raise CredentialError(f"server.metrics_tls.certificate: {files.certificate} is not there, or may not be read")
    try:
        context.load_cert_chain(files.certificate, key, password=no_password)
    except (OSError, ValueError) as error:
        reason = getattr(error, "reason", None) or getattr(error, "strerror", None) or str(error)
        raise CredentialError(
            f"server.metrics_tls: {files.certificate} and {key} are no certificate with its key in PEM: {reason}"
        ) from error
    if files.client_ca is not None:
        context.verify_mode = ssl.CERT_REQUIRED
        try:
            context.load_verify_locations(cafile=files.client_ca)
        except OSError as error:
            reason = getattr(error, "reason", None) or error.strerror or str(error)
            raise CredentialError(
                f"server.metrics_tls.client_ca: {files.client_ca} is no certificate in PEM: {reason}"
            ) from error
    return context


def no_password() -> str:
    """Refuse a key that is locked: nobody is there to be asked."""
    raise ValueError("the key is locked by a password; give it without one, in a file that only the agent can read")


def users_in(where: Path | Secret, credentials: Path | None) -> Mapping[str, Hash]:
    """Return the users in the password file. Raises CredentialError."""
    path, text = private_text(where, credentials)
    try:
        return parsed(text)
    except PasswordFileError as error:
        raise CredentialError(f"server.metrics_password_file: {path}: {error}") from error
