"""A served HTTP interface on a real Postgres, and a client to it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field

import httpx
import pytest

from tests.factories import ACCOUNT
from torghut.clock import utc_now
from torghut.config import Settings
from torghut.services.intake import IntakeDesk
from torghut.storage.database import Database
from torghut.web.app import WebParts, create_app
from torghut.web.server import HttpServer


@dataclass
class Served:
    """One interface that is up; `health` and `ready` may be changed while it runs."""

    server: HttpServer
    database: Database
    client: httpx.Client
    wakes: list[int] = field(default_factory=list)
    health: dict[str, object] = field(default_factory=lambda: {"alive": True})
    ready: dict[str, object] = field(default_factory=dict)

    @property
    def port(self) -> int:
        return self.server.port


Serve = Callable[..., Served]


@pytest.fixture
def serve(database_url: str) -> Iterator[Serve]:
    """Start an interface: `serve(url=…, rate_per_s=…, **settings)`."""
    with ExitStack() as stack:

        def start(
            *,
            url: str = database_url,
            rate_per_s: float = 10_000,
            end_streams: bool = True,
            **settings: object,
        ) -> Served:
            values: Mapping[str, object] = {
                "account": ACCOUNT,
                "decision_ttl_s": 315_360_000,
                **settings,
            }
            values = {name: value for name, value in values.items() if value is not None}
            database = Database(url)
            stack.callback(database.close)
            wakes: list[int] = []
            health: dict[str, object] = {"alive": True}
            ready: dict[str, object] = {}
            parts = WebParts(
                settings=Settings(**values),  # type: ignore[arg-type]
                database=database,
                desk=IntakeDesk(database, utc_now, lambda _: wakes.append(1)),
                health=lambda: health,
                ready=lambda: ready,
                rate_per_s=rate_per_s,
            )
            app = create_app(parts)
            end = app.state.end_streams if end_streams else None
            server = HttpServer(app, "127.0.0.1", 0, before_stop=end)
            server.start()
            stack.callback(server.stop)
            base = f"http://127.0.0.1:{server.port}"
            client = stack.enter_context(httpx.Client(base_url=base, timeout=30, trust_env=False))
            return Served(server, database, client, wakes, health, ready)

        yield start


@pytest.fixture
def served(serve: Serve) -> Served:
    """An interface without tokens, for account `paper`."""
    return serve()
