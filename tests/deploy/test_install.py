"""The archive for a branch: installed, upgraded, returned from and removed, as root, with no network at all."""

from __future__ import annotations

import shutil
import stat
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.deploy.branch_machine import Archives, Machine

DEPLOY = Path(__file__).resolve().parents[2] / "deploy"
REFUSES_EVERY_SITE = {
    "agent/config.py": """
def load(path, probes, actions):
    from agent.errors import Problem
    raise ConfigError(str(path), (Problem(1, 1, "site", "this release wants something else"),))
"""
}
FALLS_AT_ITS_START = {
    "agent/app.py": """
def run(*_, **__):
    raise OSError("this release cannot run")
"""
}
FULL_DISK_INCIDENT = """\
alarms:
  this-host.disk_full:
    yellow: {enter: 0%, leave: 0%, on_delay: 0s}
"""


@pytest.fixture(scope="module")
def archives(tmp_path_factory: pytest.TempPathFactory) -> Archives:
    return Archives.make(tmp_path_factory.mktemp("archives"))


def machine(*, has_manager: bool) -> Iterator[Machine]:
    with tempfile.TemporaryDirectory(prefix="branch-") as folder:
        made = Machine(Path(folder), has_manager=has_manager)
        try:
            yield made
        finally:
            made.close()


@pytest.fixture
def bare_machine() -> Iterator[Machine]:
    """A machine on which no systemd runs, and nothing is installed."""
    yield from machine(has_manager=False)


@pytest.fixture(scope="module")
def branch(archives: Archives) -> Iterator[Machine]:
    """A machine on which this release runs; each test leaves it so."""
    for made in machine(has_manager=True):
        made.write_site()
        ended = made.install(archives.now)
        assert ended.returncode == 0, ended.stdout
        yield made


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_the_script_has_no_fault_that_a_reader_of_shell_would_see():
    ended = subprocess.run(("shellcheck", DEPLOY / "install.sh"), check=False, capture_output=True, text=True)

    assert ended.returncode == 0, ended.stdout


def test_a_fresh_install_needs_no_network_and_a_removal_keeps_what_is_the_branchs_own(archives, bare_machine):
    root = bare_machine.root

    fresh = bare_machine.install(archives.now)

    assert fresh.returncode == 0, fresh.stdout
    assert "changeover init" in fresh.stdout
    assert bare_machine.changeover("--version").strip() == f"changeover {archives.version}"
    # Everything that the program needs was in the archive.
    checked = bare_machine.run(root / "opt/changeover/current/bin/python", archives.wheel("pip") / "pip", "check")
    assert checked.returncode == 0, checked.stdout

    bare_machine.write_site()
    site = bare_machine.site.read_text()
    (bare_machine.state / "journal.db").write_text("remembered")
    removed = bare_machine.installed("--remove")

    assert removed.returncode == 0, removed.stdout
    assert "kept: /etc/changeover" in removed.stdout
    assert bare_machine.site.read_text() == site
    assert (bare_machine.state / "journal.db").read_text() == "remembered"
    assert set(root.rglob("*changeover*")) == {bare_machine.site.parent, bare_machine.state}

    purged = bare_machine.run(archives.now / "install.sh", "--root", root, "--purge")

    assert purged.returncode == 0, purged.stdout
    assert set(root.rglob("*changeover*")) == set()
    assert "changeover" not in (root / "etc/passwd").read_text()


def test_what_is_installed_has_the_rights_that_it_needs_and_no_more(branch):
    root = branch.root
    user = next(
        line.split(":") for line in (root / "etc/passwd").read_text().splitlines() if line.startswith("changeover:")
    )
    assert (branch.site.stat().st_uid, branch.site.stat().st_gid) == (0, int(user[3]))
    assert branch.state.stat().st_uid == int(user[2])
    assert [mode(path) for path in (branch.site.parent, branch.site)] == [0o750, 0o640]
    assert [mode(path) for path in (branch.site.parent / "credentials", branch.state)] == [0o700, 0o700]
    for place, source in (
        ("systemd/system/changeover.service", "systemd/changeover.service"),
        ("sysusers.d/changeover.conf", "systemd/changeover.sysusers"),
        ("tmpfiles.d/changeover.conf", "systemd/changeover.tmpfiles"),
        ("sysctl.d/60-changeover.conf", "sysctl.d/60-changeover.conf"),
    ):
        assert (root / "usr/lib" / place).read_text() == (DEPLOY / source).read_text()


