"""Status and explanations as plain text for people, made of the plain data of `agent.views`."""

from __future__ import annotations

from agent.render.lists import incidents_text, lasting, plan_text, runbooks_text, watch_text
from agent.render.now import status_text
from agent.render.why import explain_text

__all__ = ["explain_text", "incidents_text", "lasting", "plan_text", "runbooks_text", "status_text", "watch_text"]
