"""One SQLite file, opened safely: WAL, migrated, damage moved aside, and failures as sentences.

Checking a large file takes long, so the whole of it is checked only where there is cause: it was not closed well, or damage was met in it.
Example::

    database = Database(home() / "results.sqlite")
    with database.writing() as connection:
        connection.execute("DELETE FROM experiments WHERE id = ?", ("k3x9",))
"""

from __future__ import annotations

import contextlib
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path

from playground.core.problem import Problem
from playground.results.migrations import MIGRATIONS

BUSY_S = 10.0
NOT_STORED = "The result could not be stored"
NOT_OPENED = "The file of results could not be opened"
_DAMAGED = (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)
_SUSPECT = "-suspect"  # a file of this ending lies beside one in which damage was met
_WHY = {
    sqlite3.SQLITE_FULL: "the disk is full. Free some space and run again.",
    sqlite3.SQLITE_READONLY: "the file or its folder is read-only.",
    sqlite3.SQLITE_CANTOPEN: "the file cannot be opened in that folder.",
    sqlite3.SQLITE_BUSY: "another program keeps the file locked.",
    sqlite3.SQLITE_LOCKED: "another program keeps the file locked.",
    sqlite3.SQLITE_IOERR: "reading or writing the disk failed.",
    sqlite3.SQLITE_CORRUPT: "the file is damaged; after a restart it will be moved aside.",
}


class Database:
    """A connection that threads share under a lock. `warning`: what a person should know about the opening, "" for nothing."""

    def __init__(self, path: Path, migrations: Sequence[Callable[[sqlite3.Connection], None]] = MIGRATIONS) -> None:
        self.path = path
        self.warning = ""
        self._lock = threading.RLock()
        with _spoken(path, NOT_OPENED):
            try:
                self._connection = self._open(migrations)
            except sqlite3.DatabaseError as error:
                if _code(error) not in _DAMAGED:
                    raise
                aside = _move_aside(path)
                self.warning = f"The file of earlier results is damaged and was moved to {aside}; a new one was begun."
                self._connection = self._open(migrations)

    @contextlib.contextmanager
    def reading(self) -> Iterator[sqlite3.Connection]:
        """The connection, alone; failures become a Problem."""
        with self._lock, _spoken(self.path, "The stored results could not be read"):
            yield self._connection

    @contextlib.contextmanager
    def writing(self) -> Iterator[sqlite3.Connection]:
        """The connection in one transaction: all or nothing; failures become a Problem."""
        with self._lock, _spoken(self.path, NOT_STORED), _transaction(self._connection):
            yield self._connection

    def close(self) -> None:
        """Close the file."""
        with self._lock:
            self._connection.close()

    def _open(self, migrations: Sequence[Callable[[sqlite3.Connection], None]]) -> sqlite3.Connection:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        suspected = any(_beside(self.path, ending).exists() for ending in ("-wal", _SUSPECT))
        connection = sqlite3.connect(self.path, timeout=BUSY_S, isolation_level=None, check_same_thread=False)
        try:
            _check(connection, whole=suspected)
            _use_wal(connection)
            connection.execute("PRAGMA synchronous = NORMAL")
            connection.execute("PRAGMA foreign_keys = ON")
            connection.row_factory = sqlite3.Row
            _migrate(connection, self.path, migrations)
        except BaseException:
            connection.close()
            raise
        if suspected:
            with contextlib.suppress(OSError):
                _beside(self.path, _SUSPECT).unlink(missing_ok=True)
        return connection


@contextlib.contextmanager
def _spoken(path: Path, what: str) -> Iterator[None]:
    """Failures of SQLite and of the disk as Problem("user"): what failed, and why."""
    try:
        yield
    except (sqlite3.ProgrammingError, sqlite3.IntegrityError):
        raise  # a mistake in this program, not a trouble of the disk
    except sqlite3.Error as error:
        if _code(error) in _DAMAGED and path.is_file():
            with contextlib.suppress(OSError):
                _beside(path, _SUSPECT).touch()
        why = _WHY.get(_code(error), f"{error}.")
        raise Problem("user", f"{what}: {why}", f"{path}: {type(error).__name__}: {error}") from error
    except OSError as error:
        raise Problem("user", f"{what}: {error.strerror or error}.", f"{path}: {error}") from error


def _check(connection: sqlite3.Connection, *, whole: bool) -> None:
    """Raises SQLITE_CORRUPT for damage: in the list of experiments, or anywhere. A file that was cut off is found by SQLite itself."""
    known = connection.execute("SELECT name FROM sqlite_master WHERE name = 'experiments'").fetchone()
    of = "(1)" if whole else "('experiments')" if known else None
    found = connection.execute(f"PRAGMA quick_check{of}").fetchone()[0] if of else "ok"
    if found != "ok":
        error = sqlite3.DatabaseError(found)
        error.sqlite_errorcode = sqlite3.SQLITE_CORRUPT
        raise error


def _code(error: sqlite3.Error) -> int:
    """The primary result code; extended codes keep it in the low byte."""
    return (getattr(error, "sqlite_errorcode", None) or 0) & 0xFF


@contextlib.contextmanager
def _transaction(connection: sqlite3.Connection) -> Iterator[None]:
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:  # a full disk may have rolled it back already
            connection.execute("ROLLBACK")
        raise


def _use_wal(connection: sqlite3.Connection) -> None:
    """Switch to WAL; the switch does not wait for others by itself, so it is tried again for a while."""
    deadline = time.monotonic() + BUSY_S
    while True:
        try:
            connection.execute("PRAGMA journal_mode = WAL")
            return
        except sqlite3.OperationalError as error:
            if _code(error) not in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED) or time.monotonic() > deadline:
                raise
            time.sleep(0.05)


def _migrate(connection: sqlite3.Connection, path: Path, migrations: Sequence[Callable[[sqlite3.Connection], None]]) -> None:
    """Run the migrations that this file has not seen; another process may be doing the same, so the version is read inside."""
    if _version(connection) == len(migrations):
        return
    with _transaction(connection):
        version = _version(connection)
        if version > len(migrations):
            raise Problem(
                "user",
                "The stored results come from a newer version of this program: update it, or set PLAYGROUND_HOME to another folder.",
                f"{path}: schema {version}, known up to {len(migrations)}",
            )
        for migrate in migrations[version:]:
            migrate(connection)
        connection.execute(f"PRAGMA user_version = {len(migrations)}")


def _version(connection: sqlite3.Connection) -> int:
    return int(connection.execute("PRAGMA user_version").fetchone()[0])


def _move_aside(path: Path) -> Path:
    """Rename a damaged file and its companions; nothing is deleted."""
    stamp = datetime.now(UTC).strftime("%Y%m%dT%H%M%S")
    aside = path.with_name(f"{path.stem}.damaged-{stamp}{path.suffix}")
    number = 1
    while aside.exists():
        number += 1
        aside = path.with_name(f"{path.stem}.damaged-{stamp}-{number}{path.suffix}")
    for ending in ("", "-wal", "-shm"):
        if _beside(path, ending).exists():
            _beside(path, ending).rename(_beside(aside, ending))
    return aside


def _beside(path: Path, ending: str) -> Path:
    return path.with_name(path.name + ending)
