"""The control socket: over a real socket, with the real core behind it."""

from __future__ import annotations

import asyncio
import json
import os
import pwd
import socket
import stat
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from agent.control import CLIENTS_MAX, ControlServer, SocketInUse
from agent.control_client import LINE_BYTES_MAX, ControlRefused, NobodyAnswers, request
from agent.core.model import Choice, HoldAsked, Mode, ReleaseAsked, RunChosen
from tests.fakes.desk import SOUND, Desk
from tests.fakes.sites import Driver, bank, swap

FAR = ("edge", "hq", "second_site")
ME = pwd.getpwuid(os.getuid()).pw_name


def good(**site: Any) -> Driver:
    driver = Driver(bank(**site)).start()
    driver.all_good()
    driver.keep_good(70)
    return driver


def fail_primary(driver: Driver) -> None:
    driver.now_s += 0.3
    driver.rungs("wan1", FAR)
    driver.now_s += 0.02
    driver.rungs("wan2")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "run" / "control.sock"


@pytest.fixture
def desk() -> Desk:
    return Desk(good())


@pytest_asyncio.fixture
async def server(path: Path, desk: Desk) -> AsyncIterator[ControlServer]:
    async with ControlServer(path, desk) as running:
        yield running


async def ask(path: Path, verb: str, **words: Any) -> Any:
    return await asyncio.to_thread(request, path, verb, **words)


async def refused(path: Path, verb: str, **words: Any) -> ControlRefused:
    with pytest.raises(ControlRefused) as caught:
        await ask(path, verb, **words)
    return caught.value


async def is_busy(path: Path) -> bool:
    """Tell whether the server lets nobody in now."""
    return any(answer.get("error", {}).get("code") == "busy" for answer in await raw(path, b'{"verb": "release"}\n'))


async def raw(path: Path, data: bytes) -> list[dict[str, Any]]:
    """Send *data*, end our side, and return every answer."""
    reader, writer = await asyncio.open_unix_connection(str(path), limit=2**22)
    writer.write(data)
    writer.write_eof()
    answers = [json.loads(line) for line in (await asyncio.wait_for(reader.read(), 10)).splitlines()]
    writer.close()
    return answers


async def test_status_and_explain_come_over_the_socket(server, path):
    assert (await ask(path, "status"))["site"]["tier"] == "ok"
    assert (await ask(path, "explain", id="standby"))["type"] == "runbook"
    assert (await refused(path, "explain", id="I77")).code == "not_found"


async def test_hold_is_by_the_login_that_the_kernel_names(server, path, desk):
    found = await ask(path, "hold", reason="换线", for_s=7200, let_finish=True)

    assert desk.asked == [HoldAsked(ME, "换线", True, 7200.0)]
    assert found["mode"] == "hold"
    assert found["hold"]["owner"] == ME


async def test_release_without_a_hold_is_refused_and_nothing_reaches_the_core(server, path, desk):
    assert (await refused(path, "release")).code == "refused"
    assert desk.asked == []

    await ask(path, "hold")
    found = await ask(path, "release")

    assert desk.asked[-1] == ReleaseAsked(ME)
    assert found["hold"] is None


async def test_run_that_asks_is_approved_once(path):
    desk = Desk(good(books=swap(Mode.ASK)))
    fail_primary(desk.driver)
    async with ControlServer(path, desk):
        (run,) = (await ask(path, "approve", run="R1"))["runs"]
        again = await refused(path, "approve", run="R1")

    assert (run["id"], run["approved"], run["state"]) == ("R1", True, "acting")
    assert again.code == "refused"
    assert "asks nobody" in str(again)


async def test_run_that_a_hold_stopped_goes_on_only_after_release_and_choice(path):
    desk = Desk(good(books=swap(Mode.ASK)))
    fail_primary(desk.driver)
    async with ControlServer(path, desk):
        moving = await refused(path, "choose", run="R1", choice="undo")
        await ask(path, "hold")
        held = await refused(path, "choose", run="R1", choice="undo")
        await ask(path, "release")
        found = await ask(path, "choose", run="R1", choice="undo")

    assert "does not stand still" in str(moving)
    assert f"stopped by {ME}" in str(held)
    assert desk.asked[-1] == RunChosen(ME, "R1", Choice.UNDO)
    assert found["runs"] == []


async def test_reset_takes_a_runbook_or_a_run_and_no_other_name(server, path, desk):
    fail_primary(desk.driver)

    assert (await ask(path, "reset", runbook="standby.return"))["blocks"] == []
    await ask(path, "reset", runbook="R1")

    assert [event.runbook for event in desk.asked] == ["standby", "standby"]  # type: ignore[union-attr]
    assert (await refused(path, "reset", runbook="nonsense")).code == "not_found"
    assert (await refused(path, "choose", run="R1", choice="reset")).code == "refused"
    assert (await refused(path, "approve", run="R9")).code == "not_found"


