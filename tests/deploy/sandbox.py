"""
The sandbox of a unit without systemd: `sandbox.py UNIT DIRECTORY COMMAND...` runs a command in it. Needs root.

Taken from the unit: capabilities, system calls, address families, and what forbids namespaces and writable code. In its
way: another user, a file system of which only DIRECTORY can be written, and other people's processes hidden. Left out:
private devices, what is used up, and who may read: CAP_DAC_READ_SEARCH is added, as the tree may lie in somebody's home.
Source: systemd.exec(5), and systemd's seccomp-util.c for the rules that are not named call by call.
"""

from __future__ import annotations

import ctypes
import errno
import os
import re
import subprocess
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Final

USER: Final = 64_917  # nobody's
ALLOW: Final = 0x7FFF_0000
ERRNO: Final = 0x0005_0000
EQUAL, MASKED_EQUAL = 4, 7  # SCMP_CMP_EQ, SCMP_CMP_MASKED_EQ
WRITE, EXECUTE, SHM_EXEC = 2, 4, 0o100_000
NAMESPACES: Final = 0x7E02_0080  # cgroup, uts, ipc, user, pid, net, mount, time
FAMILIES: Final = {"AF_UNIX": 1, "AF_INET": 2, "AF_INET6": 10, "AF_NETLINK": 16}
FAMILY_MAX: Final = 46
MOUNT_SETATTR: Final = 442  # the same number on every architecture
HERE, RECURSIVE = -100, 0x8000  # AT_FDCWD, AT_RECURSIVE
READ_ONLY, NOT_EXECUTABLE = 1, 8
NEW_MOUNTS, PRIVATE, BIND, SUBTREE = 0x2_0000, 0x4_0000, 0x1000, 0x4000

libc = ctypes.CDLL(None, use_errno=True)


def setting(unit: Path, key: str) -> list[str]:
    """Return the values of *key* in *unit*, in order."""
    return re.findall(rf"^{key}=(.*)$", unit.read_text(encoding="utf-8"), re.MULTILINE)


def checked(result: int, what: str) -> None:
    """Raise OSError when a call of the C library has failed."""
    if result < 0:
        raise OSError(ctypes.get_errno(), f"{what}: {os.strerror(ctypes.get_errno())}")


# ---------------------------------------------------------------- files


class MountAttributes(ctypes.Structure):
    """struct mount_attr."""

    _fields_ = [(name, ctypes.c_uint64) for name in ("attr_set", "attr_clr", "propagation", "userns_fd")]


def set_mount(path: str, attributes: MountAttributes, flags: int = 0) -> None:
    """Change the mount at *path*."""
    size = ctypes.sizeof(attributes)
    result = libc.syscall(MOUNT_SETATTR, HERE, path.encode(), flags, ctypes.byref(attributes), size)
    checked(result, f"mount_setattr {path}")


def close_files(directory: str) -> None:
    """Let nothing but *directory* be written, nothing in it be run, and no other user's process be seen."""
    checked(libc.unshare(NEW_MOUNTS), "unshare")
    checked(libc.mount(None, b"/", None, PRIVATE | SUBTREE, None), "private mounts")
    checked(libc.mount(b"proc", b"/proc", b"proc", 0, b"hidepid=invisible"), "/proc")
    checked(libc.mount(directory.encode(), directory.encode(), None, BIND, None), f"bind {directory}")
    set_mount("/", MountAttributes(attr_set=READ_ONLY), RECURSIVE)
    set_mount(directory, MountAttributes(attr_set=NOT_EXECUTABLE, attr_clr=READ_ONLY))


# ---------------------------------------------------------------- system calls


class Comparison(ctypes.Structure):
    """struct scmp_arg_cmp."""

    _fields_ = [("arg", ctypes.c_uint), ("op", ctypes.c_int), ("a", ctypes.c_uint64), ("b", ctypes.c_uint64)]


class Filter:
    """A seccomp filter that answers every call with *usual* unless a rule says otherwise."""

    def __init__(self, usual: int) -> None:
        self._library = ctypes.CDLL("libseccomp.so.2", use_errno=True)
        self._library.seccomp_init.restype = ctypes.c_void_p
        self._usual = usual
        self._context = ctypes.c_void_p(self._library.seccomp_init(ctypes.c_uint32(usual)))

    def add(self, action: int, call: str, *comparisons: Comparison) -> None:
        """Answer *call* with *action* where all *comparisons* hold; a call that this machine does not have is left out."""
        number = self._library.seccomp_syscall_resolve_name(call.encode())
        if number < 0 or action == self._usual:
            return
        array = (Comparison * max(1, len(comparisons)))(*comparisons)
        result = self._library.seccomp_rule_add_array(
            self._context, ctypes.c_uint32(action), number, len(comparisons), array
        )
        if result < 0:
            raise OSError(-result, f"seccomp rule for {call}")

    def load(self) -> None:
        """Put it into force, for this process and all that come of it."""
        result = self._library.seccomp_load(self._context)
        if result < 0:
            raise OSError(-result, "seccomp filter")


