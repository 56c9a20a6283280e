"""Another site file under a running agent: the real agent on the simulated branch, its site file edited beneath it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

from agent.app import Agent, running
from agent.clock import SystemClock, boot_s
from agent.config import load
from agent.control_client import request
from agent.core.records import AlarmMoved, ConfigRefused, Record, SiteReloaded
from agent.core.state import Durable
from agent.passwords import line
from agent.runtime.codec import from_plain
from agent.runtime.journal_open import open_journal
from agent.runtime.recall import recall
from agent.views import status
from drills.simsite.branch import SimBranch
from probes import PROBES
from runbooks import ACTIONS

PATIENCE_S = 15.0
LOOK_S = 0.02


@dataclass
class Lab:
    """A running agent, the branch that it watches, and the site file beneath it."""

    agent: Agent
    branch: SimBranch
    file: Path
    records: list[Any]

    def edit(self, old: str, new: str) -> None:
        text = self.file.read_text(encoding="utf-8")
        assert old in text
        self.file.write_text(text.replace(old, new), encoding="utf-8")

    async def reload(self) -> dict[str, Any]:
        found: dict[str, Any] = await self.agent.loop.reread("li")
        return found

    def status(self) -> dict[str, Any]:
        loop = self.agent.loop
        found: dict[str, Any] = status(loop.site, loop.state, loop.clock.now(), loop.journal_view)
        return found

    def bodies(self, kind: type[Any]) -> list[Any]:
        return [body for body in self.records if isinstance(body, kind)]

    def value(self, equipment: str, point: str) -> Any:
        return self.status()["equipment"][equipment]["points"][point]["value"]

    def polls(self, equipment: str) -> int:
        return self.agent.poller.stats().polls[equipment]

    async def until(self, is_it: Callable[[], Any]) -> None:
        async with asyncio.timeout(PATIENCE_S):
            while True:
                if is_it():
                    return
                await asyncio.sleep(LOOK_S)

    async def all_seen(self) -> None:
        """Wait until every line and the UPS are seen good."""
        await self.until(lambda: self.value("ups-a", "battery_charge_ratio") is not None)
        await self.until(lambda: self.value("wan1", "hq.lost_in_row") == 0 and self.value("path", "line") == "wan1")
        await self.until(lambda: self.status()["readiness"]["wan2"]["state"] == "ready")


@asynccontextmanager
async def lab(folder: Path, change: Callable[[str], str] = lambda text: text) -> AsyncIterator[Lab]:
    """Run an agent on the simulated branch until every point of it is seen; *change* the site file before."""
    async with SimBranch() as branch:
        file = branch.site_file(folder)
        file.write_text(change(file.read_text(encoding="utf-8")), encoding="utf-8")
        config = load(file, PROBES, ACTIONS)
        async with running(config, config.state_dir, branch.surroundings(SystemClock())) as agent:
            records: list[Any] = []
            agent.loop.on_record(lambda record: records.append(record.body))
            here = Lab(agent, branch, file, records)
            await here.all_seen()
            yield here


UPS_B = """
  ups-b:
    kind: ups
    fed_by: mains
    ups: ups-a
    host: 127.0.0.1
    port: {port}
    status_period: 500ms

  # Two lines"""


async def test_new_equipment_is_watched_and_what_did_not_change_is_not_disturbed(tmp_path):
    async with lab(tmp_path) as here:
        probes = dict(here.agent.reloader._probes)
        before = here.polls("ups-a")
        here.edit("\n  # Two lines", UPS_B.format(port=here.branch.ups.address[1]))

        answer = await here.reload()
        await here.until(lambda: here.value("ups-b", "mains_present") is True)

        assert answer["ok"], answer
        assert any(line.startswith("ups-b (ups): ") for line in answer["newly_covered"])
        assert answer["no_longer_covered"] == answer["needs_restart"] == []
        assert here.value("wan1", "hq.lost_in_row") == 0
        after = here.agent.reloader._probes
        assert all(after[name] is probe for name, probe in probes.items())
        assert here.polls("ups-a") >= before
        assert "ups-b.mains_absent" in here.agent.loop.site.alarms
        (told,) = here.bodies(SiteReloaded)
        assert (told.owner, told.digest) == ("li", here.agent.config.digest)


