"""Reads the section `server`: how the agent is spoken to, what guards its pages, and where it keeps what it remembers."""

from __future__ import annotations

import ipaddress
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from agent.credentials import Secret
from agent.fields import Node, host_port, mapping, name, optional, text
from agent.scripts import require

SERVER_KEYS: Final = ("socket", "metrics", "metrics_tls", "metrics_password_file", "state_dir")
SERVER_LATER: Final = ("web",)
TLS_KEYS: Final = ("certificate", "key", "client_ca")
STATE_DIR: Final = Path("/var/lib/changeover")
ABSOLUTE_CURE: Final = "write the whole path, beginning with /"

Refuse = Callable[[Node, tuple[str, ...]], None]


@dataclass(frozen=True, slots=True)
class TlsConfig:
    """The files of TLS. With `client_ca`, clients must show a certificate that it has signed."""

    certificate: Path
    key: Path | Secret
    client_ca: Path | None = None


@dataclass(frozen=True, slots=True)
class ServerConfig:
    """How the agent is spoken to. Port 0 is any free one."""

    socket: Path = Path("/run/changeover/control.sock")
    metrics_host: str = "127.0.0.1"
    metrics_port: int = 9478
    tls: TlsConfig | None = None
    password_file: Path | Secret | None = None


def read_server(node: Node | None, refuse_later: Refuse) -> tuple[ServerConfig, Path]:
    """Return what the section says, and the state directory. *refuse_later* notes keys of a later version."""
    usual = ServerConfig()
    if node is None or node.value is None or not mapping(node, (*SERVER_KEYS, *SERVER_LATER)):
        return usual, STATE_DIR
    refuse_later(node, SERVER_LATER)
    host, port = optional(node.get("metrics"), host_port, (usual.metrics_host, usual.metrics_port))
    check_guarded(node, host, port)
    tls, passwords = node.get("metrics_tls"), node.get("metrics_password_file")
    server = ServerConfig(
        socket=optional(node.get("socket"), absolute, usual.socket),
        metrics_host=host,
        metrics_port=port,
        tls=read_tls(tls) if tls is not None else None,
        password_file=path_or_secret(passwords) if passwords is not None else None,
    )
    return server, optional(node.get("state_dir"), absolute, STATE_DIR)


def check_guarded(node: Node, host: str, port: int) -> None:
    """
    Note metrics that would leave this machine in the open, or be given to whoever asks. What stands in the file, right or
    wrong, counts as given: its own mistakes are told at their own place.
    """
    if ipaddress.ip_address(host).is_loopback:
        return
    tls = node.get("metrics_tls")
    has_clients = node.has("metrics_password_file") or (tls is not None and tls.has("client_ca"))
    at = node.get("metrics") or node
    here = f'or use "127.0.0.1:{port}"'
    who = "metrics_password_file: PATH (changeover password USER makes its lines) or metrics_tls.client_ca: PATH"
    if not node.has("metrics_tls"):
        also = "" if has_clients else f", and {who}"
        at.wrong(
            f"metrics on {host} leave this machine, and need TLS",
            f"add metrics_tls: {{certificate: PATH, key: PATH}}{also}; {here}",
        )
    elif not has_clients:
        at.wrong(f"metrics on {host} would be given to whoever asks", f"add {who}; {here}")


def read_tls(node: Node) -> TlsConfig | None:
    """Return the files of TLS, None after a mistake."""
    if not mapping(node, TLS_KEYS, what="a mapping such as {certificate: PATH, key: PATH}"):
        return None
    require(node, "certificate", "key")
    certificate, key, client_ca = (node.get(word) for word in TLS_KEYS)
    found = absolute(certificate) if certificate is not None else None
    private = path_or_secret(key) if key is not None else None
    ca = absolute(client_ca) if client_ca is not None else None
    return TlsConfig(found, private, ca) if found is not None and private is not None else None


def path_or_secret(node: Node) -> Path | Secret | None:
    """Return a private file: a whole path, or `{secret: NAME}`."""
    if not isinstance(node.value, dict):
        return absolute(node)
    if not mapping(node, ("secret",)):
        return None
    require(node, "secret")
    child = node.get("secret")
    word = name(child) if child is not None else None
    return Secret(word) if word is not None else None


def absolute(node: Node) -> Path | None:
    """Return a path that begins at the root."""
    word = text(node)
    if word is not None and not word.startswith("/"):
        node.wrong(f"must be a whole path, got {word}", ABSOLUTE_CURE)
        return None
    return Path(word) if word is not None else None
