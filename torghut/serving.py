"""The HTTP interface and the console around a daemon: what they are given of it.

The daemon runs without them, and they ask it for nothing but what this module hands over.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from torghut.bootstrap import Daemon
from torghut.web.app import create_app
from torghut.web.parts import ProcessFacts, WebParts
from torghut.web.server import HttpServer


@contextmanager
def serving(daemon: Daemon) -> Iterator[str]:
    """The daemon's HTTP interface and console; yields their URL."""
    settings = daemon.settings
    parts = WebParts(
        settings=settings,
        database=daemon.database,
        desk=daemon.desk,
        health=daemon.health,
        ready=daemon.ready,
        process=lambda account: _facts(daemon, account),
        rate_per_s=settings.http_rate_per_s,
    )
    app = create_app(parts)
    end = app.state.end_streams
    server = HttpServer(app, settings.http_host, settings.http_port, before_stop=end)
    server.start()
    try:
        yield f"http://{settings.http_host}:{server.port}"
    finally:
        server.stop()


def _facts(daemon: Daemon, account: str) -> ProcessFacts:
    unit = daemon.units[account]
    return ProcessFacts(
        owner=daemon.owner,
        rate_left=unit.budget.left,
        rate_per_min=unit.budget.per_min,
        reconciled_at=unit.reconciler.reconciled_at,
        trade_updates=unit.live.connection.state,
        policy=unit.policy.current,
    )
