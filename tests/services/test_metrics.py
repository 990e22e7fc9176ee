"""Metrics tell the truth: what is durable is counted, and only the owner speaks of the account."""

from __future__ import annotations

import pytest
from prometheus_client import REGISTRY

from tests.services.rig import Rig
from torghut import telemetry
from torghut.storage.database import Database, after_commit


def value(name: str, **labels: str) -> float | None:
    return REGISTRY.get_sample_value(name, labels)


@pytest.fixture
def database(database_url: str) -> Database:
    return Database(database_url, pool_size=1)


def test_what_is_not_committed_is_not_counted(database: Database) -> None:
    """P5: a step that was rolled back did not happen; nor does it in the next transaction."""
    called: list[str] = []
    with pytest.raises(RuntimeError), database.transaction() as tx:
        after_commit(tx, lambda: called.append("rolled back"))
        raise RuntimeError
    with database.transaction() as tx:
        after_commit(tx, lambda: called.append("committed"))
        assert called == []
    assert called == ["committed"]
    with database.transaction():
        pass
    assert called == ["committed"]
    database.close()


def test_a_stand_by_knows_nothing_of_the_account() -> None:
    """Story 14: a value from before the lease was lost is not the truth of now."""
    for gauge in telemetry.OF_THE_OWNER:
        names = dict.fromkeys(gauge._labelnames, "x") | {"account": "lost"}
        gauge.labels(**names).set(3)
    assert value("torghut_decisions_in_doubt", account="lost") == 3
    telemetry.forget_account("lost")
    left = [
        sample
        for metric in REGISTRY.collect()
        for sample in metric.samples
        if sample.labels.get("account") == "lost"
    ]
    assert left == []


def test_the_pool_is_counted(rig: Rig) -> None:
    before = rig.database.connections_in_use
    with rig.database.transaction():
        assert rig.database.connections_in_use == before + 1
    assert rig.database.connections_in_use == before
    assert rig.database.connections_max > 4
