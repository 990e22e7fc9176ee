"""Fixtures: three accounts with a broker each, and daemons over them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from tests.accounts.brokers import Brokers, brokers
from torghut.bootstrap import Daemon

Start = Callable[..., Daemon]


@pytest.fixture
def three(database_url: str, tmp_path: Path) -> Iterator[Brokers]:
    with brokers(database_url, tmp_path, "alpha", "beta", "gamma") as built:
        yield built


@pytest.fixture
def start(three: Brokers) -> Iterator[Start]:
    """Daemons in this process; `at` replaces their brokers."""
    with ExitStack() as stack:

        def begin(at: Any = None, **over: Any) -> Daemon:
            settings = three.settings(**over)
            daemon = Daemon(settings, three.database, at or three.reach(settings))
            stack.callback(daemon.stop)
            daemon.start()
            return daemon

        yield begin
