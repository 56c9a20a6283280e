"""The NUT client against servers that lie, stall, trickle, flood and vanish."""

from __future__ import annotations

import asyncio
import errno
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.errors import FAULTS, ProbeFault
from probes.wire.nut import LINE_BYTES_MAX, LIST_ROWS_MAX, NutClient, fault_of, quoted, shown, split
from tests.fakes.scripted_server import Connection, Script, ScriptedServer, saying

OL = 'VAR a ups.status "OL"\n'
OB = 'VAR a ups.status "OB"\n'
LONG_S = 60.0  # a deadline that no good test comes near


@asynccontextmanager
async def asking(*scripts: Script, reply_timeout_s: float = LONG_S) -> AsyncIterator[tuple[NutClient, ScriptedServer]]:
    async with ScriptedServer(*scripts) as server:
        client = NutClient(*server.address, reply_timeout_s=reply_timeout_s)
        try:
            yield client, server
        finally:
            await client.close()


async def fault(answer: Awaitable[object]) -> str:
    with pytest.raises(ProbeFault) as caught:
        await answer
    return caught.value.fault


async def until(is_so: Callable[[], bool]) -> None:
    async with asyncio.timeout(5):
        while not is_so():  # noqa: ASYNC110 (it polls)
            await asyncio.sleep(0.001)


async def test_one_connection_serves_many_questions():
    async with asking(saying(OL, OB, "BEGIN LIST VAR a\nEND LIST VAR a\n", OL)) as (client, server):
        assert await client.get_var("a", "ups.status") == "OL"
        assert await client.get_var("a", "ups.status") == "OB"
        assert await client.list_vars("a") == {}
        assert await client.get_var("a", "ups.status") == "OL"
        assert server.connections == 1
        assert server.questions[2] == "LIST VAR a"


async def test_late_answer_is_never_taken_for_the_answer_of_the_next_question():
    asked_again = asyncio.Event()

    async def late(connection: Connection) -> None:
        await connection.asked()
        await asked_again.wait()
        await connection.say(OB)

    async def prompt(connection: Connection) -> None:
        await connection.asked()
        asked_again.set()
        await connection.say(OL)

    async with asking(late, prompt, reply_timeout_s=0.2) as (client, server):
        assert await fault(client.get_var("a", "ups.status")) == "timed_out"
        assert await client.get_var("a", "ups.status") == "OL"
        assert server.connections == 2


async def test_second_answer_to_one_question_is_doubt():
    async with asking(saying(OL + OB), saying(OL)) as (client, server):
        assert await fault(client.get_var("a", "ups.status")) == "bad_reply"
        assert await client.get_var("a", "ups.status") == "OL"
        assert server.connections == 2


@pytest.mark.parametrize("loop_passes", [0, 3], ids=["still in the kernel", "already read"])
async def test_what_came_unasked_between_two_questions_ends_the_connection(loop_passes: int):
    unasked, sent = asyncio.Event(), asyncio.Event()

    async def talkative(connection: Connection) -> None:
        await connection.asked()
        await connection.say(OL)
        await unasked.wait()
        await connection.say(OB)
        sent.set()

    async with asking(talkative, saying(OL)) as (client, server):
        await client.get_var("a", "ups.status")
        unasked.set()
        await sent.wait()
        for _ in range(loop_passes):
            await asyncio.sleep(0)

        assert await client.get_var("a", "ups.status") == "OL"
        assert server.connections == 2


async def test_flood_between_two_questions_is_held_back():
    sent = 0
    answered = asyncio.Event()

    async def flood(connection: Connection) -> None:
        nonlocal sent
        await connection.asked()
        await connection.say(OL)
        await answered.wait()
        while True:
            await connection.say(b"x" * 65536)
            sent += 1

    async with asking(flood, saying(OB)) as (client, _):
        await client.get_var("a", "ups.status")
        answered.set()
        before = -1
        async with asyncio.timeout(5):
            while sent != before:
                before = sent
                await asyncio.sleep(0.05)

        assert await client.get_var("a", "ups.status") == "OB"


async def test_cancelled_question_leaves_no_answer_behind():
    asked = asyncio.Event()

    async def silent(connection: Connection) -> None:
        await connection.asked()
        asked.set()

    async with asking(silent, saying(OL)) as (client, server):
        question = asyncio.create_task(client.get_var("a", "ups.status"))
        await asked.wait()
        question.cancel()
        with suppress(asyncio.CancelledError):
            await question

        assert await client.get_var("a", "ups.status") == "OL"
        await until(lambda: server.ended == 1)


