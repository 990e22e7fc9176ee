"""`torghut bench` measures what it says, on the real path, and notices what is lost."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner

from torghut.bench import figures, path, running
from torghut.bench.figures import Figure
from torghut.bench.grounds import database_home, grounds
from torghut.bench.null_broker import NullBroker
from torghut.bench.running import Sizes
from torghut.cli import app
from torghut.domain.orders import OrderRequest
from torghut.ports import Answer

FEW = Sizes(decisions=40, requests=8, orders=8, waits=3)


@pytest.fixture(autouse=True)
def defaults(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing of the tests' own environment is a setting."""
    for name in [name for name in os.environ if name.startswith("TORGHUT_")]:
        monkeypatch.delenv(name)


@pytest.fixture(scope="module")
def home() -> Iterator[Path]:
    with database_home() as directory:
        yield directory


@pytest.mark.parametrize("part", list(running.PARTS))
def test_each_part_runs_and_gives_each_figure_once(home: Path, part: str) -> None:
    found = running.PARTS[part](home, FEW)
    names = [figure.name for figure in found]
    assert len(set(names)) == len(names)
    assert all(figure.value >= 0 and figure.unit for figure in found)
    told = json.loads(figures.as_json(found))["figures"]
    assert [one["name"] for one in told] == names


class Doubling(NullBroker):
    """Control: a broker that gets each order twice."""

    def submit(self, order: OrderRequest, client_order_id: str) -> Answer:
        super().submit(order, client_order_id)
        return super().submit(order, client_order_id)


def test_control_an_order_that_is_sent_twice_fails_the_bench(home: Path) -> None:
    broker = Doubling()
    with (
        grounds(home, "bench_control", broker) as on,
        pytest.raises(AssertionError, match="lost or sent twice"),
    ):
        path.full(on, broker, 5)


def test_a_part_that_does_not_exist_is_named() -> None:
    done = CliRunner().invoke(app, ["bench", "everything"])
    assert done.exit_code == 2
    assert "no part is called 'everything'; there are intake, path, wire" in done.output


def test_percentiles_are_values_that_were_measured() -> None:
    assert [figures.percentile([3.0, 1.0, 2.0], share) for share in (0.0, 0.5, 0.99)] == [1, 2, 3]
    assert figures.as_table([Figure("rate", 1234.0, "orders/s")]).row_count == 1
