"""The commands about alarms, runbooks, watching and the journal's export: what they ask, print, and end with."""

from __future__ import annotations

import hashlib
import json
import signal
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from agent.core.model import (
    AbortAsked,
    AckAsked,
    CommandEnded,
    LiftAsked,
    Mode,
    Outcome,
    RunAsked,
    ShelveAsked,
    UnshelveAsked,
)
from agent.core.run import RunState
from agent.render import lasting
from agent.views import plan, status
from tests.fakes.command_line import command, running, site_file, write_journal
from tests.fakes.desk import SOUND, Desk
from tests.fakes.sites import Driver, swap
from tests.fakes.swaps import FAR, kill_primary, run_state, started, swapped


@pytest.fixture
def site(tmp_path: Path) -> Path:
    return site_file(tmp_path)


@pytest.fixture
def socket(tmp_path: Path) -> Path:
    return tmp_path / "control.sock"


def data(result: Any) -> Any:
    assert result.exit_code == 0, result.stderr
    return json.loads(result.stdout)


# ---------------------------------------------------------------- alarms


def test_alarm_is_acknowledged_by_id_by_key_and_with_its_incident(site, socket):
    desk = Desk(swapped(started()))
    with running(socket, desk):
        one = data(command("ack", "wan1.hq_dead", "-c", site, "--json"))
        rest = command("ack", "I1", "-c", site)
        again = command("ack", "I1", "-c", site)
        unknown = command("ack", "A99", "-c", site)
        shown = data(command("incidents", "-c", site, "--json"))
        why = command("explain", "wan1.hq_dead", "-c", site)

    assert isinstance(desk.asked[0], AckAsked)
    assert desk.asked[0].id.startswith("A")
    assert [alarm["key"] for alarm in one["alarms"]] == ["wan1.hq_dead"]
    owner = one["alarms"][0]["acknowledged_by"]
    assert owner
    assert rest.stdout.count(f"acknowledged by {owner}") == len(shown["incidents"][0]["alarms"])
    assert (again.exit_code, unknown.exit_code) == (1, 1)
    assert f"I1 has been acknowledged by {owner}" in again.stderr
    assert "there is no alarm A99" in unknown.stderr
    assert shown["incidents"][0]["acknowledged_by"] == owner
    assert f"It has been acknowledged by {owner}." in why.stdout


def test_shelved_alarm_is_out_of_the_tiers_and_comes_back_when_unshelved(site, socket):
    desk = Desk(swapped(started()))
    with running(socket, desk):
        before = data(command("status", "-c", site, "--json"))
        for key in ("wan1.edge_dead", "wan1.hq_dead", "wan1.second_site_dead"):
            shelved = command("shelve", key, "--for", "2h", "--reason", "line work", "-c", site)
            assert shelved.exit_code == 0
        during = data(command("status", "-c", site, "--json"))
        back = data(command("unshelve", "wan1.hq_dead", "-c", site, "--json"))
        after = data(command("status", "-c", site, "--json"))

    asked = desk.asked[0]
    assert isinstance(asked, ShelveAsked)
    assert (asked.for_s, asked.reason) == (7200.0, "line work")
    assert "line work" in shelved.stdout
    assert [one["site"]["tier"] for one in (before, during, after)] == ["orange", "ok", "orange"]
    assert during["equipment"]["wan1"]["tier"] == "ok"
    (alarm,) = (one for one in during["alarms"] if one["key"] == "wan1.hq_dead")
    assert (alarm["tier"], alarm["shelve_reason"]) == ("orange", "line work")
    assert alarm["shelved_until"] > alarm["since"]
    assert isinstance(desk.asked[-1], UnshelveAsked)
    assert back["alarms"][0]["shelved_until"] is None


@pytest.mark.parametrize(
    ("words", "code", "text"),
    [
        (("shelve", "wan1.hq_dead", "--for", "25h", "--reason", "x"), 1, "up to 86400"),
        (("shelve", "wan2.hq_dead", "--for", "1h", "--reason", "x"), 1, "does not stand"),
        (("shelve", "nothing", "--for", "1h", "--reason", "x"), 1, "there is no alarm nothing"),
        (("shelve", "wan1.hq_dead", "--for", "1h", "--reason", ""), 1, "reason must be a name"),
        (("shelve", "wan1.hq_dead", "--for", "1h"), 2, "--reason"),
        (("shelve", "wan1.hq_dead", "--reason", "x"), 2, "--for"),
        (("unshelve", "wan1.hq_dead"), 1, "is not shelved"),
    ],
)
def test_shelving_that_is_not_possible_says_why(site, socket, words, code, text):
    desk = Desk(swapped(started()))
    with running(socket, desk):
        found = command(*words, "-c", site)

    assert found.exit_code == code
    assert text in found.stderr
    assert desk.asked == []


