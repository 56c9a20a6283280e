"""The verbs that runbooks use, as one table; the scripts themselves stand in `library/`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from agent.ports import ActionKind
from runbooks.actions import route, wait_until

ACTIONS: Final[Mapping[str, ActionKind]] = {kind.name: kind for kind in (route.KIND, wait_until.KIND)}
