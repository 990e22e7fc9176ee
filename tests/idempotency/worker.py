"""uvicorn processes with the middleware, to be several, frozen or killed.

    python -m tests.idempotency.worker        for each line of JSON on standard input a process

It imports once and then forks, so that a process is up in a tenth of a second. A line has `url`,
`out` (a FIFO to print to), and settings: wait_s, lease_s, on_takeover, unchecked. A process prints
its pid and its port, then `arrived` for each request and `started` for each run of the body, which
adds a row to `effects` and waits until there is one in `gate`. `unchecked`: the store's claim
without its uniqueness, for the control.

With `hold` it is an attempt by exactly_once instead, plain or with `transaction`, that prints
`claimed`, `effect` and `stored` as it comes there, and stands still at `hold`.
"""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import sys
import threading
from collections.abc import Callable
from typing import Any

import uvicorn
from fastapi import FastAPI
from sqlalchemy import text

from torghut.idempotency import RUN_AGAIN, Attempt, Store, exactly_once, statements
from torghut.idempotency.asgi import IdempotencyMiddleware, Policy

POLL_S = 0.02


def say(line: str) -> None:
    os.write(1, f"{line}\n".encode())


def application(store: Store, policy: Policy) -> Callable[..., Any]:
    """The middleware around one route, and around it what counts arrivals."""
    inner = FastAPI()

    @inner.post("/effect")
    def effect() -> dict[str, int]:
        with store.transaction() as tx:
            added = "INSERT INTO effects DEFAULT VALUES RETURNING number"
            number = int(tx.execute(text(added)).scalar_one())
        say("started")
        never = threading.Event()
        while True:
            with store.transaction() as tx:
                if tx.execute(text("SELECT count(*) FROM gate")).scalar_one():
                    return {"number": number, "pid": os.getpid()}
            never.wait(POLL_S)

    app = IdempotencyMiddleware(inner, store, default=policy)

    async def counted(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "http":
            say("arrived")
            # the middleware looks for the routes where an application puts itself
            scope = {**scope, "app": inner}
        await app(scope, receive, send)

    return counted


def serve(url: str, settings: dict[str, Any]) -> None:
    """Until it is killed."""
    if settings.pop("unchecked", False):
        statements.CLAIM = re.sub(r"ON CONFLICT.*verdict\)", "", statements.CLAIM, flags=re.DOTALL)
    store = Store(url, lease_s=settings.pop("lease_s", 30))
    app = application(store, Policy(**settings))
    listener = socket.create_server(("127.0.0.1", 0), backlog=256)
    say(f"port {listener.getsockname()[1]}")
    config = uvicorn.Config(app, log_level="error", lifespan="off")
    uvicorn.Server(config).run(sockets=[listener])


def attempt(url: str, settings: dict[str, Any]) -> None:
    """Until it is killed."""
    store = Store(url)
    transaction = settings["transaction"]

    def reach(point: str) -> None:
        say(point)
        if point == settings["hold"]:
            signal.pause()

    def fn(attempt: Attempt) -> int:
        reach("claimed")
        if transaction:
            attempt.connection.execute(text("INSERT INTO effects DEFAULT VALUES"))
        else:
            with store.transaction() as tx:
                tx.execute(text("INSERT INTO effects DEFAULT VALUES"))
        reach("effect")
        return attempt.number

    exactly_once(
        settings["key"], fn, store=store, transaction=transaction, on_takeover=lambda _: RUN_AGAIN
    )
    settings["hold"] = "stored"
    reach("stored")


def main() -> None:
    """Fork for each line; at the end of the input the test is over."""
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    for line in sys.stdin:
        asked = json.loads(line)
        if os.fork() == 0:
            os.dup2(os.open(asked.pop("out"), os.O_WRONLY), 1)
            say(f"pid {os.getpid()}")
            (attempt if "hold" in asked else serve)(asked.pop("url"), asked)
            os._exit(0)


if __name__ == "__main__":
    main()