# ---------------------------------------------------------------- runbooks


def test_runbooks_are_listed_with_mode_budget_and_what_keeps_them_quiet(site, socket):
    driver = started(books=swap(Mode.ASK))
    kill_primary(driver)
    driver.send(AbortAsked("li", "R1"))
    with running(socket, Desk(driver)):
        text, found = command("runbook", "list", "-c", site), data(command("runbook", "list", "-c", site, "--json"))

    book = found["runbooks"]["standby"]
    assert (book["mode"], book["budget"], book["spent"], book["locks"][0]["kind"]) == ("ask", 2, 0, "lockout")
    assert "standby  ask  wan1 -> wan2  0 of 2 runs in 60 min" in text.stdout
    assert "standby is locked until a person resets it: run R1 ended undone: aborted by li" in text.stdout
    assert "standby.return  ask  wan2 -> wan1  no limit of runs" in text.stdout


def test_plan_tells_steps_and_guards_and_does_nothing(site, socket):
    driver = started()
    desk = Desk(driver)
    before = driver.state
    with running(socket, desk):
        text, found = (
            command("runbook", "plan", "standby", "-c", site),
            data(command("runbook", "plan", "standby", "-c", site, "--json")),
        )
        unknown = command("runbook", "plan", "nonsense", "-c", site)

    assert driver.state is before
    assert desk.asked == []
    assert (found["by_itself"]["answer"], found["ordered"]["answer"]) == ("nothing_to_do", "may_act")
    assert [step["now"] for step in found["steps"]] == ["act"]
    guards = {row["guard"]: row for row in found["guards"]}
    assert "no active alarm" in guards["cause_elsewhere"]["against"]
    assert not guards["cause_elsewhere"]["ordered"]
    assert guards["target_not_proven"] == {
        "guard": "target_not_proven", "against": None, "by_itself": True, "ordered": True
    }  # fmt: skip
    assert "On a person's word now: it would act" in text.stdout
    assert "now: would be sent" in text.stdout
    assert unknown.exit_code == 1
    assert "there is no runbook nonsense" in unknown.stderr


def test_plan_of_what_cannot_be_seen_or_stands_already_says_so():
    driver = swapped(started())

    there = plan(driver.site, driver.state, driver.at(), "standby")
    driver.now_s += 60.0
    later = plan(driver.site, driver.state, driver.at(), "standby.return")

    assert [step["now"] for step in there["steps"]] == ["as_wanted"]
    assert there["ordered"]["text"] == "the site is in the arrangement on_standby_line already"
    assert [step["now"] for step in later["steps"]] == ["unseen"]
    assert later["ordered"]["code"] == "target_not_proven"


def test_person_starts_and_aborts_a_run(site, socket):
    driver = started()
    desk = Desk(driver)
    with running(socket, desk):
        ordered = data(command("runbook", "run", "standby", "-c", site, "--json"))
        again = command("runbook", "run", "standby", "-c", site)
        aborted = command("runbook", "abort", "R1", "-c", site)
        why = command("explain", "R1", "-c", site)
        unknown = command("runbook", "abort", "R7", "-c", site)
        nothing = command("runbook", "run", "nonsense", "-c", site)

    assert [type(event) for event in desk.asked] == [RunAsked, AbortAsked]
    (run,) = ordered["runs"]
    assert (run["id"], run["state"], run["incident"]) == ("R1", "acting", None)
    assert run["asked_by"]
    assert again.exit_code == unknown.exit_code == nothing.exit_code == 1
    assert "run R1 of standby is not finished" in again.stderr
    assert aborted.exit_code == 0
    assert "R1  standby  acting" in aborted.stdout
    assert f"{run['asked_by']} ordered it." in why.stdout
    assert f"{run['asked_by']} aborted it." in why.stdout
    driver.answer()
    assert run_state(driver) is RunState.UNDOING


def test_abort_answers_with_the_run_that_it_ended_and_the_lock_that_it_left(site, socket):
    driver = started(books=swap(Mode.ASK))
    kill_primary(driver)
    with running(socket, Desk(driver)):
        found = command("runbook", "abort", "R1", "-c", site)
        late = command("runbook", "abort", "R1", "-c", site)

    assert "R1  standby  undone: aborted by " in found.stdout
    assert "standby is locked until a person resets it" in found.stdout
    assert "R1 is undone: there is nothing to abort" in late.stderr


