"""client_order_id: permanent uniqueness, its switches, and the control that must fail.

Exactly-once stands on this behaviour of the broker.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.simulator.bench import Bench, eventually

MESSAGE = "client_order_id must be unique"


def _canceled(bench: Bench) -> None:
    order = bench.order(client_order_id="mine", type="limit", limit_price="10")
    bench.client.cancel_order_by_id(order["id"])
    eventually(lambda: bench.status(order["id"]) == "canceled")


def _expired(bench: Bench) -> None:
    bench.order(client_order_id="mine", type="limit", limit_price="10")
    bench.control("POST", "/orders/mine/expire")


def _rejected(bench: Bench) -> None:
    bench.order(client_order_id="mine", type="limit", limit_price="10")
    bench.control("POST", "/orders/mine/reject")


def _filled(bench: Bench) -> None:
    bench.filled(client_order_id="mine")


def _resting(bench: Bench) -> None:
    bench.order(client_order_id="mine", type="limit", limit_price="10")


PRIORS = [(_resting, 42210000), (_filled, 40010001), (_canceled, 40010001),
          (_expired, 40010001), (_rejected, 40010001)]  # fmt: skip


@pytest.mark.parametrize(("prior", "code"), PRIORS)
def test_permanent(bench: Bench, prior: Callable[[Bench], None], code: int) -> None:
    prior(bench)
    assert bench.refused(client_order_id="mine") == (422, {"code": code, "message": MESSAGE})
    assert len(bench.ledger("mine")) == 1


@pytest.mark.parametrize(("prior", "code"), PRIORS)
def test_active(bench: Bench, prior: Callable[[Bench], None], code: int) -> None:
    bench.switch(uniqueness="active")
    prior(bench)
    if code == 42210000:
        assert bench.refused(client_order_id="mine")[1]["message"] == MESSAGE
    else:
        bench.order(client_order_id="mine")
        assert len(bench.ledger("mine")) == 2


@pytest.mark.parametrize(("prior", "_code"), PRIORS)
def test_off_is_the_control_that_shows_duplicates(
    bench: Bench, prior: Callable[[Bench], None], _code: int
) -> None:
    bench.switch(uniqueness="off")
    prior(bench)
    bench.order(client_order_id="mine")
    books = bench.control("GET", "/ledger")
    assert books["totals"]["duplicate_client_order_ids"] == ["mine"]
    assert len(books["orders"]["mine"]) == 2
    assert bench.control("GET", "/requests")["posts_by_client_order_id"]["mine"] == 2


@pytest.mark.parametrize(("status", "code"), [(409, 40010001), (422, 42210000)])
def test_how_a_duplicate_is_answered(bench: Bench, status: int, code: int) -> None:
    bench.switch(duplicate_status=status, duplicate_code=code)
    bench.filled(client_order_id="mine")
    assert bench.refused(client_order_id="mine") == (status, {"code": code, "message": MESSAGE})


def test_the_shorter_limit_of_old_documentation(bench: Bench) -> None:
    bench.switch(client_order_id_max=48)
    assert bench.refused(client_order_id="x" * 49)[0] == 422
    bench.order(client_order_id="x" * 48)


def test_a_missing_id_is_made_up(bench: Bench) -> None:
    first, second = bench.order(), bench.order()
    assert len({first["client_order_id"], second["client_order_id"]}) == 2