async def test_removed_equipment_leaves_and_its_alarm_ends_by_a_record(tmp_path):
    async with lab(tmp_path) as here:
        here.branch.cut_mains()
        await here.until(lambda: any(a["key"] == "ups-a.mains_absent" and a["id"] for a in here.status()["alarms"]))
        text = here.file.read_text(encoding="utf-8")
        ups = text[text.index("  ups-a:\n") : text.index("  # Two lines")]
        overrides = text[text.index("alarms:\n") : text.index("runbooks:\n")]
        cut = text.replace(ups, "").replace(overrides, "").replace("fed_by: ups-a", "fed_by: mains")
        here.file.write_text(cut, encoding="utf-8")

        answer = await here.reload()

        assert answer["ok"], answer
        assert any(line.startswith("ups-a (ups): ") for line in answer["no_longer_covered"])
        moved = [body for body in here.bodies(AlarmMoved) if body.key == "ups-a.mains_absent"]
        assert (str(moved[-1].tier), dict(moved[-1].rungs)) == ("ok", {})
        found = here.status()
        assert "ups-a" not in found["equipment"]
        assert found["alarms"] == []
        assert found["incidents"] == []
        assert not any(point.startswith("ups-a.") for point in here.agent.loop.state.volatile.seen)
        assert "ups-a" not in here.agent.poller.stats().polls
        await here.until(lambda: not here.branch.ups._connections)


async def test_wrong_file_is_refused_with_every_problem_and_the_one_before_stays(tmp_path, caplog):
    async with lab(tmp_path) as here:
        site = here.agent.loop.site
        here.edit("kind: host", "kind: hots")
        here.edit("mode: auto", "mode: autom")

        answer = await here.reload()

        assert (answer["ok"], answer["code"], len(answer["problems"])) == (False, "wrong_file", 3)
        assert f"{here.file}:" in answer["problems"][0]
        assert here.agent.loop.site is site
        (told,) = here.bodies(ConfigRefused)
        assert told.problems == tuple(answer["problems"])
        for problem in answer["problems"]:
            assert problem in caplog.text
        shown = here.status()["reload"]
        assert (shown["ok"], shown["problems"], shown["owner"]) == (False, answer["problems"], "li")
        assert shown["at"]

        here.edit("kind: hots", "kind: host")
        here.edit("mode: autom", "mode: auto")
        assert (await here.reload())["ok"]
        assert here.status()["reload"]["ok"] is True


async def test_file_that_is_gone_is_refused(tmp_path):
    async with lab(tmp_path) as here:
        here.file.unlink()

        answer = await here.reload()

        assert (answer["ok"], answer["code"]) == (False, "wrong_file")
        assert here.value("wan1", "hq.lost_in_row") == 0


def asks_first(text: str) -> str:
    return text.replace("mode: auto", "mode: ask")


async def wait_for_run(here: Lab) -> None:
    here.branch.begin("wan1_dead")
    await here.until(lambda: any(run["state"] == "waiting" for run in here.status()["runs"]))