async def test_server_that_was_restarted_between_two_questions_is_asked_anew():
    async def once(connection: Connection) -> None:
        await connection.asked()
        await connection.say(OL)
        connection.close()

    async with asking(once, saying(OB)) as (client, server):
        assert await client.get_var("a", "ups.status") == "OL"
        await until(lambda: server.ended == 1)

        assert await client.get_var("a", "ups.status") == "OB"


@pytest.mark.parametrize(
    "answer",
    [
        'VAR b ups.status "OL"\n',  # wrong device
        'VAR a ups.load "OL"\n',  # the answer of another question
        'VAR a ups.status "OL" "OB"\n',
        "VAR a ups.status\n",
        'VAR a ups.status "OL\n',  # quote without end
        'VAR a ups.status OL"\n',
        'VAR a ups.status "OL"x\n',
        "VAR a ups.status O\\L\n",
        "OK\n",
        "\n",
        "ERR\n",
        "ERR VAR-NOT-SUPPORTED\n",
        "BEGIN LIST VAR a\n",
        "\x00\xff\n",
        b"\x16\x03\x01\x00\xa5\x01\n",  # a TLS record
        "HTTP/1.1 400 Bad Request\r\n",
    ],
)
async def test_answer_that_is_none_is_a_bad_reply(answer: str | bytes):
    async with asking(saying(answer)) as (client, _):
        assert await fault(client.get_var("a", "ups.status")) == "bad_reply"


@pytest.mark.parametrize(
    "answer",
    [
        OL,
        "BEGIN LIST VAR b\nEND LIST VAR b\n",
        "BEGIN LIST UPS\nEND LIST UPS\n",
        'BEGIN LIST VAR a\nVAR b ups.load "1"\nEND LIST VAR a\n',
        "BEGIN LIST VAR a\nEND LIST VAR b\n",
        'BEGIN LIST VAR a\nVAR a ups.load "1"\nVAR a ups.load "2"\nEND LIST VAR a\n',
        "BEGIN LIST VAR a\nERR DATA-STALE\n",
        "BEGIN LIST VAR a\nBEGIN LIST VAR a\n",
        "BEGIN LIST VAR a\nEND LIST VAR a\nEND LIST VAR a\n",
    ],
)
async def test_list_that_is_none_is_a_bad_reply(answer: str):
    async with asking(saying(answer)) as (client, _):
        assert await fault(client.list_vars("a")) == "bad_reply"


@pytest.mark.parametrize(
    ("code", "said"),
    [
        ("ACCESS-DENIED", "access_denied"),
        ("DATA-STALE", "data_stale"),
        ("DRIVER-NOT-CONNECTED", "driver_not_connected"),
        ("UNKNOWN-UPS", "unknown_ups"),
        ("UNKNOWN-COMMAND", "bad_reply"),
        ("TLS-NOT-ENABLED", "bad_reply"),
    ],
)
async def test_each_error_of_the_server_has_its_fault_and_keeps_the_connection(code: str, said: str):
    async with asking(saying(f"ERR {code}\n", f"ERR {code}\n", OL)) as (client, server):
        assert await fault(client.get_var("a", "ups.status")) == said
        assert await fault(client.list_vars("a")) == said
        assert await client.get_var("a", "ups.status") == "OL"
        assert server.connections == 1


async def test_list_without_end_times_out():
    async with asking(saying('BEGIN LIST VAR a\nVAR a ups.load "1"\n'), reply_timeout_s=0.2) as (client, _):
        assert await fault(client.list_vars("a")) == "timed_out"


async def test_one_byte_at_a_time_does_not_stretch_the_deadline():
    async def trickle(connection: Connection) -> None:
        await connection.asked()
        for character in 'VAR a ups.status "OL' + " " * 1000:
            await connection.say(character)
            await asyncio.sleep(0.01)

    async with asking(trickle, reply_timeout_s=0.2) as (client, server):
        assert await fault(client.get_var("a", "ups.status")) == "timed_out"
        await until(lambda: server.ended == 1)


async def test_line_without_end_is_cut_off():
    async def endless(connection: Connection) -> None:
        await connection.asked()
        while True:
            await connection.say(b"x" * 4096)

    async with asking(endless) as (client, server):
        assert await fault(client.get_var("a", "ups.status")) == "bad_reply"
        await until(lambda: server.ended == 1)


async def test_line_may_be_as_long_as_the_limit_and_no_longer():
    room = LINE_BYTES_MAX - len('VAR a x ""')

    async with asking(saying(*(f'VAR a x "{"y" * length}"\n' for length in (room, room + 1)))) as (client, _):
        assert len(await client.get_var("a", "x")) == room
        assert await fault(client.get_var("a", "x")) == "bad_reply"


