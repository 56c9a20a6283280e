"""
The journal on damaged, full and failing disks: what was durable is there, or the journal is known to be broken.

Damage is done to copies of real files, byte by byte; the strides keep the run short and are odd, so that every kind of
field is met.
"""

from __future__ import annotations

import os
import resource
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from pathlib import Path

import pytest

from agent.errors import JournalBroken
from agent.runtime.journal import Journal, open_journal, set_aside, verify
from agent.runtime.journal_chain import link
from agent.runtime.journal_head import FILE_SIZE, SLOT_AT, SLOT_SIZE, HeadWriter
from tests.fakes.journals import MARK, SMALL, body, copied, flip, segmented, until, write, written

RECORDS = 100
BODIES = tuple(body(number) for number in range(1, RECORDS + 1))


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the directory of a closed journal of a hundred records."""
    return written(tmp_path_factory.mktemp("sound") / "journal", RECORDS)


@pytest.fixture(scope="module")
def live(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Return the directory of a hundred records that all lie in the log still, as after a power cut."""
    base = tmp_path_factory.mktemp("live")
    (base / "running").mkdir()
    store = write(base / "running", BODIES, group=5)
    yield copied(base / "running", base / "cut")
    store.close()


def alter(directory: Path, statement: str, values: Sequence[object] = ()) -> None:
    """Change the database behind the journal's back."""
    with closing(sqlite3.connect(directory / "journal.db", isolation_level=None)) as connection:
        connection.execute(statement, values)


def assert_broken(directory: Path) -> JournalBroken:
    """Assert that the journal does not open, twice, and that trying changed nothing; return why."""
    files = {file.name: file.read_bytes() for file in directory.glob("journal.*") if not file.name.endswith("-shm")}
    for _ in range(2):
        with pytest.raises(JournalBroken) as caught:
            open_journal(directory, SMALL)
    after = {file.name: file.read_bytes() for file in directory.glob("journal.*") if not file.name.endswith("-shm")}
    assert after == files
    return caught.value


# ---------------------------------------------------------------- one flipped byte


def test_a_flipped_byte_in_any_body_or_digest_is_found_and_breaks_the_journal(sound: Path, tmp_path: Path) -> None:
    raw = (sound / "journal.db").read_bytes()
    copy = copied(sound, tmp_path / "copy")
    with closing(sqlite3.connect(f"file:{sound}/journal.db?mode=ro", uri=True)) as connection:
        parts = [part for row in connection.execute("SELECT CAST(body AS BLOB), digest FROM entries") for part in row]
    assert len(parts) == 2 * RECORDS
    for number, part in enumerate(parts):
        start = raw.index(part)
        for position in range(start + number % 5, start + len(part), 13):
            flip(copy / "journal.db", position, 1 << (position % 8))
            assert verify(copy).problems, f"byte {position}"
            with pytest.raises(JournalBroken):
                open_journal(copy, SMALL)
            flip(copy / "journal.db", position, 1 << (position % 8))
    assert verify(copy).problems == ()


def test_a_flipped_byte_anywhere_in_the_file_is_found_or_changes_no_record(sound: Path, tmp_path: Path) -> None:
    size = (sound / "journal.db").stat().st_size
    pristine = (sound / "journal.db").read_bytes()
    copy = copied(sound, tmp_path / "copy")
    found = 0
    stride = 11
    for position in range(0, size, stride):
        flip(copy / "journal.db", position, 1 << (position % 8))
        problems = verify(copy).problems
        found += bool(problems)
        try:
            opened = open_journal(copy, SMALL)
        except JournalBroken:
            assert problems, f"byte {position}: broken, and verify found nothing"
        else:
            assert opened.bodies == BODIES, f"byte {position}"
            assert opened.head[0] == RECORDS
            opened.store.close()
        (copy / "journal.db").write_bytes(pristine)
    assert found >= sum(len(one) + 32 for one in BODIES) // stride  # the rest is free space


def test_a_flipped_byte_in_the_log_is_found_and_breaks_the_journal(live: Path, tmp_path: Path) -> None:
    pristine = (live / "journal.db-wal").read_bytes()
    copy = tmp_path / "copy"
    assert verify(copied(live, copy)).entries == RECORDS
    # The log's own header, the first frames' headers, and then a walk through all frames.
    positions = [*range(0, 80, 3), *range(80, len(pristine), 769)]
    for position in positions:
        copied(live, copy)
        flip(copy / "journal.db-wal", position, 1 << (position % 8))
        assert verify(copy).problems, f"byte {position}"
        with pytest.raises(JournalBroken):
            open_journal(copy, SMALL)


