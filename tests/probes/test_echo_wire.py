"""What an ICMP or TCP answer must be to count as one, whatever else comes in."""

from __future__ import annotations

import socket
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.errors import ProbeFault
from probes.wire.echo import Binding, Target, bind, check_bound, parse_target
from probes.wire.icmp import checksum, echo_request, reply_number, split_datagram
from probes.wire.netlink import addresses_of, link_named, next_hop
from probes.wire.tcp import TcpEcho, ask_once
from tests.fakes.far_end import FarEnd

TOKEN = b"\x01\x02\x03\x04\x05\x06\x07\x08"


def reply(kind: int = 0, code: int = 0, identifier: int = 77, number: int = 5, payload: bytes = TOKEN) -> bytes:
    return struct.pack("!BBHHH", kind, code, 0, identifier, number) + payload


def test_a_request_sums_up_to_zero_as_a_receiver_counts_it():
    assert checksum(echo_request(77, 5, TOKEN)) == 0
    assert checksum(echo_request(0xFFFF, 0xFFFF, TOKEN + b"x")) == 0  # an odd number of bytes


def test_a_reply_to_us_is_an_answer():
    assert reply_number(reply(), 77, TOKEN) == 5
    assert reply_number(reply(identifier=9), None, TOKEN) == 5  # a ping socket: the kernel has chosen the identifier


@pytest.mark.parametrize(
    "data",
    [
        reply(identifier=78),  # somebody else's
        reply(payload=b"\x01\x02\x03\x04\x05\x06\x07\x09"),  # the same identifier by chance
        reply(kind=8),  # a request, or our own on the loopback
        reply(kind=3, code=1),  # unreachable
        reply(code=1),
        reply()[:-1],  # cut short
        b"",
    ],
)
def test_anything_else_is_none(data: bytes):
    assert reply_number(data, 77, TOKEN) is None


@given(st.binary(max_size=80), st.booleans())
def test_no_datagram_however_wrong_raises(data: bytes, is_raw: bool):
    part, destination = split_datagram(data, is_raw)

    assert destination is None or is_raw
    assert reply_number(part, 77, TOKEN) is None or TOKEN in data


@given(st.text(max_size=40) | st.from_regex(r"[0-9.]{7,15}(:[0-9]{1,6})?(/source)?", fullmatch=True))
def test_a_target_is_understood_as_it_is_written_or_refused(text: str):
    try:
        target = parse_target(text)
    except ValueError:
        return

    assert parse_target(str(target)) == target
    assert target.port is None or 1 <= target.port <= 65535


def test_a_socket_is_held_to_its_line_or_it_is_told():
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as endpoint:
        bind(endpoint, Binding("lo", "127.0.0.11"))
        check_bound(endpoint, Binding("lo", "127.0.0.11"))

        with pytest.raises(ProbeFault, match="binding_failed: bound to lo instead of eth9"):
            check_bound(endpoint, Binding("eth9", "127.0.0.11"))
        with pytest.raises(ProbeFault, match=r"binding_failed: bound to 127\.0\.0\.11 instead of 127\.0\.0\.12"):
            check_bound(endpoint, Binding("lo", "127.0.0.12"))
        with pytest.raises(ProbeFault, match="binding_failed"):
            bind(endpoint, Binding(source="192.0.2.77"))


async def test_one_tcp_question_has_one_answer():
    async with FarEnd() as hq:
        told = await ask_once(parse_target(hq.target), Binding(source="127.0.0.11"), 2.0)
        opened = await ask_once(Target(hq.address, hq.port), Binding(), 2.0)

    assert (told.told, told.destination) == ("127.0.0.11", "127.0.0.11")
    assert (opened.told, opened.fault) == (None, None)


@pytest.mark.parametrize(("said", "fault"), [("", "closed"), ("hello\n", "bad_reply"), ("9" * 99, "bad_reply")])
async def test_a_wrong_tcp_answer_is_a_fault(said: str, fault: str):
    async with FarEnd() as hq:
        hq.tells = said
        with pytest.raises(ProbeFault) as wrong:
            await ask_once(parse_target(hq.target), Binding(), 2.0)

    assert wrong.value.fault == fault


async def test_a_silent_tcp_target_is_given_up_at_its_deadline():
    async with FarEnd() as hq:
        hq.silent = True
        with pytest.raises(ProbeFault) as late:
            await ask_once(parse_target(hq.target), Binding(), 0.1)

    assert late.value.fault == "timed_out"


async def test_a_refused_tcp_connection_is_a_fault():
    async with FarEnd() as hq:
        port = hq.port
    with pytest.raises(ProbeFault) as refused:
        await ask_once(Target(hq.address, port), Binding(), 2.0)

    assert refused.value.fault == "refused"


def test_echoes_under_way_are_let_go():
    with socket.create_server(("127.0.0.9", 0)) as server:
        echo = TcpEcho(Binding())
        for sequence in range(50):
            echo.send(Target("127.0.0.9", server.getsockname()[1], tells_source=True), sequence)
        assert echo.drain() == []

        echo.close()

        assert echo._flights == {}


def test_the_kernel_tells_of_links_addresses_and_ways():
    link = link_named("lo")

    assert link is not None
    assert link.is_up
    assert link.carrier
    assert "127.0.0.1" in addresses_of(link.index)
    assert link_named("nowhere0") is None
    assert next_hop("127.0.0.1", link.index).gateway is None
    with pytest.raises(ProbeFault, match="send_failed: route to 192"):
        next_hop("192.0.2.1", 99999)