def test_a_damaged_archive_installs_nothing(archives, bare_machine, tmp_path):
    damaged = shutil.copytree(archives.now, tmp_path / "damaged")
    with (damaged / "config.example.yaml").open("a", encoding="utf-8") as file:
        file.write("\n")

    ended = bare_machine.install(damaged)

    assert ended.returncode == 1
    assert "the archive is damaged" in ended.stdout
    assert bare_machine.release("current") is None


def test_an_install_starts_the_agent_and_watches_it(archives, branch):
    assert branch.status()["agent"]["running"] is True
    assert branch.running_version() == archives.version


def test_a_second_install_of_the_same_changes_nothing(archives, branch):
    process = branch.process()

    ended = branch.install(archives.now)

    assert ended.returncode == 0, ended.stdout
    assert "installed already" in ended.stdout
    assert branch.process() == process


def test_a_release_that_refuses_the_site_file_never_takes_over(archives, branch):
    process = branch.process()
    before = branch.release("previous")

    ended = branch.install(archives.other("0.9.1", REFUSES_EVERY_SITE))

    assert ended.returncode == 1
    assert "this release wants something else" in ended.stdout
    assert branch.process() == process
    assert (branch.release("current"), branch.release("previous")) == (archives.version, before)
    assert "0.9.1" not in branch.releases()


def test_a_release_that_does_not_run_gives_way_to_the_last_good_one(archives, branch):
    before = branch.release("previous")

    ended = branch.install(archives.other("0.9.2", FALLS_AT_ITS_START))

    assert ended.returncode == 1
    assert "release 0.9.2 does not run well" in ended.stdout
    assert f"release {archives.version} is back, and runs" in ended.stdout
    assert branch.running_version() == archives.version
    assert (branch.release("current"), branch.release("previous")) == (archives.version, before)
    assert "0.9.2" not in branch.releases()


def test_an_upgrade_takes_over_with_state_and_site_file_and_can_be_rolled_back(archives, branch):
    site = branch.site.read_text()
    remembered = branch.status()["journal"]["last_sequence"]

    upgraded = branch.install(archives.other("0.9.3"))

    assert upgraded.returncode == 0, upgraded.stdout
    assert branch.running_version() == "0.9.3"
    assert branch.status()["journal"]["last_sequence"] > remembered
    assert branch.site.read_text() == site
    assert (branch.release("current"), branch.release("previous")) == ("0.9.3", archives.version)

    returned = branch.installed("--rollback")

    assert returned.returncode == 0, returned.stdout
    assert branch.running_version() == archives.version
    assert (branch.release("current"), branch.release("previous")) == (archives.version, "0.9.3")


def test_nothing_is_upgraded_while_an_incident_is_open(archives, branch):
    branch.write_site(FULL_DISK_INCIDENT)
    try:
        branch.run("systemctl", "restart")
        branch.wait(lambda status: status["incidents"])

        ended = branch.install(archives.other("0.9.4"))

        assert ended.returncode == 1
        assert "an incident is open" in ended.stdout
        assert branch.running_version() == archives.version
    finally:
        branch.write_site()
        branch.run("systemctl", "restart")


@pytest.mark.parametrize("words", [("--watch", "soon"), ("--watch",), ("--upgrade",)])
def test_a_wrong_word_changes_nothing(archives, bare_machine, words):
    ended = bare_machine.run(archives.now / "install.sh", "--root", bare_machine.root, *words)

    assert ended.returncode in (1, 2)
    assert not (bare_machine.root / "opt").exists()
