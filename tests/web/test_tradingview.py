"""Alerts of TradingView: each at most one decision, and what is wrong is seen by a person."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest
from sqlalchemy import text

from tests.web.conftest import Serve, Served
from torghut.domain.alerts import AlertRule, event_name
from torghut.services import operator

SECRET = "canary-of-the-webhook"
NOW = datetime.now(UTC)  # noqa: TID251 - the interface has a clock of its own
TABLE: dict[str, Any] = {
    "tradingview": {
        "secret": SECRET,
        "max_age_s": 3600,  # NOW is when these tests were read
        "alerts": {
            "trend": {"strategy": "trend", "symbols": {"NASDAQ:AAPL": "AAPL", "BTCUSD": "BTC/USD"}},
            "any": {"strategy": "any", "type": "limit", "time_in_force": "gtc"},
        },
    }
}


def alert(**over: object) -> dict[str, object]:
    """An alert as TradingView fills it in; None leaves a field out."""
    fields: dict[str, object] = {
        "secret": SECRET,
        "alert": "trend",
        "ticker": "AAPL",
        "exchange": "NASDAQ",
        "action": "buy",
        "contracts": "10",
        "time": (NOW - timedelta(minutes=5)).isoformat(),
        "timenow": NOW.isoformat(),
        **over,
    }
    return {name: value for name, value in fields.items() if value is not None}


@pytest.fixture
def hooked(serve: Serve) -> Served:
    return serve(webhooks=TABLE, api_tokens="whole")


def post(served: Served, sent: object, path: str = "", **headers: str) -> httpx.Response:
    body = sent if isinstance(sent, str | bytes) else json.dumps(sent)
    head = {"Content-Type": "application/json", **headers}
    return served.client.post(f"/webhooks/tradingview{path}", content=body, headers=head)


def decisions(served: Served) -> list[dict[str, Any]]:
    with served.database.transaction() as tx:
        rows = tx.execute(text("SELECT * FROM trade_decisions ORDER BY decision_id"))
        return [dict(row) for row in rows.mappings()]


def refused(served: Served) -> list[dict[str, Any]]:
    head = {"Authorization": "Bearer whole"}
    rows = served.client.get("/v1/discrepancies?status=open", headers=head).json()["items"]
    return [row for row in rows if row["kind"] == "alert_refused"]


def test_an_alert_is_a_decision_once_however_often_it_is_sent(hooked: Served) -> None:
    first = post(hooked, alert())
    assert first.status_code == 201, first.text
    later = (NOW + timedelta(seconds=20)).isoformat()
    for again in (alert(), alert(timenow=later), alert(ticker="NASDAQ:AAPL", exchange=None)):
        answer = post(hooked, again)
        assert (answer.status_code, answer.json()["result"]) == (200, "replayed")
        assert answer.json()["decision_hash"] == first.json()["decision_hash"]
    (row,) = decisions(hooked)
    assert (row["strategy"], row["symbol"], row["side"], row["source"]) == (
        *("trend", "AAPL", "buy"),
        "tradingview",
    )
    assert refused(hooked) == [] and hooked.wakes == [1]


@pytest.mark.parametrize(
    "other",
    [
        {"time": (NOW - timedelta(minutes=4)).isoformat()},
        {"action": "sell"},
        {"order_id": "second"},
        {"event_id": "mine"},
        {"ticker": "BTCUSD", "exchange": "COINBASE"},
    ],
)
def test_control_another_event_is_another_decision(hooked: Served, other: dict[str, str]) -> None:
    assert post(hooked, alert()).status_code == 201
    assert post(hooked, alert(**other)).status_code == 201
    assert len(decisions(hooked)) == 2


def test_the_secret_may_be_in_the_path(hooked: Served) -> None:
    assert post(hooked, alert(secret=None), f"/{SECRET}").status_code == 201
    plain = {"Content-Type": "text/plain; charset=utf-8"}
    assert post(hooked, alert(secret=None), f"/{SECRET}", **plain).status_code == 200


@pytest.mark.parametrize(
    ("path", "secret"),
    [("", None), ("", ""), ("", "wrong"), ("", 7), ("", SECRET[:-1]), ("/wrong", SECRET)],
)
def test_without_the_secret_nothing_is_kept(hooked: Served, path: str, secret: object) -> None:
    answer = post(hooked, alert(secret=secret), path)
    assert (answer.status_code, decisions(hooked), refused(hooked)) == (401, [], [])
    assert answer.json()["type"].endswith("wrong-secret") and SECRET not in answer.text


def test_guesses_are_slowed_down(hooked: Served) -> None:
    answers = [post(hooked, alert(secret="guess")).status_code for _ in range(40)]
    assert set(answers) == {401, 429}
    assert post(hooked, alert()).status_code == 201  # the right one is let in all the while


WRONG = [
    ({"contracts": None}, "contracts"),
    ({"contracts": "-1"}, "qty"),
    ({"contracts": "NaN"}, "qty"),
    ({"action": "hold"}, "side"),
    ({"alert": "other"}, "alert"),
    ({"ticker": "MSFT"}, "ticker"),
    ({"time": "yesterday"}, "time"),
    ({"timenow": None}, "timenow"),
    ({"quantity": "1"}, "quantity"),
    ({"comment": "x" * 300}, "comment"),
    ({"alert": "any", "ticker": "MSFT"}, "limit_price"),
]


@pytest.mark.parametrize(("over", "field"), WRONG)
def test_a_wrong_alert_is_answered_and_seen(
    hooked: Served, over: dict[str, object], field: str
) -> None:
    for _ in range(2):  # what is sent again is no second row
        answer = post(hooked, alert(**over))
        assert answer.status_code == 422
        assert field in {one["field"] for one in answer.json()["errors"]}, answer.text
    (row,) = refused(hooked)
    assert field in row["evidence"]["problem"] and SECRET not in json.dumps(row)
    assert decisions(hooked) == []


@pytest.mark.parametrize("body", ["", "{", "[1]", "null", '{"a": NaN}', "\x00", "é" * 100])
def test_what_is_no_object_is_refused(hooked: Served, body: str) -> None:
    assert post(hooked, body).status_code == 401  # it holds no secret
    assert post(hooked, body.encode(), f"/{SECRET}").status_code == 422
    assert len(refused(hooked)) == 1


@pytest.mark.parametrize("seconds", [-3601, 61])
def test_a_stale_alert_is_not_traded(hooked: Served, seconds: int) -> None:
    fired = (datetime.now(UTC) + timedelta(seconds=seconds)).isoformat()  # noqa: TID251
    answer = post(hooked, alert(timenow=fired))
    assert answer.status_code == 422 and answer.json()["type"].endswith("stale-alert")
    assert "timenow" in refused(hooked)[0]["evidence"]["problem"]
    assert decisions(hooked) == []


def test_another_order_under_the_same_event_changes_nothing(hooked: Served) -> None:
    assert post(hooked, alert()).status_code == 201
    answer = post(hooked, alert(contracts="11"))
    assert answer.status_code == 409 and answer.json()["differing_fields"] == ["qty"]
    (row,) = refused(hooked)
    assert "qty" in row["evidence"]["problem"]
    done = operator.resolve(
        hooked.database,
        row["id"],
        actor="cli:me",
        reason="seen",
        now=datetime.now(UTC),  # noqa: TID251
    )
    assert done["kind"] == "alert_refused" and refused(hooked) == []


def test_the_attention_page_shows_it(serve: Serve) -> None:
    served = serve(webhooks=TABLE)
    post(served, alert(contracts="<b>0</b>"))
    page = served.client.get("/console/attention").text
    assert "alert_refused" in page and "Resolve" in page
    assert "<b>0</b>" not in page and SECRET not in page


def test_without_a_table_there_is_no_webhook(served: Served) -> None:
    assert post(served, alert()).status_code == 404


def test_nothing_is_acknowledged_while_the_database_is_away(serve: Serve) -> None:
    served = serve(url="postgresql://nobody@127.0.0.1:1/nowhere", webhooks=TABLE)
    assert post(served, alert()).status_code == 503
    assert post(served, alert(contracts="0")).status_code == 503  # it would be seen by nobody


def test_events_have_names() -> None:
    bar = datetime(2026, 1, 5, 14, 30, tzinfo=UTC)
    assert event_name("trend", bar, "", "") == "tradingview:trend:2026-01-05T14:30:00.000000Z"
    assert event_name("trend", bar, "mine", "x") == "tradingview:mine"
    assert AlertRule(strategy="x").symbols == {}
