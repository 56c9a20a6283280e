"""What the state looks like from outside, as plain data: what stands now (`status`) and why (`explain`)."""

from __future__ import annotations

from agent.views.now import status
from agent.views.parts import JournalView
from agent.views.plan import plan
from agent.views.ready import readiness
from agent.views.why import UnknownName, explain

__all__ = ["JournalView", "UnknownName", "explain", "plan", "readiness", "status"]