@pytest.mark.parametrize(
    ("old", "new", "why"),
    [
        ("runbooks:\n  standby:", "runbooks:\n  other:", "the new site file no longer has that runbook"),
        ("gateway: 127.0.12.1", "gateway: 127.0.12.9", "the new site file has other keys for wan2"),
    ],
)
async def test_open_run_forbids_a_file_that_takes_its_ground_away(tmp_path, old, new, why):
    async with lab(tmp_path, asks_first) as here:
        await wait_for_run(here)
        digest = here.agent.config.digest
        here.edit(old, new)

        answer = await here.reload()

        assert (answer["ok"], answer["code"]) == (False, "not_now")
        (problem,) = answer["problems"]
        assert problem.startswith(f"run R1 of runbook standby is waiting, and {why}; ")
        assert "then reload again" in problem
        assert here.agent.config.digest == here.agent.loop.site.digest == digest
        await here.until(lambda: here.status()["runs"][0]["state"] == "waiting")


async def test_open_run_goes_on_under_a_file_that_does_not_concern_it(tmp_path):
    async with lab(tmp_path, asks_first) as here:
        await wait_for_run(here)
        here.edit("disks: [/]", "disks: [/tmp]")

        assert (await here.reload())["ok"]

        (run,) = here.status()["runs"]
        assert (run["id"], run["state"]) == ("R1", "waiting")
        assert {i["id"] for i in here.status()["incidents"]} == {"I1"}
        await asyncio.to_thread(request, here.agent.config.server.socket, "approve", run="R1")
        await here.until(lambda: here.status()["runs"][0]["state"] == "done")


async def test_swap_after_a_reload_goes_by_the_new_keys(tmp_path):
    """Actions are bound to the lines of the new file, and new line probes take part in bursts."""
    async with lab(tmp_path) as here:
        assert len(here.agent.loop.site.alarms["wan1.hq_dead"].rungs) > 0
        here.edit("provider: unicom", "provider: mobile")

        assert (await here.reload())["ok"]
        await here.all_seen()
        began = boot_s()
        here.branch.begin("wan1_dead")
        await here.until(lambda: any(a["line"] == "wan2" for a in here.status()["arrangements"]))

        assert boot_s() - began < 5.0
        assert here.branch.line_in_use() == "wan2"


async def test_points_of_changed_equipment_are_unknown_until_they_are_seen_anew(tmp_path):
    async with lab(tmp_path) as here:
        here.edit("period: 2s", "period: 3s")
        loop = here.agent.loop
        known: list[set[str]] = []
        loop.on_record(lambda record: known.append({point.partition(".")[0] for point in loop.state.volatile.seen}))

        answer = await here.reload()
        await here.until(lambda: here.value("ups-a", "mains_present") is True)

        assert answer["ok"]
        assert "ups-a" not in known[0]
        assert {"wan1", "wan2", "path", "this-host"} <= known[0]
        since_s = loop.state.durable.reload.at.boot_s
        asked_s = [seen.asked_at for point, seen in loop.state.volatile.seen.items() if point.startswith("ups-a.")]
        assert all(at >= since_s for at in asked_s)


async def test_changed_server_keys_wait_for_the_next_start_and_it_is_said(tmp_path):
    async with lab(tmp_path) as here:
        here.edit("server:\n", "server:\n  metrics_password_file: /etc/changeover/metrics.passwords\n")
        before = here.agent.config.server

        answer = await here.reload()

        assert answer["ok"]
        assert answer["needs_restart"] == [
            "server.metrics_password_file has changed: that takes effect when the agent starts anew"
        ]
        assert here.agent.config.server == before
        assert (await here.reload())["needs_restart"] == answer["needs_restart"]


