"""The unit and the files beside it: right in systemd's eyes, tight, and in step with the program."""

from __future__ import annotations

import configparser
import re
import subprocess
import sys
from pathlib import Path

import pytest

from agent.config import ServerConfig

DEPLOY = Path(__file__).resolve().parents[2] / "deploy"
UNIT = DEPLOY / "systemd" / "changeover.service"
EXPOSURE_TENTHS_MAX = 20  # 15 once the executor is a process of its own
TIMEOUT_S = 30.0
SETTERS = ("/usr/lib/systemd/systemd-sysctl", "/lib/systemd/systemd-sysctl")


def run(*command: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, check=False, capture_output=True, text=True, timeout=TIMEOUT_S)


def said(unit: Path) -> dict[str, list[str]]:
    """Return every setting of *unit* with its values, in order."""
    found: dict[str, list[str]] = {}
    for line in unit.read_text(encoding="utf-8").splitlines():
        key, equals, value = line.partition("=")
        if equals and not line.startswith("#"):
            found.setdefault(key, []).append(value)
    return found


def verified(tmp_path: Path, text: str) -> str:
    """Return what systemd has against a unit of this *text*, whose program is taken to be installed."""
    unit = tmp_path / "changeover.service"
    unit.write_text(text.replace("/opt/changeover/current/bin/changeover", sys.executable), encoding="utf-8")
    ended = run("systemd-analyze", "verify", "--man=no", "--recursive-errors=no", unit)
    return ended.stdout + ended.stderr + ("" if ended.returncode == 0 else f"exit code {ended.returncode}")


def test_systemd_has_nothing_against_the_unit(tmp_path):
    assert verified(tmp_path, UNIT.read_text(encoding="utf-8")) == ""


@pytest.mark.parametrize(
    ("right", "wrong"),
    [("Type=notify", "Type=notified"), ("WatchdogSec=30", "WatchdogSecs=30"), ("/bin/sh", "/bin/shh")],
)
def test_systemd_would_tell_of_a_mistake_in_the_unit(tmp_path, right, wrong):
    assert verified(tmp_path, UNIT.read_text(encoding="utf-8").replace(right, wrong)) != ""


def test_the_unit_is_as_tight_as_promised():
    ended = run(
        *("systemd-analyze", "security", "--offline=true", f"--threshold={EXPOSURE_TENTHS_MAX}", "--no-pager"), UNIT
    )

    assert ended.returncode == 0, ended.stdout + ended.stderr


def test_the_unit_is_watched_and_started_again_for_as_long_as_it_takes():
    unit = said(UNIT)

    assert unit["Type"] == ["notify"]
    assert unit["WatchdogSec"] == ["30"]
    assert unit["Restart"] == ["always"]
    assert unit["StartLimitIntervalSec"] == ["0"]


def test_a_mistake_in_the_site_file_does_not_restart_for_ever():
    from agent.app import EXIT_CONFIG

    assert said(UNIT)["RestartPreventExitStatus"] == [str(EXIT_CONFIG)]


def test_the_unit_hides_neither_who_speaks_to_the_agent_nor_what_it_measures():
    unit = said(UNIT)

    assert "PrivateUsers" not in unit
    assert "ProcSubset" not in unit
    assert unit["ProtectHome"] == ["read-only"]


def test_the_unit_makes_the_directories_that_the_program_uses():
    unit = said(UNIT)

    assert f"/run/{unit['RuntimeDirectory'][0]}/control.sock" == str(ServerConfig().socket)
    assert unit["ExecStart"] == ["/opt/changeover/current/bin/changeover run -c /etc/changeover/site.yaml"]
    assert unit["StateDirectory"] == ["changeover"]


def test_the_console_script_of_the_unit_is_the_one_that_is_installed():
    settings = configparser.ConfigParser()
    settings.read(DEPLOY.parent / "setup.cfg", encoding="utf-8")

    scripts = settings["options.entry_points"]["console_scripts"]

    assert Path(said(UNIT)["ExecStart"][0].split()[0]).name == scripts.split("=")[0].strip()


def test_the_user_of_the_unit_is_the_one_that_is_made(tmp_path):
    (tmp_path / "etc").mkdir()

    made = run("systemd-sysusers", f"--root={tmp_path}", DEPLOY / "systemd" / "changeover.sysusers")

    assert made.returncode == 0, made.stderr
    users = re.findall(r"^(\w+):", (tmp_path / "etc" / "passwd").read_text(encoding="utf-8"), re.MULTILINE)
    groups = re.findall(r"^(\w+):", (tmp_path / "etc" / "group").read_text(encoding="utf-8"), re.MULTILINE)
    assert users == said(UNIT)["User"]
    assert set(said(UNIT)["Group"]) <= set(groups)


def test_the_kernel_takes_every_setting():
    """In a network namespace of its own: the settings of the machine stay as they are."""
    file = DEPLOY / "sysctl.d" / "60-changeover.conf"
    setter = next(path for path in SETTERS if Path(path).exists())
    wanted = dict(re.findall(r"^([\w.]+) = (.+)$", file.read_text(encoding="utf-8"), re.MULTILINE))
    places = [f"/proc/sys/{key.replace('.', '/')}" for key in wanted]

    ended = run("unshare", "--net", "sh", "-ec", '"$0" "$1"; shift; cat "$@"', setter, file, *places)

    assert ended.returncode == 0, ended.stderr
    assert len(wanted) == 2
    assert [line.split() for line in ended.stdout.splitlines()] == [value.split() for value in wanted.values()]