def test_block_is_lifted_and_a_lockout_is_told_apart(site, socket):
    driver = started()
    driver.send(RunAsked("li", "standby"))
    driver.send(AbortAsked("li", "R1"))
    driver.answer()
    driver.answer()
    driver.now_s += 0.05
    driver.path("wan1")
    desk = Desk(driver)
    with running(socket, desk):
        locked = command("lift", "standby", "-c", site)
        none = command("lift", "standby.return", "-c", site)
        unknown = command("lift", "nonsense", "-c", site)

    assert [one.exit_code for one in (locked, none, unknown)] == [1, 1, 1]
    assert "is locked, not blocked" in locked.stderr
    assert "is locked, not blocked" in none.stderr
    assert "there is no runbook nonsense" in unknown.stderr
    assert desk.asked == []


def test_block_of_a_refused_run_is_lifted(site, socket):
    driver = started()
    kill_primary(driver)
    driver.send(CommandEnded(driver.commands()[-1].key, Outcome.REFUSED, "no"))
    desk = Desk(driver)
    with running(socket, desk):
        before = data(command("status", "-c", site, "--json"))
        found = data(command("lift", "standby", "-c", site, "--json"))

    assert [block["kind"] for block in before["blocks"]] == ["block"]
    assert found["blocks"] == []
    assert isinstance(desk.asked[0], LiftAsked)


# ---------------------------------------------------------------- looking


def test_incidents_are_listed_with_their_alarms_and_the_ended_ones_on_demand(site, socket):
    driver = swapped(started())
    with running(socket, Desk(driver)):
        text = command("incidents", "-c", site)
        driver.keep_good(200, via="wan2")
        quiet = command("incidents", "-c", site)
        ended = data(command("incidents", "--ended", "-c", site, "--json"))

    assert text.stdout.startswith("I1  orange  the access line of wan1")
    assert "wan1.hq_dead" in text.stdout
    assert quiet.stdout == "No incident is open.\n"
    assert ended["incidents"] == []
    assert [one["id"] for one in ended["ended_incidents"]] == ["I1"]


def test_what_is_decided_is_told_of_an_agent_that_is_down_too(site, tmp_path):
    write_journal(tmp_path / "state", swapped(started()))

    incidents = command("incidents", "-c", site)
    books = command("runbook", "list", "-c", site)
    planned = command("runbook", "plan", "standby.return", "-c", site)

    assert [one.exit_code for one in (incidents, books, planned)] == [0, 0, 0]
    assert "I1  orange" in incidents.stdout
    assert "standby.return" in books.stdout
    assert "cannot be seen" in planned.stdout


@pytest.mark.parametrize(
    "words",
    [
        ("ack", "A1"),
        ("shelve", "A1", "--for", "1h", "--reason", "x"),
        ("unshelve", "A1"),
        ("lift", "standby"),
        ("runbook", "run", "standby"),
        ("runbook", "abort", "R1"),
    ],
)
def test_word_to_an_agent_that_is_down_does_nothing(site, words):
    found = command(*words, "-c", site)

    assert found.exit_code == 1
    assert "nothing was done" in found.stderr


def test_passing_time_is_no_change_and_a_run_is():
    driver = started()

    def seen() -> Any:
        return lasting(status(driver.site, driver.state, driver.at(), SOUND))

    before = seen()
    driver.keep_good(5)
    quiet = seen()
    kill_primary(driver)

    assert quiet == before
    assert seen() != before


def watching(site: Path, *words: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "agent", "watch", "-c", str(site), *words],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_watch_prints_anew_when_something_changes_and_ends_with_ctrl_c(site, socket):
    driver = started()
    with running(socket, Desk(driver)), watching(site, "--json") as process:
        assert process.stdout is not None
        first = json.loads(process.stdout.readline())
        kill_primary(driver)
        second = json.loads(process.stdout.readline())
        process.send_signal(signal.SIGINT)
        rest, errors = process.communicate(timeout=20)

    assert (first["site"]["tier"], second["site"]["tier"]) == ("ok", "orange")
    assert (process.returncode, rest, errors) == (0, "", "")


def test_watch_is_plain_text_without_a_terminal_and_ends_after_its_time(site, socket):
    with running(socket, Desk(started())), watching(site, "--for", "1s") as process:
        text, errors = process.communicate(timeout=20)

    assert (process.returncode, errors) == (0, "")
    assert text.count("Branch one (b1): OK") == 1
    assert "\x1b" not in text