async def test_passwords_are_read_anew_and_a_wrong_file_of_them_refuses_the_whole(tmp_path):
    file = tmp_path / "passwords"
    file.write_text(line("li", "long enough for li") + "\n", encoding="utf-8")
    file.chmod(0o600)

    def guarded(text: str) -> str:
        return text.replace("server:\n", f"server:\n  metrics_password_file: {file}\n")

    async def code(here: Lab, password: str) -> int:
        web = here.agent.web
        async with httpx.AsyncClient(trust_env=False) as client:
            answer = await client.get(f"http://{web.host}:{web.port}/healthz", auth=("li", password))
        return answer.status_code

    async with lab(tmp_path, guarded) as here:
        assert await code(here, "long enough for li") == 200
        file.write_text(line("li", "another one for li") + "\n", encoding="utf-8")
        assert (await here.reload())["ok"]
        assert [await code(here, word) for word in ("another one for li", "long enough for li")] == [200, 401]

        file.chmod(0o644)
        here.edit("mode: auto", "mode: watch")
        answer = await here.reload()

        assert (answer["code"], len(answer["problems"])) == ("wrong_file", 1)
        assert "chmod 0600" in answer["problems"][0]
        assert str(here.agent.loop.site.runbooks["standby"].mode) == "auto"
        assert await code(here, "another one for li") == 200


async def test_runbook_that_does_less_is_no_longer_covered(tmp_path):
    async with lab(tmp_path) as here:
        here.edit("mode: auto", "mode: watch")

        answer = await here.reload()

        assert answer["newly_covered"] == []
        assert (
            "the access line of wan1: runbook standby acts by itself (else: runbook standby says what it would do)"
        ) in answer["no_longer_covered"]


async def test_alarm_that_is_switched_off_is_told(tmp_path):
    async with lab(tmp_path) as here:
        here.edit("alarms:\n", "alarms:\n  ups-a.load_high: off\n")

        answer = await here.reload()
        back = here.file.read_text(encoding="utf-8").replace("  ups-a.load_high: off\n", "")
        here.file.write_text(back, encoding="utf-8")

        assert answer["no_longer_covered"] == ["alarm ups-a.load_high"]
        assert (await here.reload())["newly_covered"] == ["alarm ups-a.load_high"]


async def test_way_home_that_is_lost_while_it_is_needed_is_told(tmp_path):
    async with lab(tmp_path, lambda text: text.replace("good_for: 10s", "good_for: 1h")) as here:
        here.branch.begin("wan1_dead")
        await here.until(lambda: here.status()["arrangements"] and here.status()["runs"][-1]["state"] == "done")
        here.edit("failback: {good_for: 1h, per_day: 1000}", "failback: none")

        answer = await here.reload()

        assert answer["no_longer_covered"] == [
            "the way home from standby, which the site is in: traffic is on wan2 until a person moves it"
        ]
        assert [one["name"] for one in here.status()["arrangements"]] == ["standby"]


async def test_what_became_of_reloads_is_in_the_journal(tmp_path):
    async with lab(tmp_path) as here:
        here.edit("mode: auto", "mode: wach")
        await here.reload()
        here.edit("mode: wach", "mode: watch")
        await here.reload()
        state_dir = here.agent.config.state_dir

    opened = open_journal(state_dir)
    opened.store.close()
    durable = recall(opened.checkpoint, opened.bodies)
    bodies = [from_plain(Record, json.loads(body)).body for body in opened.bodies]
    assert isinstance(durable, Durable)
    assert durable.reload is not None
    assert durable.reload.code == ""
    assert durable.reload.no_longer_covered
    assert [type(body) for body in bodies if isinstance(body, ConfigRefused | SiteReloaded)] == [
        ConfigRefused, SiteReloaded
    ]  # fmt: skip


async def test_reload_comes_over_the_control_socket(tmp_path):
    async with lab(tmp_path) as here:
        here.edit("mode: auto", "mode: watch")

        answer = await asyncio.to_thread(request, here.agent.config.server.socket, "reload")

        assert answer["ok"]
        assert here.bodies(SiteReloaded)[0].no_longer_covered == tuple(answer["no_longer_covered"])


async def test_reloads_that_come_together_are_done_one_after_the_other(tmp_path):
    async with lab(tmp_path) as here:
        waiting: list[Awaitable[dict[str, Any]]] = [here.reload() for _ in range(3)]

        assert all(answer["ok"] for answer in await asyncio.gather(*waiting))
        assert len(here.bodies(SiteReloaded)) == 3
