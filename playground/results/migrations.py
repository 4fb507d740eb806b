"""The store's schema as numbered migrations: plain functions in a list; a database's `user_version` says how many it has seen.

A change of the schema is one more function at the end, never an edit of an old one. Example::

    for migrate in MIGRATIONS[version:]:
        migrate(connection)
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable


def first_schema(connection: sqlite3.Connection) -> None:
    """Experiments, their runs, the runs' raw events in compressed chunks, and their metrics for a fast history."""
    for statement in (
        "CREATE TABLE experiments (number INTEGER PRIMARY KEY AUTOINCREMENT, id TEXT NOT NULL UNIQUE, title TEXT NOT NULL,"
        " source TEXT NOT NULL, created_at TEXT NOT NULL)",
        "CREATE TABLE runs (experiment TEXT NOT NULL REFERENCES experiments (id) ON DELETE CASCADE, position INTEGER NOT NULL,"
        " spec TEXT NOT NULL, fingerprint TEXT NOT NULL, label TEXT NOT NULL, model TEXT NOT NULL, status TEXT NOT NULL, result TEXT,"
        " owner_pid INTEGER NOT NULL, owner_started REAL NOT NULL, PRIMARY KEY (experiment, position))",
        "CREATE INDEX runs_by_status ON runs (status)",
        "CREATE TABLE chunks (experiment TEXT NOT NULL, position INTEGER NOT NULL, seq INTEGER NOT NULL, data BLOB NOT NULL,"
        " PRIMARY KEY (experiment, position, seq),"
        " FOREIGN KEY (experiment, position) REFERENCES runs (experiment, position) ON DELETE CASCADE)",
        "CREATE TABLE metrics (experiment TEXT NOT NULL, position INTEGER NOT NULL, name TEXT NOT NULL, value REAL, low REAL, high REAL,"
        " kind TEXT NOT NULL, PRIMARY KEY (experiment, position, name),"
        " FOREIGN KEY (experiment, position) REFERENCES runs (experiment, position) ON DELETE CASCADE)",
    ):
        connection.execute(statement)


def ceilings(connection: sqlite3.Connection) -> None:
    """What devices can do at best, one row a device and dtype."""
    connection.execute("CREATE TABLE ceilings (key TEXT PRIMARY KEY, event TEXT NOT NULL)")


def sweeps(connection: sqlite3.Connection) -> None:
    """Sweeps with their plans, and their cells, each of which is an experiment of its own once it has begun."""
    for statement in (
        "CREATE TABLE sweeps (number INTEGER PRIMARY KEY AUTOINCREMENT, id TEXT NOT NULL UNIQUE, title TEXT NOT NULL, plan TEXT NOT NULL,"
        " status TEXT NOT NULL, created_at TEXT NOT NULL, owner_pid INTEGER NOT NULL, owner_started REAL NOT NULL)",
        "CREATE TABLE sweep_cells (sweep TEXT NOT NULL REFERENCES sweeps (id) ON DELETE CASCADE, position INTEGER NOT NULL,"
        " cell TEXT NOT NULL, experiment TEXT REFERENCES experiments (id) ON DELETE SET NULL, skipped TEXT NOT NULL DEFAULT '',"
        " seconds REAL, PRIMARY KEY (sweep, position))",
        "CREATE INDEX sweep_cells_by_experiment ON sweep_cells (experiment)",
    ):
        connection.execute(statement)


MIGRATIONS: list[Callable[[sqlite3.Connection], None]] = [first_schema, ceilings, sweeps]