def test_a_log_that_lost_its_end_is_found_at_every_length(live: Path, tmp_path: Path) -> None:
    size = (live / "journal.db-wal").stat().st_size
    copy = tmp_path / "copy"
    for kept in range(0, size, 1021):
        copied(live, copy)
        os.truncate(copy / "journal.db-wal", kept)
        assert any("the head says" in one or "missing" in one or "read" in one for one in verify(copy).problems), kept
        with pytest.raises(JournalBroken):
            open_journal(copy, SMALL)


def test_a_log_that_went_away_is_found(live: Path, tmp_path: Path) -> None:
    copy = copied(live, tmp_path / "copy")
    (copy / "journal.db-wal").unlink()

    assert verify(copy).problems
    assert_broken(copy)


@pytest.mark.parametrize("slot", [0, 1])
def test_a_flipped_byte_in_a_slot_of_the_head_is_found_and_mended(sound: Path, tmp_path: Path, slot: int) -> None:
    for offset in range(SLOT_SIZE):
        copy = copied(sound, tmp_path / "copy")
        flip(copy / "journal.head", SLOT_AT[slot] + offset, 1 << (offset % 8))

        assert verify(copy).problems, f"byte {offset}"
        opened = open_journal(copy, SMALL)

        assert opened.bodies == BODIES
        assert verify(copy).problems == ()


def test_a_flipped_byte_beside_the_slots_of_the_head_is_found(sound: Path, tmp_path: Path) -> None:
    copy = copied(sound, tmp_path / "copy")
    flip(copy / "journal.head", SLOT_SIZE + 17)

    assert verify(copy).problems == ("journal.head holds something beside its slots",)
    assert open_journal(copy, SMALL).bodies == BODIES


def test_a_head_with_no_readable_slot_breaks_the_journal(sound: Path, tmp_path: Path) -> None:
    copy = copied(sound, tmp_path / "copy")
    flip(copy / "journal.head", SLOT_AT[0] + 9)
    flip(copy / "journal.head", SLOT_AT[1] + 9)

    assert "neither slot" in assert_broken(copy).reason
    assert len(verify(copy).problems) == 2


@pytest.mark.parametrize("size", [0, 10, SLOT_AT[1] - 1, FILE_SIZE - 1])
def test_a_shortened_head_is_found(sound: Path, tmp_path: Path, size: int) -> None:
    copy = copied(sound, tmp_path / "copy")
    os.truncate(copy / "journal.head", size)

    assert verify(copy).problems


def test_a_missing_head_breaks_the_journal(sound: Path, tmp_path: Path) -> None:
    copy = copied(sound, tmp_path / "copy")
    (copy / "journal.head").unlink()

    assert "missing while there are records" in assert_broken(copy).reason
    assert verify(copy).problems == ("journal.head is missing",)


# ---------------------------------------------------------------- rows that went, moved or changed


@pytest.mark.parametrize("seq", [1, 2, 50, 99, 100])
def test_a_deleted_record_is_found_and_breaks_the_journal(sound: Path, tmp_path: Path, seq: int) -> None:
    copy = copied(sound, tmp_path / "copy")
    alter(copy, "DELETE FROM entries WHERE seq = ?", [seq])

    assert verify(copy).problems
    assert assert_broken(copy).seq == seq


def test_records_in_another_order_are_found(sound: Path, tmp_path: Path) -> None:
    copy = copied(sound, tmp_path / "copy")
    for old, new in ((40, 1000), (41, 40), (1000, 41)):
        alter(copy, "UPDATE entries SET seq = ? WHERE seq = ?", [new, old])

    assert verify(copy).problems[0].startswith("record 40 is altered")
    assert assert_broken(copy).seq == 40


def test_an_altered_record_whose_digest_was_made_to_fit_is_found(sound: Path, tmp_path: Path) -> None:
    copy = copied(sound, tmp_path / "copy")
    with closing(sqlite3.connect(copy / "journal.db", isolation_level=None)) as connection:
        (before,) = connection.execute("SELECT digest FROM entries WHERE seq = 99").fetchone()
        (entry,) = link([body(77)], (99, before.hex()))
        connection.execute(
            "UPDATE entries SET body = ?, digest = ? WHERE seq = 100", (entry.body, bytes.fromhex(entry.digest))
        )

    assert "another one than the head says" in assert_broken(copy).reason
    assert any("another one than slot" in problem for problem in verify(copy).problems)


