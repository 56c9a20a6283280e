"""The web server: real uvicorn on a free port of the loopback address."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import AsyncIterator
from dataclasses import dataclass, replace

import httpx
import pytest
import pytest_asyncio

from agent.metrics import Exporter
from agent.web.server import WebServer
from tests.fakes.desk import SOUND, Desk
from tests.fakes.sites import Driver, bank


@dataclass(frozen=True)
class Address:
    metrics_host: str = "127.0.0.1"
    metrics_port: int = 0
    tls: None = None
    password_file: None = None


@pytest.fixture
def desk() -> Desk:
    driver = Driver(bank()).start()
    driver.all_good()
    return Desk(driver)


@pytest_asyncio.fixture
async def web(desk: Desk) -> AsyncIterator[WebServer]:
    async with WebServer(Exporter(desk), desk, Address()) as running:
        yield running


async def get(web: WebServer, page: str) -> httpx.Response:
    async with httpx.AsyncClient() as client:
        return await client.get(f"http://{web.host}:{web.port}{page}")


async def test_metrics_are_served_as_prometheus_text(web):
    answer = await get(web, "/metrics")

    assert answer.status_code == 200
    assert answer.headers["content-type"].startswith("text/plain; version=")
    assert 'changeover_point_value{equipment="wan1",point="hq.lost_in_row"' in answer.text


async def test_health_is_good_while_the_loop_passes_and_the_journal_holds(web):
    answer = await get(web, "/healthz")

    assert answer.status_code == 200
    assert answer.json() == {"ok": True, "reasons": [], "loop_last_pass_age_s": 0.0, "journal_durable": True}


async def test_loop_that_stands_still_is_unhealthy(web, desk):
    desk.driver.now_s += 11.0

    answer = await get(web, "/healthz")

    assert answer.status_code == 503
    assert answer.json()["reasons"] == ["the loop has not completed a pass for 11 s"]


async def test_loop_before_its_first_pass_is_unhealthy(web, desk):
    desk.passes = 0

    answer = await get(web, "/healthz")

    assert answer.status_code == 503
    assert answer.json()["loop_last_pass_age_s"] is None


async def test_journal_that_is_not_durable_is_unhealthy(web, desk):
    desk.journal_view = replace(SOUND, durable=False, reason="no space left on device")

    answer = await get(web, "/healthz")

    assert answer.status_code == 503
    assert answer.json()["reasons"] == ["the journal is not durable: no space left on device"]


async def test_other_pages_and_methods_are_refused(web):
    assert (await get(web, "/")).status_code == 404
    async with httpx.AsyncClient() as client:
        assert (await client.post(f"http://127.0.0.1:{web.port}/metrics")).status_code == 405


async def test_port_in_use_is_an_error_with_the_address_and_ends_nothing(web, desk):
    with pytest.raises(OSError, match=f"metrics on 127.0.0.1:{web.port}: Address already in use"):
        await WebServer(Exporter(desk), desk, Address(metrics_port=web.port)).start()

    assert (await get(web, "/healthz")).status_code == 200


async def test_address_that_leaves_this_machine_is_refused(desk):
    with pytest.raises(OSError, match="would leave this machine"):
        await WebServer(Exporter(desk), desk, Address(metrics_host="0.0.0.0")).start()


async def test_signals_stay_those_of_the_process(desk):
    before = [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)]

    async with WebServer(Exporter(desk), desk, Address()):
        during = [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)]

    assert during == before


async def test_stop_does_not_wait_for_a_client_that_keeps_its_connection(desk):
    web = WebServer(Exporter(desk), desk, Address())
    await web.start()
    _, writer = await asyncio.open_connection("127.0.0.1", web.port)
    writer.write(b"GET /metrics HTTP/1.1\r\nHost: x\r\n")
    await writer.drain()

    async with asyncio.timeout(5):
        await web.stop()

    writer.close()
    with pytest.raises(httpx.ConnectError):
        await get(web, "/healthz")
    await web.stop()