def test_watch_waits_for_an_agent_that_went_away_but_not_for_one_that_never_was(site, socket):
    never = command("watch", "-c", site)
    with running(socket, Desk(started())):
        process = watching(site, "--json")
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.readline()
    with process:
        told = process.stderr.readline()
        with running(socket, Desk(started())):
            back = json.loads(process.stdout.readline())
            process.send_signal(signal.SIGINT)
            process.communicate(timeout=20)

    assert never.exit_code == 1
    assert "there is nothing to watch" in never.stderr
    assert "waiting for it" in told
    assert back["site"]["id"] == "b1"


# ---------------------------------------------------------------- the journal's export


def lines_of(text: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in text.splitlines()]


def lively() -> Driver:
    """A swap, and a day later something else."""
    driver = swapped(started())
    driver.now_s += 86_400.0
    driver.rungs("wan2", FAR)
    return driver


def test_export_gives_every_record_and_a_stranger_can_follow_its_chain(site, tmp_path):
    driver = lively()
    write_journal(tmp_path / "state", driver, checkpoint_after=10)
    before = sorted(path.name for path in (tmp_path / "state").iterdir())

    found = command("journal", "export", "-c", site)

    assert found.exit_code == 0
    assert "the chain holds" in found.stderr
    rows = lines_of(found.stdout)
    assert [row["seq"] for row in rows] == list(range(1, len(driver.records) + 2))
    assert {"seq", "at", "kind", "digest", "record"} == rows[0].keys()
    assert (rows[0]["kind"], rows[10]["kind"], rows[10]["at"]) == ("AgentStarted", "Checkpoint", None)
    assert rows[0]["at"].endswith("Z")
    digest = ""
    for row, line in zip(rows, found.stdout.splitlines(), strict=True):
        record = line.partition(',"record":')[2][:-1]
        digest = hashlib.sha256(f"{digest}\n{row['seq']}\n{record}".encode()).hexdigest()
        assert row["digest"] == digest
    assert sorted(path.name for path in (tmp_path / "state").iterdir()) == before


@pytest.mark.parametrize(
    ("bounds", "expected"),
    [
        (("--from", "3", "--to", "5"), "3-5"),
        (("--to", "2"), "1-2"),
        (("--to", "2023-11-14"), "first day"),
        (("--from", "2023-11-15"), "next day"),
        (("--from", "2023-11-15T00:00:00+00:00", "--to", "2023-11-15"), "next day"),
    ],
)
def test_export_takes_bounds_by_number_and_by_moment(site, tmp_path, bounds, expected):
    driver = lively()
    write_journal(tmp_path / "state", driver)
    days = {"first day": 0, "next day": 1}

    rows = lines_of(command("journal", "export", *bounds, "-c", site).stdout)

    if expected in days:
        midnight_s = 1_700_006_400.0  # the end of 2023-11-14
        wanted = [n for n, r in enumerate(driver.records, 1) if (r.at.utc_s >= midnight_s) == days[expected]]
    else:
        first, last = map(int, expected.split("-"))
        wanted = list(range(first, last + 1))
    assert wanted
    assert [row["seq"] for row in rows] == wanted


def test_export_to_a_file_never_writes_over_one(site, tmp_path):
    write_journal(tmp_path / "state", lively())
    target = tmp_path / "journal.jsonl"

    first = command("journal", "export", "--output", target, "-c", site)
    second = command("journal", "export", "--output", target, "-c", site)

    assert (first.exit_code, first.stdout, second.exit_code) == (0, "", 1)
    assert lines_of(target.read_text(encoding="utf-8"))[0]["seq"] == 1
    assert "stays as it is" in second.stderr


def test_export_of_an_altered_journal_ends_where_it_can_no_longer_be_followed(site, tmp_path):
    write_journal(tmp_path / "state", lively())
    with closing(sqlite3.connect(tmp_path / "state" / "journal.db")) as connection, connection:
        connection.execute("UPDATE entries SET body = replace(body, 'boot-1', 'boot-9') WHERE seq = 5")

    found = command("journal", "export", "-c", site)

    assert found.exit_code == 1
    assert [row["seq"] for row in lines_of(found.stdout)] == [1, 2, 3, 4]
    assert "ends before record 5" in found.stderr
    assert "NOT SOUND" in found.stderr


def test_export_without_a_journal_or_with_a_bound_that_is_none(site):
    assert "there is no journal in" in command("journal", "export", "-c", site).stderr
    wrong = command("journal", "export", "--from", "yesterday", "-c", site)

    assert wrong.exit_code == 2
    assert "neither a record's number nor a moment" in wrong.stderr
