"""
Makes the one archive that a branch is installed from: `tools/pack.py FOLDER` writes it into FOLDER.

It holds wheels of the program and of all that it needs, as pinned and hashed in constraints-run.txt, pip to install them,
units, settings, docs and install.sh. It fits the Python and the machine that it is made with, which its name says.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import platform
import shutil
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).resolve().parent.parent
PACKAGES: Final = ("agent", "probes", "runbooks", "drills")
BUILD_FILES: Final = ("setup.cfg", "pyproject.toml", "README.md", "LICENSE")
PLAIN_PARTS: Final = ("LICENSE", "README.md", "README.zh-CN.md", "config.example.yaml", "docs", "deploy")
PYTHON: Final = f"{sys.version_info.major}.{sys.version_info.minor}"
NOT_AT_A_BRANCH: Final = ("setuptools-*.whl",)  # builds wheels, and there they are built
NOT_IN_A_RELEASE: Final = "pip"  # installs the others
FIRST_ZIP_SECOND: Final = 315_532_800  # 1980-01-01: a wheel cannot be older


def pip(*arguments: str | Path) -> None:
    """Run pip; end the program with what it said when it fails."""
    command = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check", *map(str, arguments)]
    ended = subprocess.run(command, check=False, stdin=subprocess.DEVNULL, capture_output=True, text=True)
    if ended.returncode != 0:
        sys.exit(f"{' '.join(command)}\n{ended.stdout}{ended.stderr}")


def copy_source(folder: Path) -> None:
    """Copy what the program's wheel is made of, so that building leaves nothing in the tree."""
    for package in PACKAGES:
        shutil.copytree(ROOT / package, folder / package, ignore=shutil.ignore_patterns("__pycache__"))
    for file in BUILD_FILES:
        shutil.copy(ROOT / file, folder)


def make_program_wheel(source: Path, wheels: Path) -> str:
    """Build the program's wheel from *source* into *wheels*; return its version."""
    pip("wheel", "--no-deps", "--no-build-isolation", "--no-index", "--wheel-dir", wheels, source)
    (wheel,) = wheels.glob("changeover-*.whl")
    return wheel.name.split("-")[1]


def fetch_dependencies(wheels: Path) -> None:
    """Bring the pinned wheels into *wheels*; each is what its hash says."""
    locked = ROOT / "constraints-run.txt"
    pip("download", "--require-hashes", "--only-binary", ":all:", "--dest", wheels, "--requirement", locked)
    for pattern in NOT_AT_A_BRANCH:
        for wheel in wheels.glob(pattern):
            wheel.unlink()


def seal(folder: Path) -> None:
    """Write into an archive's *folder* which wheels are installed, and the hash of every file, in the end of all."""
    lines = []
    for wheel in sorted((folder / "wheels").glob("*.whl")):
        name, version = wheel.name.split("-")[:2]
        if name != NOT_IN_A_RELEASE:
            lines.append(f"{name}=={version} --hash=sha256:{digest(wheel)}\n")
    (folder / "wheels" / "requirements.txt").write_text("".join(lines), encoding="utf-8")
    sums = folder / "SHA256SUMS"
    sums.unlink(missing_ok=True)
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    sums.write_text(
        "".join(f"{digest(path)}  {path.relative_to(folder).as_posix()}\n" for path in files), encoding="utf-8"
    )


def digest(path: Path) -> str:
    """Return the SHA-256 of a file."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def fill(folder: Path, version: str) -> None:
    """Put into an archive's *folder* all but the wheels."""
    for part in PLAIN_PARTS:
        source = ROOT / part
        if source.is_dir():
            shutil.copytree(source, folder / part, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(source, folder)
    (folder / "deploy" / "install.sh").rename(folder / "install.sh")
    for name, word in (("VERSION", version), ("PYTHON", PYTHON), ("MACHINE", platform.machine())):
        (folder / name).write_text(f"{word}\n", encoding="utf-8")


def write_archive(folder: Path, archive: Path, second: int) -> None:
    """Write *folder* as *archive*, byte for byte the same for the same content."""

    def plain(entry: tarfile.TarInfo) -> tarfile.TarInfo:
        entry.uid = entry.gid = 0
        entry.uname = entry.gname = "root"
        entry.mtime = second
        entry.mode = 0o755 if entry.isdir() or entry.mode & 0o100 else 0o644
        return entry

    bare = archive.with_suffix("")  # .tar
    with tarfile.open(bare, "w", format=tarfile.GNU_FORMAT) as tar:
        tar.add(folder, folder.name, recursive=False, filter=plain)
        for path in sorted(folder.rglob("*")):
            tar.add(path, path.relative_to(folder.parent), recursive=False, filter=plain)
    subprocess.run(("gzip", "--no-name", "--force", str(bare)), check=True)


def build_second() -> int:
    """Return the time that everything in the archive carries: of the commit, or as SOURCE_DATE_EPOCH says."""
    told = os.environ.get("SOURCE_DATE_EPOCH", "")
    if not told:
        command = ("git", "-c", "safe.directory=*", "-C", str(ROOT), "log", "-1", "--format=%ct")
        told = subprocess.run(command, check=False, stdin=subprocess.DEVNULL, capture_output=True, text=True).stdout
    return max(int(told or 0), FIRST_ZIP_SECOND)


def pack(output: Path) -> Path:
    """Make the archive in *output* and return its path."""
    second = build_second()
    os.environ["SOURCE_DATE_EPOCH"] = str(second)
    with tempfile.TemporaryDirectory(prefix="changeover-pack-") as work:
        source, wheels = Path(work, "source"), Path(work, "wheels")
        source.mkdir()
        copy_source(source)
        version = make_program_wheel(source, wheels)
        fetch_dependencies(wheels)
        folder = Path(work, f"changeover-{version}")
        folder.mkdir()
        wheels.rename(folder / "wheels")
        fill(folder, version)
        seal(folder)
        output.mkdir(parents=True, exist_ok=True)
        archive = output / f"changeover-{version}-linux-{platform.machine()}-py{PYTHON}.tar.gz"
        write_archive(folder, archive, second)
    return archive


def main() -> None:
    """Make the archive and say where it is."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n\n")[0].strip())
    parser.add_argument("folder", type=Path, help="where the archive is written")
    print(pack(parser.parse_args().folder))


if __name__ == "__main__":
    main()
