"""A database of the simulation's own, for all tests of a module."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.postgres import Server, _fresh_database, _template
from tests.simulation.run import Simulation


@pytest.fixture(scope="module")
def simulation(postgres_server: Server) -> Iterator[Simulation]:
    """Runs seeds."""
    template = _template(postgres_server, "fast")
    with _fresh_database(postgres_server, template) as url, Simulation(url) as running:
        yield running
