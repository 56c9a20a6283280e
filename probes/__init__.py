"""The kinds of probe, as one table. One kind is one file here; protocol clients stand in `wire/`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from agent.ports import ProbeKind
from probes import line, local, nut, path

PROBES: Final[Mapping[str, ProbeKind]] = {kind.name: kind for kind in (nut.KIND, line.KIND, path.KIND, local.KIND)}
