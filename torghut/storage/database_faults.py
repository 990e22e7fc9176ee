"""What a database error means for whoever got it: the same again later, or a fault of ours.

Everything here is transient: nothing was committed by the transaction that met it, unless it was
COMMIT itself that did (torghut.storage.database). An error that is not named here (a violated
constraint, a syntax error) is passed on as it is.
"""

from __future__ import annotations

from enum import StrEnum

from sqlalchemy.engine import URL
from sqlalchemy.exc import DBAPIError, OperationalError


class DatabaseFault(StrEnum):
    """Kinds of transient errors; the label of `torghut_database_faults_total`."""

    UNREACHABLE = "unreachable"
    CONFLICT = "conflict"  # deadlock or serialization: at once again
    TIMEOUT = "timeout"
    DISK_FULL = "disk_full"
    OVERLOADED = "overloaded"  # memory, connections, locks
    READ_ONLY = "read_only"  # a stand-by, or a primary that was demoted
    IO_ERROR = "io_error"
    COMMIT_IN_DOUBT = "commit_in_doubt"
    NOT_DURABLE = "not_durable"


_BY_STATE = {
    "25006": DatabaseFault.READ_ONLY,
    "25P03": DatabaseFault.UNREACHABLE,  # ended for being idle in a transaction
    "25P04": DatabaseFault.TIMEOUT,
    "40001": DatabaseFault.CONFLICT,
    "40P01": DatabaseFault.CONFLICT,
    "53100": DatabaseFault.DISK_FULL,
    "55P03": DatabaseFault.TIMEOUT,
    "57014": DatabaseFault.TIMEOUT,
}
_BY_CLASS = {
    "08": DatabaseFault.UNREACHABLE,
    "53": DatabaseFault.OVERLOADED,
    "57": DatabaseFault.UNREACHABLE,
    "58": DatabaseFault.IO_ERROR,
}
_WORDS = {
    DatabaseFault.UNREACHABLE: "does not answer",
    DatabaseFault.CONFLICT: "undid a transaction that ran into another; it is tried again",
    DatabaseFault.TIMEOUT: "did not finish in time",
    DatabaseFault.DISK_FULL: "has no space left: nothing was stored; free space on its disk",
    DatabaseFault.OVERLOADED: "is out of resources",
    DatabaseFault.READ_ONLY: "takes no writes (a stand-by): name every host in "
    "TORGHUT_DATABASE_URL, with target_session_attrs=read-write",
    DatabaseFault.IO_ERROR: "cannot read or write its files",
}


def fault_of(error: DBAPIError) -> DatabaseFault | None:
    """Which transient fault an error is; None if the same again would fail the same."""
    state = getattr(error.orig, "sqlstate", None) or ""
    known = _BY_STATE.get(state) or _BY_CLASS.get(state[:2])
    if known is not None:
        return known
    if error.connection_invalidated or isinstance(error, OperationalError):
        return DatabaseFault.UNREACHABLE
    return None


def in_words(url: URL, fault: DatabaseFault, error: Exception) -> str:
    """One line for a person: which database (without its password), and what it said."""
    shown = url.render_as_string(hide_password=True)
    return f"database {shown} {_WORDS[fault]}: {first_line(error)}"


def unreachable(url: URL, error: Exception) -> str:
    """The same for a database that cannot be reached at all."""
    return in_words(url, DatabaseFault.UNREACHABLE, error)


def first_line(error: Exception) -> str:
    """The driver's own first line, without SQL and parameters."""
    cause = getattr(error, "orig", None) or error
    return str(cause).strip().split("\n", 1)[0]
