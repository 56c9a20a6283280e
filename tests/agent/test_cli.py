"""The command line: exit codes, what goes to which stream, and the journal of an agent that is down."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from agent.cli import main
from agent.control import ControlServer
from agent.core.model import HoldAsked
from agent.runtime.codec import canonical
from agent.runtime.journal_chain import link
from agent.runtime.journal_open import open_journal
from agent.runtime.state_dir import StateDirectory
from tests.fakes.desk import Desk
from tests.fakes.sites import Driver, bank

EXAMPLE = Path(__file__).resolve().parents[2] / "config.example.yaml"
FAR = ("edge", "hq", "second_site")
SITE = """
site: {{id: b1, name: Branch one}}
equipment:
  ups-a: {{kind: ups, ups: ups-a, host: 127.0.0.1}}
  wan1:
    kind: line
    role: primary
    profile: fast
    interface: eth1
    gateway: 192.0.2.1
    targets: {{cpe: 192.0.2.1, edge: 198.51.100.1, hq: 203.0.113.1}}
  wan2:
    kind: line
    role: standby
    profile: fast
    interface: eth2
    gateway: 192.0.2.129
    targets: {{cpe: 192.0.2.129, edge: 198.51.100.129, hq: 203.0.113.1}}
runbooks:
  standby: {{use: standby_line, mode: auto, bind: {{primary: wan1, standby: wan2}}}}
