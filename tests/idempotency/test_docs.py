"""docs/idempotency.md: its examples are run, and its table has every refusal."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import httpx
import pytest
from sqlalchemy import text

from torghut.idempotency import KeyReused, OutcomeUnknown, Store, exactly_once
from torghut.idempotency.http_refusals import Refusal
from torghut.web.server import HttpServer

PAGE = (Path(__file__).parents[2] / "docs" / "idempotency.md").read_text(encoding="utf-8")
FUNCTION, TRANSACTION, APPLICATION = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)


class Bank:
    """Of the examples."""

    def __init__(self) -> None:
        self.paid: list[str] = []
        self.lost = False

    def pay(self, *, amount: str, reference: str) -> str:
        self.paid.append(reference)
        if self.lost:
            raise TimeoutError
        return amount

    def lookup(self, reference: str) -> str | None:
        return "12.50" if self.paid else None


@pytest.fixture
def names(store: Store, foreign_url: str) -> dict[str, Any]:
    with store.transaction() as tx:
        tx.execute(text("DROP TABLE IF EXISTS bookings"))
        tx.execute(text("CREATE TABLE bookings (amount numeric, token bigint)"))
    return {"DATABASE_URL": foreign_url, "bank": Bank(), "NoSuchAccount": LookupError}


def test_the_function(names: dict[str, Any], capsys: pytest.CaptureFixture[str]) -> None:
    for _ in range(2):
        exec(FUNCTION, names)
    assert capsys.readouterr().out.splitlines() == ["12.50 False", "12.50 True"]
    assert names["bank"].paid == ["invoice-4711"]
    with pytest.raises(KeyReused):
        exactly_once("invoice-4711", lambda _: 1, store=names["store"], payload={"amount": "9"})


def test_an_unknown_outcome_is_looked_up(names: dict[str, Any]) -> None:
    """The payment times out; the second call asks the bank, and does not pay again."""
    names["bank"].lost = True
    with pytest.raises(TimeoutError):
        exec(FUNCTION, names)
    exec(FUNCTION, names)
    assert (names["paid"].value, names["bank"].paid) == ("12.50", ["invoice-4711"])
    with pytest.raises(TimeoutError):
        exec(FUNCTION.replace("4711", "4712"), names)
    names["bank"].paid.clear()
    with pytest.raises(OutcomeUnknown):
        exec(FUNCTION.replace("4711", "4712"), names)


def test_the_transaction(names: dict[str, Any], store: Store) -> None:
    exec(FUNCTION, names)
    for _ in range(2):
        exec(TRANSACTION, names)
    assert names["booked"].replayed
    with store.transaction() as tx:
        assert tx.execute(text("SELECT count(*) FROM bookings")).scalar_one() == 1


def test_the_application(names: dict[str, Any]) -> None:
    exec(FUNCTION, names)
    exec(APPLICATION, names)
    server = HttpServer(names["app"], "127.0.0.1", 0)
    server.start()
    with httpx.Client(base_url=f"http://127.0.0.1:{server.port}", trust_env=False) as client:
        paths = ("/payments?amount=3", "/searches?words=a")
        key = {"Idempotency-Key": '"8e03978e-40d5"'}
        assert [client.post(path).status_code for path in paths] == [400, 200]
        first, again = (client.post(paths[0], headers=key) for _ in range(2))
        assert (first.json(), again.json()) == ({"paid": "3"}, {"paid": "3"})
        assert again.headers["idempotent-replayed"] == "true"
        assert client.post(paths[1], headers=key).json() == {"found": []}
    server.stop()


def test_the_table_has_every_refusal() -> None:
    """With its status; the table in the code's own docstring, too."""
    refusals = [
        *(Refusal.missing(), Refusal.malformed(""), Refusal.disconnected(), Refusal.slow(1)),
        *(Refusal.too_large(1), Refusal.in_progress(), Refusal.unknown(), Refusal.not_kept(200)),
        *(Refusal.reused(), Refusal.unavailable()),
    ]
    made = [name for name, value in vars(Refusal).items() if isinstance(value, classmethod)]
    assert len(made) == len(refusals)
    for refusal in refusals:
        assert f"`{refusal.status}` `{refusal.kind}`" in PAGE, refusal.kind
