"""Entering SQLite's WAL mode, also where several processes open a new file at once.

SQLite waits for a locked file by itself, but not there: of two that have both begun to read the file, and each want it whole,
one fails at once with "database is locked", for they would wait for each other for ever.
"""

import sqlite3
from typing import Final

_MOST_AT_ONCE: Final = 1000
"""Each round one process gets through."""


def enter_wal(db: sqlite3.Connection) -> None:
    """Switch the file to WAL, for good; who finds others at it waits, as long as the connection waits for any lock.

    Raises:
        sqlite3.OperationalError: it stays locked, or cannot be written.
    """
    for _ in range(_MOST_AT_ONCE):
        try:
            db.execute("PRAGMA journal_mode = WAL")
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY:
                raise
        else:
            return
        db.execute("BEGIN EXCLUSIVE")  # here it does wait
        db.execute("ROLLBACK")
    db.execute("PRAGMA journal_mode = WAL")