server: {{socket: {folder}/control.sock, state_dir: {folder}/state}}
"""


@pytest.fixture
def site(tmp_path: Path) -> Path:
    path = tmp_path / "site.yaml"
    path.write_text(SITE.format(folder=tmp_path), encoding="utf-8")
    return path


def command(*words: object) -> Result:
    return CliRunner().invoke(main, [str(word) for word in words])


def swapped() -> Driver:
    driver = Driver(bank()).start()
    driver.all_good()
    driver.keep_good(70)
    driver.now_s += 0.3
    driver.rungs("wan1", FAR)
    driver.now_s += 0.02
    driver.rungs("wan2")
    driver.answer()
    driver.now_s += 0.05
    driver.path("wan2")
    return driver


def write_journal(folder: Path, driver: Driver) -> None:
    folder.mkdir()
    opened = open_journal(folder)
    opened.store.append(link([canonical(record) for record in driver.records], opened.head))
    opened.store.close()


@contextmanager
def running(path: Path, desk: Desk) -> Iterator[None]:
    """A control socket with *desk* behind it, in a thread: the command line waits for its answers."""
    up, stop = threading.Event(), asyncio.Event()

    async def serve() -> None:
        async with ControlServer(path, desk):
            up.set()
            await stop.wait()

    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_until_complete, args=(serve(),))
    thread.start()
    assert up.wait(10)
    try:
        yield
    finally:
        loop.call_soon_threadsafe(stop.set)
        thread.join(10)
        loop.close()


# ---------------------------------------------------------------- check


def test_good_site_file_gives_its_coverage():
    text, data = command("check", "-c", EXAMPLE), command("check", "-c", EXAMPLE, "--json")

    assert text.exit_code == data.exit_code == 0
    assert "single faults that are named:" in text.stdout
    found = json.loads(data.stdout)
    assert found["problems"] == []
    assert "wan1" in {row["equipment"] for row in found["coverage"]["watched"]}


def test_every_mistake_is_told_on_the_error_stream_with_place_and_cure(site):
    text = (
        site.read_text(encoding="utf-8").replace("role: standby", "rolle: standby").replace("kind: ups", "kind: upss")
    )
    site.write_text(text, encoding="utf-8")

    found = command("check", "-c", site)

    assert found.exit_code == 2
    assert found.stdout == ""
    lines = found.stderr.splitlines()
    assert len(lines) >= 2
    assert all(line.startswith(f"{site}:") for line in lines)
    assert any("did you mean" in line for line in lines)


def test_mistakes_come_as_json_too(site):
    site.write_text("site: {id: b1}\n", encoding="utf-8")

    found = command("check", "-c", site, "--json")

    assert found.exit_code == 2
    (problem,) = json.loads(found.stdout)["problems"]
    assert problem.keys() == {"file", "line", "column", "path", "message", "cure"}


def test_site_file_that_is_not_there_is_a_mistake(tmp_path):
    found = command("check", "-c", tmp_path / "none.yaml")

    assert found.exit_code == 2
    assert "none.yaml" in found.stderr


# ---------------------------------------------------------------- a running agent


def test_status_and_explain_of_a_running_agent(site, tmp_path):
    with running(tmp_path / "control.sock", Desk(swapped())):
        text, data = command("status", "-c", site), command("status", "-c", site, "--json")
        why = command("explain", "I1", "-c", site)
        unknown = command("explain", "I77", "-c", site)

    assert (text.exit_code, data.exit_code, why.exit_code, unknown.exit_code) == (0, 0, 0, 1)
    assert text.stdout.startswith("Branch one (b1): ORANGE")
    assert json.loads(data.stdout)["arrangements"][0]["line"] == "wan2"
    assert "It comes from the access line of wan1." in why.stdout
    assert "nothing here is called I77" in unknown.stderr


def test_hold_and_release_reach_the_agent(site, tmp_path):
    desk = Desk(swapped())
    with running(tmp_path / "control.sock", desk):
        held = command("hold", "--reason", "cable work", "--for", "2h", "--let-finish", "-c", site)
        released = command("release", "-c", site, "--json")
        again = command("release", "-c", site)

    assert (held.exit_code, released.exit_code, again.exit_code) == (0, 0, 1)
    asked = desk.asked[0]
    assert isinstance(asked, HoldAsked)
    assert (asked.reason, asked.for_s, asked.let_finish) == ("cable work", 7200.0, True)
    assert "cable work" in held.stdout
    assert json.loads(released.stdout)["hold"] is None
    assert "there is no hold" in again.stderr


def test_runbook_and_approve_give_the_agents_reasons(site, tmp_path):
    desk = Desk(swapped())
    with running(tmp_path / "control.sock", desk):
        reset = command("runbook", "reset", "standby", "-c", site)
        undo = command("runbook", "undo", "R1", "-c", site)
        on = command("runbook", "go-on", "R9", "-c", site)
        approve = command("approve", "R1", "-c", site)

    assert [one.exit_code for one in (reset, undo, on, approve)] == [0, 1, 1, 1]
    assert "R1 is done and does not stand still" in undo.stderr
    assert "there is no run R9" in on.stderr
    assert "R1 is done and asks nobody" in approve.stderr


def test_hold_works_with_a_broken_site_file(site, tmp_path):
    site.write_text("nonsense", encoding="utf-8")
    desk = Desk(swapped())
    with running(tmp_path / "control.sock", desk):
        found = command("hold", "-c", site, "--socket", tmp_path / "control.sock")

    assert found.exit_code == 0
    assert desk.state.durable.hold is not None


# ---------------------------------------------------------------- an agent that is down


def test_status_of_an_agent_that_is_down_is_what_its_journal_remembers(site, tmp_path):
    write_journal(tmp_path / "state", swapped())
    before = sorted(path.name for path in (tmp_path / "state").iterdir())

    text, data = command("status", "-c", site), command("status", "-c", site, "--json")
    why = command("explain", "R1", "-c", site)

    assert (text.exit_code, data.exit_code, why.exit_code) == (0, 0, 0)
    assert "no agent answers at" in text.stderr
    assert text.stdout.startswith("THE AGENT IS NOT RUNNING.")
    found = json.loads(data.stdout)
    assert found["agent"]["running"] is False
    assert found["arrangements"][0]["line"] == "wan2"
    assert found["equipment"]["wan1"]["points"]["hq.lost_in_row"]["value"] is None
    assert "Run R1 of standby: done" in why.stdout
    assert sorted(path.name for path in (tmp_path / "state").iterdir()) == before


def test_agent_that_never_ran_is_told(site):
    found = command("status", "-c", site)

    assert found.exit_code == 1
    assert "there is no journal in" in found.stderr


def test_broken_journal_is_told_with_the_next_command(site, tmp_path):
    write_journal(tmp_path / "state", swapped())
    (tmp_path / "state" / "journal.head").unlink()

    found = command("status", "-c", site)

    assert found.exit_code == 1
    assert "changeover journal verify" in found.stderr


def test_word_to_an_agent_that_is_down_fails_and_says_that_nothing_was_done(site):
    for words in (("hold",), ("release",), ("approve", "R1"), ("runbook", "reset", "standby")):
        found = command(*words, "-c", site)

        assert found.exit_code == 1
        assert "nothing was done" in found.stderr


# ---------------------------------------------------------------- journal, run, usage


def test_sound_journal_is_verified(site, tmp_path):
    driver = swapped()
    write_journal(tmp_path / "state", driver)

    text, data = command("journal", "verify", "-c", site), command("journal", "verify", "-c", site, "--json")

    assert (text.exit_code, data.exit_code) == (0, 0)
    assert "sound" in text.stdout
    assert json.loads(data.stdout)["entries"] == len(driver.records)


def test_journal_that_is_not_sound_or_not_there_fails(site, tmp_path):
    none = command("journal", "verify", "-c", site)
    write_journal(tmp_path / "state", swapped())
    (tmp_path / "state" / "journal.head").unlink()

    found = command("journal", "verify", "--state-dir", tmp_path / "state")

    assert (none.exit_code, found.exit_code) == (1, 1)
    assert "there is no journal in" in none.stderr
    assert "NOT SOUND" in found.stdout
    assert "journal.head" in found.stderr


def test_second_agent_on_one_state_directory_ends_with_three(site, tmp_path):
    with StateDirectory(tmp_path / "state"):
        found = command("run", "-c", site)

    assert found.exit_code == 3


def test_run_with_a_broken_site_file_ends_with_two(site):
    site.write_text("site: {}\n", encoding="utf-8")

    assert command("run", "-c", site).exit_code == 2


@pytest.mark.parametrize(
    "words", [("swap",), ("explain",), ("hold", "--for", "2"), ("hold", "--for", "-2h"), ("demo", "--for", "0")]
)
def test_wrong_usage_ends_with_two(words):
    assert command(*words).exit_code == 2


def test_help_and_version_need_nothing_heavy():
    heavy = ("yaml", "pydantic", "uvicorn", "starlette", "prometheus_client", "psutil", "agent.core", "asyncio")
    code = (
        "import sys\nfrom agent.cli import main\n"
        "try:\n    main(['--version'])\nexcept SystemExit as end:\n    assert end.code == 0\n"
        f"print(sorted(name for name in {heavy!r} if name in sys.modules))"
    )

    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)

    assert found.stdout.splitlines() == ["changeover 0.1.0", "[]"]
