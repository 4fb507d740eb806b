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


def notes_and_filters(connection: sqlite3.Connection) -> None:
    """What a person adds to an experiment, the mark of deleted ones, and what they are found by: days, models, statuses, the names of
    techniques (a JSON list; NULL until `results.history` has looked them up) and the processor or GPU of each run."""
    facts = "CASE WHEN json_valid(result) THEN result ELSE '{}' END"
    asked = "COALESCE(json_extract(CASE WHEN json_valid(spec) THEN spec ELSE '{}' END, '$.device'), 'auto')"
    for statement in (
        "ALTER TABLE experiments ADD COLUMN label TEXT NOT NULL DEFAULT ''",
        "ALTER TABLE experiments ADD COLUMN note TEXT NOT NULL DEFAULT ''",
        "ALTER TABLE experiments ADD COLUMN pinned INTEGER NOT NULL DEFAULT 0",
        "ALTER TABLE experiments ADD COLUMN deleted_at TEXT",
        "ALTER TABLE experiments ADD COLUMN techniques TEXT",
        "ALTER TABLE runs ADD COLUMN device TEXT NOT NULL DEFAULT ''",
        f"UPDATE runs SET device = COALESCE(CASE WHEN {asked} <> 'cpu' THEN NULLIF(json_extract({facts}, '$.provenance.gpu'), '') END,"
        f" NULLIF(json_extract({facts}, '$.provenance.cpu'), ''), {asked})",
        "CREATE INDEX experiments_by_day ON experiments (created_at)",
        "CREATE INDEX runs_by_model ON runs (model, experiment)",
        "CREATE INDEX runs_by_device ON runs (device, experiment)",
        "CREATE INDEX runs_by_experiment ON runs (experiment, status)",
    ):
        connection.execute(statement)


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


MIGRATIONS: list[Callable[[sqlite3.Connection], None]] = [first_schema, ceilings, notes_and_filters, sweeps]
