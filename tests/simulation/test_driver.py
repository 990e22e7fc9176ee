"""The short way to Postgres does what the production one does: the same seeds, the same stories."""

from __future__ import annotations

from tests.simulation.database import ProductionDatabase
from tests.simulation.run import Simulation

SEEDS = range(1, 9)


def test_seeds_go_the_same_way_through_sqlalchemy(database_url: str) -> None:
    with Simulation(database_url) as simulation:
        short = [simulation.run(seed).trace for seed in SEEDS]
        simulation.reset()
        simulation.use(ProductionDatabase)
        long = [simulation.run(seed).trace for seed in SEEDS]
    assert short == long
