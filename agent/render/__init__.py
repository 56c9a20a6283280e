"""Status and explanations as plain text for people, made of the plain data of `agent.views`."""

from __future__ import annotations

from agent.render.now import status_text
from agent.render.why import explain_text

__all__ = ["explain_text", "status_text"]