def test_a_record_put_in_is_found(sound: Path, tmp_path: Path) -> None:
    copy = copied(sound, tmp_path / "copy")
    alter(copy, "INSERT INTO entries SELECT 0, body, digest FROM entries WHERE seq = 5")

    assert verify(copy).problems


def test_damage_in_an_old_segment_is_found_by_verify_and_in_the_last_one_by_opening(tmp_path: Path) -> None:
    directory, _ = segmented(tmp_path / "journal", segments=3, each=5)
    alter(directory, "UPDATE entries SET body = replace(body, '#', '+') WHERE seq = 4")
    assert verify(directory).problems == ("record 4 is altered, or the one before it is",)
    assert open_journal(directory, SMALL).checkpoint == '{"segment":2}'

    alter(directory, "UPDATE entries SET body = replace(body, '#', '+') WHERE seq = 15")

    assert assert_broken(directory).seq == 15


def test_a_damaged_checkpoint_breaks_the_journal(tmp_path: Path) -> None:
    directory, _ = segmented(tmp_path / "journal", segments=2, each=5)
    alter(directory, """UPDATE entries SET body = replace(body, '"segment":1', '"segment":7') WHERE seq = 7""")

    assert assert_broken(directory).seq == 7
    assert "checkpoint in record 7 is damaged" in verify(directory).problems[0]


def test_a_list_of_segments_that_does_not_agree_is_found(tmp_path: Path) -> None:
    directory, _ = segmented(tmp_path / "journal", segments=3, each=5)
    alter(directory, "DELETE FROM segments WHERE first_seq = 7")

    assert "list of segments" in verify(directory).problems[0]


@pytest.mark.parametrize("kept", [0, 10, 4096, 5000, 8192])
def test_a_shortened_database_breaks_the_journal(sound: Path, tmp_path: Path, kept: int) -> None:
    copy = copied(sound, tmp_path / "copy")
    os.truncate(copy / "journal.db", kept)

    assert verify(copy).problems
    assert_broken(copy)


def test_a_missing_database_breaks_the_journal(sound: Path, tmp_path: Path) -> None:
    copy = copied(sound, tmp_path / "copy")
    (copy / "journal.db").unlink()

    assert verify(copy).problems[0] == "journal.db is missing"
    assert "is missing, the head says 100 records" in assert_broken(copy).reason


# ---------------------------------------------------------------- the tail after the head


def set_back_head(directory: Path, seq: int) -> None:
    """Write the head of record *seq* as the newest, as if the later writes of it had been lost."""
    with closing(sqlite3.connect(directory / "journal.db")) as connection:
        (digest,) = connection.execute("SELECT digest FROM entries WHERE seq = ?", (seq,)).fetchone()
    writer = HeadWriter(directory / "journal.head")
    for _ in range(2):
        writer.write((seq, digest.hex()))
    writer.close()


def test_records_after_the_head_that_hold_are_taken(sound: Path, tmp_path: Path) -> None:
    copy = copied(sound, tmp_path / "copy")
    set_back_head(copy, 95)
    assert verify(copy).after_head == 5

    opened = open_journal(copy, SMALL)

    assert opened.bodies == BODIES
    assert opened.cut is None
    assert verify(copy).head_seq == 100


def test_a_bad_record_after_the_head_is_cut_and_told_and_the_journal_goes_on(sound: Path, tmp_path: Path) -> None:
    copy = copied(sound, tmp_path / "copy")
    set_back_head(copy, 95)
    raw = (copy / "journal.db").read_bytes()
    flip(copy / "journal.db", raw.index(f"{MARK}{98:06d}".encode()))
    assert verify(copy).problems

    opened = open_journal(copy, SMALL)

    assert opened.bodies == BODIES[:97]
    assert opened.cut == "cut from record 98 on, after the head: record 98 is altered, or the one before it is"
    entries = link([body(98)], opened.head)
    opened.store.append(entries)
    opened.store.close()
    again = open_journal(copy, SMALL)
    assert (len(again.bodies), again.cut) == (98, None)
    assert verify(copy).problems == ()


