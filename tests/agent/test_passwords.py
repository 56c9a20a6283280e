"""Lines of a password file: made by the command, read by the agent, refused without being shown."""

from __future__ import annotations

import pytest
from click.testing import CliRunner

from agent import passwords
from agent.cli import main
from agent.passwords import PasswordFileError

USER, PASSWORD = "prometheus", "correct horse battery"


def test_the_command_makes_a_line_that_the_agent_reads():
    result = CliRunner().invoke(main, ["password", USER], input=f"{PASSWORD}\n")

    assert result.exit_code == 0
    (kept,) = passwords.parsed(result.stdout).values()
    assert result.stdout.startswith(f"{USER}:scrypt$16384$8$1$")
    assert kept.matches(PASSWORD)
    assert not kept.matches(PASSWORD + " ")
    assert PASSWORD not in result.output


def test_two_lines_of_one_password_differ():
    assert passwords.line(USER, PASSWORD) != passwords.line(USER, PASSWORD)


@pytest.mark.parametrize(
    ("user", "word", "code", "why"),
    [
        ("a:b", PASSWORD, 2, "USER has letters"),
        (USER, "short", 1, "at least 12 characters"),
        (USER, "", 1, "at least 12"),
    ],
)
def test_the_command_refuses_what_the_agent_would_not_take(user, word, code, why):
    result = CliRunner().invoke(main, ["password", user], input=f"{word}\n")

    assert (result.exit_code, result.stdout) == (code, "")
    assert why in result.stderr


SALT, DIGEST = "AAAAAAAAAAAAAAAAAAAAAA==", "A" * 43 + "="


@pytest.mark.parametrize(
    ("line", "why"),
    [
        ("", "it names no user"),
        ("prometheus", "line 2: must be USER:HASH"),
        (f"a b:scrypt$16384$8$1${SALT}${DIGEST}", "line 2: must be USER:HASH"),
        (f"u:bcrypt$16384$8$1${SALT}${DIGEST}", "line 2: the hash must be"),
        (f"u:scrypt$1024$8$1${SALT}${DIGEST}", "line 2: the hash must be"),
        (f"u:scrypt$16385$8$1${SALT}${DIGEST}", "line 2: the hash must be"),
        (f"u:scrypt$1048576$8$1${SALT}${DIGEST}", "line 2: the hash must be"),
        (f"u:scrypt$16384$8$9${SALT}${DIGEST}", "line 2: the hash must be"),
        (f"u:scrypt$16384$8$1$AAAA${DIGEST}", "line 2: the hash must be"),
        (f"u:scrypt$16384$8$1${SALT}$AAAA", "line 2: the hash must be"),
        (f"u:scrypt$16384$8$1$!!${DIGEST}", "line 2: the hash must be"),
        (f"u:scrypt$x$8$1${SALT}${DIGEST}", "line 2: the hash must be"),
        (f"u:scrypt$16384$8$1${SALT}${DIGEST}\nu:scrypt$16384$8$1${SALT}${DIGEST}", "line 3: u stands there twice"),
    ],
)
def test_a_wrong_line_is_told_by_its_number_and_never_shown(line: str, why: str):
    with pytest.raises(PasswordFileError) as caught:
        passwords.parsed(f"# passwords\n{line}\n")

    told = str(caught.value)
    assert told.startswith(why)
    assert SALT not in told
    assert DIGEST not in told


def test_costs_within_the_limits_are_taken():
    text = "\n".join(f"u{cost}:scrypt${cost}$8$1${SALT}${DIGEST}" for cost in (2**14, 2**15, 2**16))

    assert [kept.cost for kept in passwords.parsed(text).values()] == [2**14, 2**15, 2**16]
    assert all(not kept.matches(PASSWORD) for kept in passwords.parsed(text).values())
