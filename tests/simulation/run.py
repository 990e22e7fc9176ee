"""Runs seeds: the server they share, what is patched for virtual time, and the verdict."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch

import structlog
from sqlalchemy import TextClause, text

from tests.simulation import calm
from tests.simulation.baton import Baton
from tests.simulation.checks import Judge
from tests.simulation.database import Server, SimulatedDatabase
from tests.simulation.world import SETTINGS, Violation, World
from torghut import telemetry
from torghut.config import Settings, risk_policy
from torghut.services import book_audit, book_gauges, broker_lists, rate_budget, supervisor
from torghut.services.limit_reload import PolicyInForce

RESET_EVERY = 50
SMALL_PAGE = 2
BOOTED_S = 1_000.0


@dataclass(frozen=True)
class Told:
    """How a seed went."""

    seed: int
    violations: list[Violation]
    trace: list[str]
    digest: str
    virtual_s: float

    def __str__(self) -> str:
        found = "; ".join(map(str, self.violations)) or "holds"
        return f"seed {self.seed}: {found}; replay it: {command(self.seed)}"


def command(seed: int) -> str:
    """What replays a seed."""
    return f".venv/bin/python -m tests.simulation --seed {seed} --trace"


class Simulation:
    """Runs seeds on one server, one after the other. Use as a context."""

    def __init__(
        self, url: str, make_database: Callable[[Server, Any, str], Any] = SimulatedDatabase
    ) -> None:
        self._server = Server(url)
        self._make_database = make_database
        self._baton = Baton()
        self._world: World | None = None
        self._runs = 0
        self._stack = ExitStack()

    def __enter__(self) -> Simulation:
        self._stack.callback(self._server.close)
        clock = SimpleNamespace(monotonic=self._monotonic)
        for module in (supervisor, rate_budget, book_audit):
            self._stack.enter_context(patch.object(module, "time", clock))
        for module in list(sys.modules.values()):
            if module.__name__.startswith("torghut.storage") and hasattr(module, "text"):
                self._stack.enter_context(patch.object(module, "text", _text))
        # nobody reads ten thousand logs and metrics
        self._stack.enter_context(patch.object(book_gauges, "show", _unread))
        self._stack.enter_context(patch.object(telemetry, "forget_account", _unread))
        self._stack.enter_context(_silent())
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def reset(self) -> None:
        """Empty the database; accounts are named anew."""
        self._server.reset()
        self._runs = 0

    def use(self, make_database: Callable[[Server, Any, str], Any]) -> None:
        """Let the processes of the next seeds reach the server another way."""
        self._make_database = make_database

    def run(self, seed: int) -> Told:
        """Play one seed, to its end or to its first violation."""
        if self._runs in (0, RESET_EVERY):
            self._server.reset()
            self._runs = 0
        self._runs += 1
        self._world = None  # time begins anew
        world = World(
            seed,
            f"s{self._runs:06d}",  # few of them: metrics keep each for good
            self._server,
            _settings,
            _policy_of,
            self._make_database,
            self._baton,
        )
        self._world = world
        session = self._server.session
        page = SMALL_PAGE if world.plan.small_pages else broker_lists.PAGE_MAX
        with patch.object(broker_lists, "PAGE_MAX", page):
            world.run()
            ended = not world.seen.violations and calm.until_done(world, session)
            if ended:
                calm.last_look(world, session)
            elif not world.seen.violations:
                world.violated("P2", "it did not come to an end after the faults")
        world.end()
        world.close()
        Judge(world, session).look(ended=ended)
        return Told(seed, world.seen.violations, world.trace, world.digest, world.now_s)

    @property
    def cpu_s(self) -> float:
        """CPU seconds of this process and of its server's, user and system (Linux)."""
        server = Path(f"/proc/{self._server.session.pid}/stat").read_text("ascii")
        ticks = server.rpartition(")")[2].split()[11:13]
        return time.process_time() + sum(map(int, ticks)) / os.sysconf("SC_CLK_TCK")

    def _monotonic(self) -> float:
        return BOOTED_S + (0.0 if self._world is None else self._world.now_s)


@cache
def _text(sql: str) -> TextClause:
    """Production parses some statements each time; a tenth of a run would go into that."""
    return text(sql)


def _settings(account: str) -> Settings:
    return _base_settings().model_copy(update={"account": account})


@cache
def _base_settings() -> Settings:
    return Settings(**SETTINGS)


def _policy_of(risk: Mapping[str, object]) -> PolicyInForce:
    return PolicyInForce(_policy(tuple(sorted(risk.items()))))


@cache
def _policy(risk: tuple[tuple[str, object], ...]) -> Any:
    return risk_policy(Settings(**SETTINGS, account="simulation", risk=dict(risk)))


def _unread(*_: object) -> None:
    """What only sets metrics."""


@contextmanager
def _silent() -> Iterator[None]:
    """No logs."""
    before = structlog.get_config()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(50))
    try:
        yield
    finally:
        structlog.configure(**before)
