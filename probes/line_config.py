"""The site file's keys for a line."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Literal

from agent.core.model import PointSpec
from agent.core.profiles import PROFILES
from probes.line_rungs import rung_specs
from probes.line_service import SERVICE, service_specs
from probes.wire.echo import INTERFACE_BYTES, Target, parse_address, parse_target

RUNGS: Final = ("cpe", "edge", "hq", "second_site")  # nearest first
TEST_S: Final = 3600.0


@dataclass(frozen=True, slots=True)
class LineConfig:
    """
    The site file's keys for a line. A target is an IPv4 address (ICMP), "address:port" (TCP), or "address:port/source"
    (TCP, the far end tells the source it saw; only where no address translation lies between).

    Raises:
        ValueError: the message begins with the name of the key.
    """

    role: Literal["primary", "standby"]
    targets: Mapping[str, str]
    profile: Literal["fast", "default", "calm"] = "default"
    interface: str | None = None
    gateway: str | None = None
    source: str | None = None
    provider: str | None = None

    def __post_init__(self) -> None:
        if self.role not in ("primary", "standby"):
            raise ValueError(f"role: must be primary or standby, got {self.role!r}")
        if self.profile not in PROFILES:
            raise ValueError(f"profile: must be one of {', '.join(PROFILES)}, got {self.profile!r}")
        if self.interface is None and self.source is None:
            raise ValueError("interface: without interface or source the probes would leave the way the host routes")
        if self.interface is not None:
            check_interface(self.interface)
        for key, address in (("gateway", self.gateway), ("source", self.source)):
            if address is not None:
                try:
                    parse_address(address)
                except ValueError as error:
                    raise ValueError(f"{key}: {error}") from error
        self.parsed()

    def parsed(self) -> dict[str, Target]:
        """Return the targets by the name of their rung, nearest first. Raises ValueError."""
        known = (*RUNGS, SERVICE)
        if not self.targets:
            raise ValueError(f"targets: name at least one of {', '.join(known)}")
        found = {}
        for rung, text in self.targets.items():
            if rung not in known:
                raise ValueError(f"targets: unknown rung {rung!r}; known here: {', '.join(known)}")
            try:
                found[rung] = parse_target(text)
            except ValueError as error:
                raise ValueError(f"targets: {rung}: {error}") from error
        if SERVICE in found and found[SERVICE].port is None:
            raise ValueError(f"targets: {SERVICE}: needs a port, as in {found[SERVICE]}:443")
        return {rung: found[rung] for rung in known if rung in found}


def check_interface(name: str) -> None:
    """Raise ValueError when *name* cannot be the name of an interface."""
    if not 0 < len(name.encode()) < INTERFACE_BYTES or not name.isprintable() or set(name) & set("/: "):
        raise ValueError(f"interface: {name!r} cannot be the name of an interface")


def specs(config: LineConfig) -> dict[str, PointSpec]:
    """Return what each point of the line is, by its name."""
    profile = PROFILES[config.profile]
    found = {"binding_ok": PointSpec("bool", TEST_S, "the probes leave by this line, as the last self-test found")}
    if config.interface is not None:
        found["carrier"] = PointSpec("bool", 1.0, f"{config.interface} is up and its other end is there")
    for rung in RUNGS:
        if rung in config.targets:
            found |= rung_specs(rung, profile)
    return found | (service_specs() if SERVICE in config.targets else {})
