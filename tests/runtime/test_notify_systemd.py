"""The agent's word to systemd: said after completed passes only, and never a reason to stop watching."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from agent.clock import boot_s, running_s
from agent.runtime.notify_systemd import BEAT_S_MAX, Notifier, told_to_systemd, watchdog_s

PATIENCE_S = 10.0


class Passes:
    """A loop that completes a pass when told to."""

    def __init__(self) -> None:
        self.passes = 0


class AskedPasses:
    """The same, which notes how often it is asked: `asked_often` is set by the twentieth time."""

    def __init__(self) -> None:
        self.completed = 0
        self.asked = 0
        self.asked_often = asyncio.Event()

    @property
    def passes(self) -> int:
        self.asked += 1
        if self.asked == 20:
            self.asked_often.set()
        return self.completed


class Manager:
    """systemd's end of the socket: what NOTIFY_SOCKET names."""

    def __init__(self, address: str) -> None:
        self.address = address
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind("\0" + address[1:] if address.startswith("@") else address)
        self._socket.setblocking(False)

    def heard(self) -> list[list[str]]:
        """Return the words of each datagram that came since the last call."""
        found = []
        with contextlib.suppress(BlockingIOError):
            while True:
                found.append(self._socket.recv(4096).decode().split("\n"))
        return found

    async def hears(self, word: str) -> None:
        """Wait until *word* has come."""
        deadline = boot_s() + PATIENCE_S
        while boot_s() < deadline:
            if any(word in words for words in self.heard()):
                return
            await asyncio.sleep(0.01)
        raise AssertionError(f"never heard: {word}")

    def close(self) -> None:
        self._socket.close()


@pytest.fixture
def manager(tmp_path: Path) -> Iterator[Manager]:
    with contextlib.closing(Manager(str(tmp_path / "notify"))) as made:
        yield made


def notifier(loop: Passes, manager: Manager, status: str = "b1 ok") -> Notifier:
    return Notifier(loop, lambda: status, {"NOTIFY_SOCKET": manager.address})


def test_nothing_is_said_before_the_first_pass_is_complete(manager):
    told = notifier(Passes(), manager)

    told.beat()

    assert manager.heard() == []


def test_the_first_pass_makes_the_agent_ready(manager):
    loop = Passes()
    told = notifier(loop, manager)

    loop.passes = 1
    told.beat()

    assert manager.heard() == [["WATCHDOG=1", "READY=1", "STATUS=b1 ok"]]


def test_each_later_pass_feeds_the_watchdog_and_says_no_more(manager):
    loop = Passes()
    told = notifier(loop, manager)

    for loop.passes in (1, 2, 7):
        told.beat()

    assert manager.heard()[1:] == [["WATCHDOG=1"], ["WATCHDOG=1"]]


def test_a_stuck_loop_stops_feeding_the_watchdog(manager):
    loop = Passes()
    told = notifier(loop, manager)
    loop.passes = 1
    told.beat()
    manager.heard()

    for _ in range(100):
        told.beat()

    assert manager.heard() == []


async def test_a_loop_that_gets_stuck_while_systemd_listens_falls_silent(manager):
    """The beats go on by themselves; once the loop stands, many more of them bring no word."""
    loop = AskedPasses()
    environment = {"NOTIFY_SOCKET": manager.address, "WATCHDOG_USEC": "30000"}

    async with told_to_systemd(loop, lambda: "b1 ok", environment):
        loop.completed = 1
        await manager.hears("READY=1")
        loop.completed = 2
        await manager.hears("WATCHDOG=1")
        loop.asked = 0
        loop.asked_often.clear()
        async with asyncio.timeout(PATIENCE_S):
            await loop.asked_often.wait()

        assert manager.heard() == []


async def test_beats_come_three_times_within_the_watchdogs_patience(manager):
    told = Notifier(Passes(), str, {"NOTIFY_SOCKET": manager.address, "WATCHDOG_USEC": "9000000"})

    assert told.beat_s == 3.0


def test_without_a_watchdog_the_status_is_still_told(manager):
    assert notifier(Passes(), manager).beat_s == BEAT_S_MAX


def test_a_watchdog_of_another_process_is_not_ours():
    assert watchdog_s({"WATCHDOG_USEC": "9000000", "WATCHDOG_PID": str(os.getpid() + 1)}) == float("inf")
    assert watchdog_s({"WATCHDOG_USEC": "9000000", "WATCHDOG_PID": str(os.getpid())}) == 9.0
    assert watchdog_s({"WATCHDOG_USEC": "soon"}) == float("inf")


def test_a_changed_status_is_told_once(manager):
    loop = Passes()
    line = ["b1 ok"]
    told = Notifier(loop, lambda: line[0], {"NOTIFY_SOCKET": manager.address})
    loop.passes = 1
    told.beat()
    manager.heard()

    line[0] = "b1 red; wan1 is dead"
    for loop.passes in (2, 3):
        told.beat()

    assert manager.heard() == [["WATCHDOG=1", "STATUS=b1 red; wan1 is dead"], ["WATCHDOG=1"]]


def test_a_status_cannot_bring_in_another_word(manager):
    loop = Passes()
    told = notifier(loop, manager, "b1 ok\nMAINPID=1\n" + "x" * 500)

    loop.passes = 1
    told.beat()

    ((_, _, status),) = manager.heard()
    assert status.startswith("STATUS=b1 ok MAINPID=1 xxx")
    assert len(status) <= len("STATUS=") + 200


def test_a_reload_ends_with_the_next_completed_pass(manager):
    loop = Passes()
    told = notifier(loop, manager)
    loop.passes = 1
    told.beat()
    manager.heard()
    before_us = running_s() * 1e6

    told.reloading()
    told.beat()
    loop.passes = 2
    told.beat()

    reloading, ready = manager.heard()
    assert reloading[0] == "RELOADING=1"
    assert before_us - 1 <= int(reloading[1].removeprefix("MONOTONIC_USEC=")) <= running_s() * 1e6
    assert ready == ["WATCHDOG=1", "READY=1"]


async def test_the_end_is_told_as_wanted(manager):
    async with told_to_systemd(Passes(), lambda: "b1 ok", {"NOTIFY_SOCKET": manager.address}):
        pass

    assert manager.heard() == [["STOPPING=1", "STATUS=stopping"]]


def test_an_abstract_socket_is_reached(tmp_path):
    with contextlib.closing(Manager(f"@changeover-test-{tmp_path.name}-{os.getpid()}")) as manager:
        loop = Passes()
        told = notifier(loop, manager)

        loop.passes = 1
        told.beat()

        assert manager.heard()[0][:2] == ["WATCHDOG=1", "READY=1"]


def test_a_manager_that_is_gone_is_told_in_the_log_once_and_fed_again_when_it_is_back(tmp_path, caplog):
    loop = Passes()
    address = str(tmp_path / "notify")
    told = Notifier(loop, lambda: "b1 ok", {"NOTIFY_SOCKET": address})

    with caplog.at_level(logging.WARNING):
        for loop.passes in (1, 2, 3):
            told.beat()
    with contextlib.closing(Manager(address)) as manager:
        told.beat()

        assert manager.heard() == [["WATCHDOG=1", "READY=1", "STATUS=b1 ok"]]
    assert [record.message.split()[0] for record in caplog.records] == ["systemd.not_told"]


async def test_without_systemd_nothing_is_said_and_nothing_waits():
    told = Notifier(Passes(), lambda: "b1 ok", {})

    async with asyncio.timeout(PATIENCE_S):
        await told.run()
    told.stopping()