@pytest.mark.parametrize(
    ("line", "code", "text"),
    [
        (b"{", "bad_request", "not JSON"),
        (b"[1]", "bad_request", "is an object"),
        (b"[" * 50_000, "bad_request", "not JSON"),
        (b"\xff\xfe", "bad_request", "not JSON"),
        (b"{}", "unknown_verb", "verb must be one of status"),
        (b'{"verb": "swap"}', "unknown_verb", "verb must be one of status"),
        (b'{"verb": ["status"]}', "unknown_verb", "verb must be one of status"),
        (b'{"verb": "explain"}', "bad_request", "id is missing"),
        (b'{"verb": "explain", "id": ""}', "bad_request", "id must be a name"),
        (
            b'{"verb": "hold", "for_s": "2h", "why": 1}',
            "bad_request",
            "why is not known to hold; for_s must be a number",
        ),
        (b'{"verb": "hold", "for_s": -1}', "bad_request", "for_s must be a number"),
        (b'{"verb": "hold", "for_s": NaN}', "bad_request", "for_s must be a number"),
        (b'{"verb": "hold", "for_s": true}', "bad_request", "for_s must be a number"),
        (b'{"verb": "hold", "let_finish": 1}', "bad_request", "let_finish must be true or false"),
        (b'{"verb": "hold", "reason": "a\\u001b[2Jb"}', "bad_request", "reason must be a text of one line"),
        (b'{"verb": "choose", "run": "R1", "choice": "stop"}', "bad_request", "choice must be one of go-on"),
    ],
)
async def test_bad_request_is_told_and_the_next_one_is_answered(server, path, desk, line, code, text):
    first, second = await raw(path, line + b'\n{"verb": "status"}\n')

    assert first["error"]["code"] == code
    assert text in first["error"]["text"]
    assert second["result"]["site"]["id"] == "b1"
    assert desk.asked == []


async def test_too_long_a_line_ends_the_connection(server, path):
    (answer,) = await raw(path, b" " * (LINE_BYTES_MAX + 1) + b'\n{"verb": "status"}\n')

    assert answer["error"]["code"] == "too_long"
    assert (await refused(path, "explain", id="x" * LINE_BYTES_MAX)).code == "too_long"


async def test_half_a_request_does_nothing(server, path, desk):
    assert await raw(path, b'{"verb": "hold"}') == []
    assert desk.asked == []


async def test_client_beyond_the_last_is_told_so_and_is_let_in_when_another_goes(server, path):
    others = [await asyncio.open_unix_connection(str(path), limit=2**22) for _ in range(CLIENTS_MAX)]
    for reader, writer in others:  # each has been let in when it is answered
        writer.write(b'{"verb": "release"}\n')
        await reader.readline()

    assert (await refused(path, "status")).code == "busy"

    for _, writer in others:
        writer.close()
    for _ in range(500):
        if not await is_busy(path):
            break
        await asyncio.sleep(0.01)
    assert (await ask(path, "status"))["site"]["id"] == "b1"


async def test_word_that_is_not_on_disk_yet_is_told_as_in_force(server, path, desk):
    desk.fails = TimeoutError()
    desk.journal_view = replace(SOUND, durable=False, reason="no space left on device")

    error = await refused(path, "hold")

    assert error.code == "not_durable"
    assert "in force, but not on disk yet: no space left on device" in str(error)
    assert desk.state.durable.hold is not None


async def test_fault_in_the_agent_is_an_answer_too(server, path, desk):
    desk.fails = ZeroDivisionError("division by zero")

    assert (await refused(path, "hold")).code == "failed"
    assert (await ask(path, "status"))["mode"] == "hold"


async def test_socket_has_its_mode_and_goes_with_the_server(path, desk):
    async with ControlServer(path, desk):
        mode = path.stat().st_mode
        left = [one.name for one in path.parent.iterdir()]

    assert stat.S_ISSOCK(mode)
    assert stat.S_IMODE(mode) == 0o660
    assert left == ["control.sock"]
    assert not path.exists()
    with pytest.raises(NobodyAnswers):
        await ask(path, "status")


async def test_socket_that_a_dead_agent_left_is_replaced(path, desk):
    path.parent.mkdir()
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))

    async with ControlServer(path, desk):
        assert (await ask(path, "status"))["site"]["id"] == "b1"


async def test_socket_of_a_living_agent_is_left_alone(server, path, desk):
    with pytest.raises(SocketInUse, match="another agent answers"):
        await ControlServer(path, desk).start()

    assert (await ask(path, "status"))["site"]["id"] == "b1"


async def test_file_in_the_place_of_the_socket_is_left_alone(path, desk):
    path.parent.mkdir()
    path.write_text("mine")

    with pytest.raises(OSError, match="something else than a socket"):
        await ControlServer(path, desk).start()

    assert path.read_text() == "mine"


async def test_stop_ends_the_connections_of_clients_that_say_nothing_more(path, desk):
    server = ControlServer(path, desk)
    await server.start()
    reader, writer = await asyncio.open_unix_connection(str(path), limit=2**22)
    writer.write(b'{"verb": "status"}\n')
    await reader.readline()

    await server.stop()

    assert await asyncio.wait_for(reader.read(), 5) == b""
    writer.close()
    await server.stop()
