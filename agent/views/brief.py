"""What stands now in one line, for `systemctl status`."""

from __future__ import annotations

from agent.core.model import At
from agent.core.site import Site
from agent.core.state import State
from agent.core.work import Work
from agent.views.now import heaviest, mode
from agent.views.parts import JournalView, site_tier


def in_brief(site: Site, state: State, now: At, journal: JournalView) -> str:
    """Return site, tier, cause, abnormal arrangements and mode; what is as usual is left out."""
    work = Work(site, state, now)
    still_open = work.durable.open_incidents()
    words = [f"{site.id} {site_tier(work)}"]
    if still_open:
        words.append(heaviest(list(still_open)).cause.text)
    words += sorted(work.durable.arrangements)
    if (how := mode(work, journal)) != "normal":
        words.append(how)
    return "; ".join(words)
