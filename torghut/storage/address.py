"""Where the database is: one URL for SQLAlchemy and libpq, several hosts included.

    postgresql://user:password@first:5432,second:5433/torghut?target_session_attrs=read-write

Several hosts are tried in turn, each for `CONNECT_TIMEOUT_S`; `target_session_attrs=read-write`
passes over a stand-by, so that a promoted one is found without a change of settings.
"""

from __future__ import annotations

import re
from typing import Any

from sqlalchemy.dialects.postgresql.psycopg import PGDialect_psycopg
from sqlalchemy.engine import URL, make_url

from torghut.domain.errors import ConfigError

CONNECT_TIMEOUT_S = 3
TCP_USER_TIMEOUT_MS = 5_000
_DRIVER = "postgresql+psycopg"
_FORM = "write postgresql://user:password@host:5432/database"
_AUTHORITY = re.compile(
    r"(?P<head>\w[\w+]*://(?:[^/?#]*@)?)(?P<hosts>[^/?#@]*,[^/?#@]*)(?P<tail>.*)"
)
_HOST = re.compile(r"(?P<host>\[[^\]]+\]|[^:\[\]]+)(?::(?P<port>\d+))?")


def database_url(text: str) -> URL:
    """A SQLAlchemy URL from `postgres://`, `postgresql://` or `postgresql+psycopg://` text.

    Raises ConfigError.
    """
    try:
        url = _parsed(text)
    except Exception as error:  # noqa: BLE001 - whatever the parser dislikes is the user's typo
        raise ConfigError(
            "TORGHUT_DATABASE_URL", f"is not a database URL ({type(error).__name__})", _FORM
        ) from None
    if url.drivername not in ("postgres", "postgresql", _DRIVER):
        raise ConfigError(
            "TORGHUT_DATABASE_URL",
            f"names {url.drivername!r}, but only PostgreSQL is supported",
            _FORM,
        )
    return url.set(drivername=_DRIVER)


def _parsed(text: str) -> URL:
    several = _AUTHORITY.fullmatch(text)
    if several is None:
        return make_url(text)
    hosts: list[str] = []
    ports: list[str] = []
    for one in several["hosts"].split(","):
        found = _HOST.fullmatch(one)
        if found is None:
            raise ValueError("a host is missing or malformed")
        hosts.append(found["host"].strip("[]"))
        ports.append(found["port"] or "5432")
    url = make_url(several["head"] + several["tail"])
    return url.update_query_dict({"host": ",".join(hosts), "port": ",".join(ports)})


def connect_parameters(url: URL) -> dict[str, Any]:
    """What libpq is given for `url`: places, and the waits that end a dead connection."""
    _, named = PGDialect_psycopg().create_connect_args(url)  # type: ignore[no-untyped-call]
    return {
        "connect_timeout": CONNECT_TIMEOUT_S,
        "tcp_user_timeout": TCP_USER_TIMEOUT_MS,
        "keepalives_idle": 5,
        "keepalives_interval": 2,
        "keepalives_count": 3,
        **named,
    }