def members(group: str) -> Iterator[str]:
    """Give the calls of one of systemd's groups, groups within it included."""
    said = subprocess.run(
        ("systemd-analyze", "syscall-filter", "--no-pager", group), check=True, capture_output=True, text=True
    ).stdout
    for word in said.split("\n"):
        entry = word.strip()
        if entry.startswith("@") and entry != group:
            yield from members(entry)
        elif entry and not entry.startswith(("#", "@")):
            yield entry


def calls(words: Iterable[str]) -> set[str]:
    """Return the calls that *words*, names and groups, stand for."""
    return {call for word in words for call in (members(word) if word.startswith("@") else (word,))}


def allowed_calls(unit: Path) -> set[str]:
    """Return what SystemCallFilter leaves: what systemd always allows, and the unit's lines one after the other."""
    found = calls(["@default"])
    for line in setting(unit, "SystemCallFilter"):
        if line.startswith("~"):
            found -= calls(line[1:].split())
        else:
            found |= calls(line.split())
    return found


def list_of_calls(unit: Path) -> Filter:
    """Return SystemCallFilter."""
    made = Filter(ERRNO | errno.EPERM)
    for call in sorted(allowed_calls(unit)):
        made.add(ALLOW, call)
    return made


def rules_on_arguments(unit: Path) -> Filter:
    """Return MemoryDenyWriteExecute, RestrictNamespaces and RestrictAddressFamilies, which the unit must have."""
    made = Filter(ALLOW)
    denied = ERRNO | errno.EPERM
    if setting(unit, "MemoryDenyWriteExecute") == ["yes"]:
        made.add(denied, "mmap", Comparison(2, MASKED_EQUAL, WRITE | EXECUTE, WRITE | EXECUTE))
        for call in ("mprotect", "pkey_mprotect"):
            made.add(denied, call, Comparison(2, MASKED_EQUAL, EXECUTE, EXECUTE))
        made.add(denied, "shmat", Comparison(2, MASKED_EQUAL, SHM_EXEC, SHM_EXEC))
    if setting(unit, "RestrictNamespaces") == ["yes"]:
        made.add(denied, "setns")
        made.add(ERRNO | errno.ENOSYS, "clone3")
        for bit in range(NAMESPACES.bit_length()):
            if NAMESPACES & 1 << bit:
                made.add(denied, "unshare", Comparison(0, MASKED_EQUAL, 1 << bit, 1 << bit))
                made.add(denied, "clone", Comparison(0, MASKED_EQUAL, 1 << bit, 1 << bit))
    allowed = {FAMILIES[word] for line in setting(unit, "RestrictAddressFamilies") for word in line.split()}
    for family in set(range(FAMILY_MAX)) - allowed:
        made.add(ERRNO | errno.EAFNOSUPPORT, "socket", Comparison(0, EQUAL, family, 0))
    return made


# ---------------------------------------------------------------- the two halves, before and behind the change of user


def as_root(unit: Path, directory: str, command: list[str]) -> None:
    """Close the files, and go on as the user with the unit's capabilities."""
    words = [
        word.lower().removeprefix("cap_") for line in setting(unit, "AmbientCapabilities") for word in line.split()
    ]
    rights = ",".join(["-all", *(f"+{word}" for word in (*words, "dac_read_search"))])
    inner = (sys.executable, __file__, "--inner", str(unit), *command)
    os.chown(directory, USER, USER)
    close_files(directory)
    setpriv = ("setpriv", f"--reuid={USER}", f"--regid={USER}", "--clear-groups", "--no-new-privs")
    limits = (f"--inh-caps={rights}", f"--ambient-caps={rights}", f"--bounding-set={rights}")
    os.execvp("setpriv", (*setpriv, *limits, *inner))  # noqa: S606


def as_user(unit: Path, command: list[str]) -> None:
    """Put the filters into force, and become *command*."""
    os.umask(int(setting(unit, "UMask")[0], 8))
    filters = (rules_on_arguments(unit), list_of_calls(unit))
    for one in filters:
        one.load()
    os.execv(command[0], command)  # noqa: S606


if __name__ == "__main__":
    if sys.argv[1] == "--inner":
        as_user(Path(sys.argv[2]), sys.argv[3:])
    else:
        as_root(Path(sys.argv[1]), sys.argv[2], sys.argv[3:])