async def test_list_of_a_million_rows_is_cut_off_early():
    sent = 0

    async def flood(connection: Connection) -> None:
        nonlocal sent
        await connection.asked()
        await connection.say("BEGIN LIST VAR a\n")
        for sent in range(1_000_000):
            await connection.say(f'VAR a v{sent} "{"x" * 100}"\n')

    async with asking(flood) as (client, server):
        assert await fault(client.list_vars("a")) == "bad_reply"
        await until(lambda: server.ended == 1)

    assert sent < 200_000  # what fits into the buffers of two kernels


async def test_list_as_long_as_the_limit_is_read_whole():
    rows = "".join(f'VAR a v{number} "{"x" * 100}"\n' for number in range(LIST_ROWS_MAX))

    async with asking(saying(f"BEGIN LIST VAR a\n{rows}END LIST VAR a\n")) as (client, _):
        assert len(await client.list_vars("a")) == LIST_ROWS_MAX


async def test_bytes_that_are_no_utf_8_are_replaced():
    async with asking(saying(b'VAR a ups.mfr "M\xfcller"\r\n')) as (client, _):
        assert await client.get_var("a", "ups.mfr") == "M\N{REPLACEMENT CHARACTER}ller"


async def test_connection_that_ends_in_the_middle_is_told_from_silence():
    async def half(connection: Connection) -> None:
        await connection.asked()
        await connection.say("VAR a ups.st")
        connection.close()

    async with asking(half) as (client, _):
        assert await fault(client.get_var("a", "ups.status")) == "closed"


async def test_closing_the_client_ends_a_question_under_way():
    asked = asyncio.Event()

    async def silent(connection: Connection) -> None:
        await connection.asked()
        asked.set()

    async with asking(silent) as (client, _):
        question = asyncio.create_task(client.get_var("a", "ups.status"))
        await asked.wait()
        await client.close()

        assert await fault(question) == "closed"


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
async def test_refused_connection_is_said_to_be_refused(host: str):
    with socket.create_server(("127.0.0.1", 0)) as listening:
        port = listening.getsockname()[1]

    assert await fault(NutClient(host, port).get_var("a", "ups.status")) == "refused"


async def test_connection_that_is_not_taken_times_out_by_its_own_deadline():
    with socket.socket() as listening, socket.socket() as first:
        listening.bind(("127.0.0.1", 0))
        listening.listen(0)
        first.connect(listening.getsockname())  # fills the queue: the kernel drops what comes after it
        host, port = listening.getsockname()
        client = NutClient(host, port, connect_timeout_s=0.2, reply_timeout_s=LONG_S)

        with pytest.raises(ProbeFault, match=r"timed_out: no connection within 0\.2 s"):
            await client.get_var("a", "ups.status")


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (None, "closed"),
        (OSError(errno.ENETUNREACH, ""), "unreachable"),
        (OSError(errno.EHOSTUNREACH, ""), "unreachable"),
        (OSError(errno.ECONNRESET, ""), "closed"),
        (OSError(errno.EPIPE, ""), "closed"),
        (OSError(errno.ECONNREFUSED, ""), "refused"),
        (OSError(errno.ETIMEDOUT, ""), "timed_out"),
        (OSError(errno.EMFILE, ""), "failed"),
        (socket.gaierror(socket.EAI_NONAME, ""), "failed"),
    ],
)
def test_each_end_of_a_connection_has_its_fault(error: OSError | None, said: str):
    assert fault_of(error) == said
    assert said in FAULTS


async def test_name_that_would_smuggle_a_second_line_is_never_sent():
    async with asking(saying(OL)) as (client, server):
        with pytest.raises(ValueError, match="control character"):
            await client.get_var("a\nFSD a", "ups.status")

        assert server.questions == []


@given(st.lists(st.text(st.characters(min_codepoint=32, exclude_categories=("Cs", "Cc")))))
def test_what_is_quoted_is_split_into_the_same_words(words: list[str]):
    assert split(" ".join(quoted(word) for word in words)) == words


@given(st.text())
def test_splitting_any_line_ends_in_words_or_a_value_error(line: str):
    with suppress(ValueError):
        assert all(isinstance(word, str) for word in split(line))


@given(st.text())
def test_what_is_shown_prints_and_is_short(text: str):
    assert shown(text, 20).isprintable()
    assert len(shown(text, 20)) <= 20