def test_a_checkpoint_after_the_head_is_taken_with_what_follows(tmp_path: Path) -> None:
    directory, head = segmented(tmp_path / "journal", segments=3, each=5)
    set_back_head(directory, 11)

    opened = open_journal(directory, SMALL)

    assert (opened.checkpoint, len(opened.bodies), opened.head) == ('{"segment":2}', 5, head)


# ---------------------------------------------------------------- never a crash loop


def test_a_broken_journal_is_set_aside_whole_and_a_new_one_begins(live: Path, tmp_path: Path) -> None:
    copy = copied(live, tmp_path / "copy")
    flip(copy / "journal.db-wal", 5000)
    assert_broken(copy)
    before = {name: (copy / name).read_bytes() for name in ("journal.db", "journal.db-wal", "journal.head")}

    aside = set_aside(copy)
    opened = open_journal(copy, SMALL)

    assert aside.name == "journal.db.broken-1"
    assert opened.head == (0, "")
    kept = (
        aside.read_bytes(),
        (copy / f"{aside.name}-wal").read_bytes(),
        (copy / "journal.head.broken-1").read_bytes(),
    )
    assert kept == tuple(before.values())


def test_a_second_broken_journal_gets_a_number_of_its_own(sound: Path, tmp_path: Path) -> None:
    copy = copied(sound, tmp_path / "copy")
    set_aside(copy)
    written(copy, 3)
    (copy / "journal.head").unlink()
    assert_broken(copy)

    assert set_aside(copy).name == "journal.db.broken-2"


def test_a_beginning_that_a_crash_interrupted_is_begun_again(tmp_path: Path) -> None:
    open_journal(tmp_path, SMALL)
    (tmp_path / "journal.head").unlink()

    assert open_journal(tmp_path, SMALL).head == (0, "")
    (tmp_path / "journal.head").unlink()
    os.truncate(tmp_path / "journal.db", 0)
    assert open_journal(tmp_path, SMALL).head == (0, "")


# ---------------------------------------------------------------- sudden ends and failing disks


WRITER = """
import asyncio, sys
from pathlib import Path
from agent.runtime.journal import Journal, JournalLimits, open_journal

async def main() -> None:
    opened = open_journal(Path(sys.argv[1]))
    journal = Journal(opened.store, opened.head, limits=JournalLimits(segment_entries=50))
    journal.on_durable(lambda seq: print(seq, flush=True))
    while True:
        if journal.checkpoint_due:
            journal.checkpoint('{"n":%d}' % journal.seq)
        journal.append(['{"n":%d}' % (journal.seq + 1)] * 3)
        await asyncio.sleep(0)
        if journal.seq - journal.durable_seq > 500:
            await journal.drain()

asyncio.run(main())
"""


def test_after_kill_all_that_was_reported_durable_is_there(tmp_path: Path) -> None:
    reported = 0
    for lines in (1, 3, 10, 25, 60):
        process = subprocess.Popen([sys.executable, "-c", WRITER, str(tmp_path)], stdout=subprocess.PIPE, text=True)
        with process:
            assert process.stdout is not None
            for _ in range(lines):
                process.stdout.readline()
            process.send_signal(signal.SIGKILL)
            reported = max(reported, *map(int, process.stdout.read().split()), 0)

        opened = open_journal(tmp_path)

        assert opened.head[0] >= reported
        assert opened.cut is None
        assert verify(tmp_path).problems == ()


@pytest.fixture
def short_files() -> Iterator[Callable[[int], None]]:
    """Return what makes every write beyond a size fail, as a disk does that has gone bad there; 0 mends it."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)

    def limit(size_bytes: int) -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (size_bytes or before[0], before[1]))

    yield limit
    resource.setrlimit(resource.RLIMIT_FSIZE, before)


async def test_a_write_error_is_told_and_all_is_written_when_the_disk_is_well_again(
    tmp_path: Path, short_files: Callable[[int], None]
) -> None:
    opened = open_journal(tmp_path, SMALL)
    journal = Journal(opened.store, opened.head)
    told: list[str] = []
    journal.on_trouble(told.append)
    journal.append([body(1)])
    await journal.drain()

    short_files((tmp_path / "journal.db-wal").stat().st_size + 1000)
    for number in range(2, 12):
        journal.append([body(number, length=500)])
    await until(lambda: bool(told))
    assert journal.durable_seq < 11
    short_files(0)
    await journal.drain()
    await journal.close()

    assert "cannot be written" in told[0]
    assert told[-1] == ""
    report = verify(tmp_path)
    assert (report.entries, report.head_seq, report.problems) == (11, 11, ())
