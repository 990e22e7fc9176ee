"""POST and GET of plans: created, replayed, in conflict, refused; and their pages when empty."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

from sqlalchemy import text

from tests.web.conftest import Serve, Served
from tests.web.test_away import away
from tests.web.test_decisions_api import faults


def plan(**over: object) -> dict[str, object]:
    item = {"symbol": "aapl", "action": "BUY", "trade_amount": "100.50"}
    body = {"correlation_id": "one", "items": [item], **over}
    return {name: value for name, value in body.items() if value is not None}


def test_created_then_replayed_then_in_conflict(served: Served) -> None:
    """P2: the second answer is the first's result; another content names what differs."""
    first = served.client.post("/v1/plans", json=plan())
    assert first.status_code == 201 and first.json()["result"] == "created"
    at = first.headers["Location"]
    again = served.client.post("/v1/plans", json=plan())
    assert (again.status_code, again.headers["Idempotent-Replayed"]) == (200, "true")
    assert again.json()["plan"]["id"] == first.json()["plan_id"]
    item = {"symbol": "AAPL", "action": "buy", "trade_amount": 101}
    other = served.client.post("/v1/plans", json=plan(items=[item], sizing="fractional"))
    assert other.status_code == 409
    assert other.json()["differing_fields"] == ["items[0].trade_amount", "sizing"]
    found = served.client.get(at).json()
    assert found["status"] == "working"
    assert [(i["symbol"], i["action"], i["status"]) for i in found["items"]] == [
        ("AAPL", "buy", "pending"),
    ]  # fmt: skip
    assert [step["name"] for step in found["saga"]["steps"]] == [
        "prepare", "sell", "fund", "buy", "finish",
    ]  # fmt: skip
    assert found["statistics"]["buy"]["placed"] == 0
    assert served.client.get("/v1/plans/999").status_code == 404


def test_the_list_has_pages_and_filters(served: Served) -> None:
    for n in range(5):
        over = {"correlation_id": f"c{n}", "strategy": f"s{n % 2}"}
        assert served.client.post("/v1/plans", json=plan(**over)).status_code == 201
    page = served.client.get("/v1/plans?limit=2").json()
    assert [row["correlation_id"] for row in page["items"]] == ["c4", "c3"]
    rest = served.client.get(f"/v1/plans?cursor={page['next_cursor']}").json()
    assert [row["correlation_id"] for row in rest["items"]] == ["c2", "c1", "c0"]
    assert len(served.client.get("/v1/plans?strategy=s1&status=working").json()["items"]) == 2
    assert served.client.get("/v1/plans?status=planned").status_code == 422


def test_what_is_no_plan_is_refused_with_every_fault(served: Served) -> None:
    item = {"symbol": "A", "action": "keep", "trade_amount": "-1"}
    answer = served.client.post("/v1/plans", json=plan(correlation_id=None, items=[item]))
    assert answer.status_code == 422
    assert set(faults(answer)) == {"correlation_id", "items[0].action", "items[0].trade_amount"}
    assert served.client.post("/v1/plans", content="{").status_code in (415, 422)


def test_many_senders_of_one_plan_make_one(served: Served) -> None:
    """P1: 16 at once, one plan, one saga, and the same plan in every answer."""
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda _: served.client.post("/v1/plans", json=plan()), range(16)))
    assert sorted(a.status_code for a in answers) == [200] * 15 + [201]
    assert len({a.json()["plan_id"] for a in answers}) == 1
    with served.database.transaction() as tx:
        query = "SELECT (SELECT count(*) FROM plans), (SELECT count(*) FROM sagas)"
        assert tuple(tx.execute(text(query)).one()) == (1, 1)


def test_without_a_database_nothing_is_acknowledged(
    serve: Serve, database_url: str, postgres_url: str
) -> None:
    served = serve()
    with away(database_url, postgres_url):
        assert served.client.post("/v1/plans", json=plan()).status_code == 503


def test_pages_without_plans_say_what_to_do(served: Served) -> None:
    page = served.client.get("/console/plans").text
    assert "torghut plan FILE" in page and "torghut order FILE" in page
    for path in ("/console/plans/7", "/console/sagas/7", "/console/plans/x"):
        assert served.client.get(path).status_code == 404


def test_a_saga_that_cannot_be_undone_waits_for_a_person(served: Served) -> None:
    """Attention and the saga's page say what stands in its way."""
    served.client.post("/v1/plans", json=plan())
    with served.database.transaction() as tx:
        for change in (
            "UPDATE sagas SET status = 'compensating', failure = 'sell: <b>refused</b>'",
            "UPDATE saga_steps SET status = 'running', started_at = now() WHERE position = 0",
            "UPDATE saga_steps SET status = 'failed', ended_at = now() WHERE position = 0",
            "UPDATE saga_steps SET status = 'undoing', undo_failures = 3, error = 'no <i>way</i>'"
            " WHERE position = 0",
        ):
            tx.execute(text(change))
    page = served.client.get("/console/attention").text
    assert "saga 1" in page and "failed 3 times" in page and "no &lt;i&gt;way&lt;/i&gt;" in page
    page = served.client.get("/console/sagas/1").text
    assert "is being undone: sell: &lt;b&gt;refused" in page
