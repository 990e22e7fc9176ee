"""The feed of events: nothing skipped, in order, from where one left off; and 304 for pollers."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from sqlalchemy import text

from tests.factories import decision_json
from tests.web.conftest import Served
from torghut.clock import utc_now
from torghut.domain.events import Event, EventKind
from torghut.storage import control
from torghut.storage.event_feed import Place, PlaceNotUsable


def send(served: Served, intent: str) -> str:
    answer = served.client.post("/v1/decisions", json=decision_json(intent=intent))
    assert answer.status_code == 201
    return str(answer.json()["decision_hash"])


def page(served: Served, after: str | None = None, **more: object) -> tuple[list[Any], str]:
    query = {**({"after": after} if after else {}), **more}
    answer = served.client.get("/v1/events", params=query).json()
    return answer["items"], answer["next_cursor"]


@contextmanager
def stream(served: Served, after: str | None = None, **query: str) -> Iterator[Iterator[Any]]:
    """(id, event) of a stream, as they come."""
    headers = {"Accept": "text/event-stream", **({"Last-Event-ID": after} if after else {})}
    with served.client.stream("GET", "/v1/events", headers=headers, params=query) as answer:
        assert answer.headers["content-type"].startswith("text/event-stream")

        def told() -> Iterator[Any]:
            place = ""
            for line in answer.iter_lines():
                if line.startswith("id: "):
                    place = line[4:]
                elif line.startswith("data: "):
                    yield place, json.loads(line[6:])

        yield told()


def test_pages_go_on_where_the_last_one_ended(served: Served) -> None:
    hashes = [send(served, str(n)) for n in range(5)]
    found: list[str] = []
    after = "0"
    while True:
        items, after = page(served, after, limit=2)
        if not items:
            break
        found += [item["decision_hash"] for item in items]
    assert found == hashes
    assert page(served, after)[0] == []
    late = send(served, "late")
    items, _ = page(served, after)
    assert [item["decision_hash"] for item in items] == [late]
    assert items[0]["kind"] == "decision.planned" and items[0]["schema_version"] == 1


def test_without_a_place_it_begins_now(served: Served) -> None:
    send(served, "before")
    items, after = page(served)
    assert items == []
    new = send(served, "after")
    assert [item["decision_hash"] for item in page(served, after)[0]] == [new]


def test_what_is_committed_late_is_not_skipped(served: Served) -> None:
    """An event with a smaller number, committed after a greater one was read."""

    def write(tx: Any, name: str) -> None:
        payload = {"scope": name, "before": "active", "after": "halted", "reason": "x"}
        event = Event(EventKind.TRADING_STATE_CHANGED, "test", payload=payload)
        control.add_events(tx, [event], now=utc_now())

    with served.database.transaction() as late:
        write(late, "late")
        with served.database.transaction() as early:
            write(early, "early")
        items, after = page(served, "0")
        assert [item["payload"]["scope"] for item in items] == ["early"]
    # control: by the number alone it would have been passed over
    with served.database.transaction() as tx:
        numbers = tx.execute(text("SELECT payload ->> 'scope' FROM events ORDER BY event_seq"))
        assert list(numbers.scalars()) == ["late", "early"]
    assert [item["payload"]["scope"] for item in page(served, after)[0]] == ["late"]


def test_a_stream_tells_what_happens_and_goes_on_after_a_break(served: Served) -> None:
    first = send(served, "first")
    with stream(served, after="0") as events:
        place, event = next(events)
        assert event["decision_hash"] == first
        second = send(served, "second")
        assert next(events)[1]["decision_hash"] == second
    with stream(served, after=place) as events:  # as if the second had been lost
        assert next(events)[1]["decision_hash"] == second


def test_streams_end_with_the_server(served: Served) -> None:
    send(served, "one")
    with stream(served, after="0") as events:
        next(events)
        served.server.stop()
        assert list(events) == []


@pytest.mark.parametrize("limit", ["0", "501", "x"])
def test_limits_are_refused(served: Served, limit: str) -> None:
    assert served.client.get("/v1/events", params={"limit": limit}).status_code == 422


@pytest.mark.parametrize(
    "plain",
    ["", "x", "1/5:3:/", "1/5:3://0", "1/3:5:9//0", "1/3:9:5,4//0", "1/3:9:' OR 1//0", "1/1:1://x"],
)
def test_what_is_no_place_is_refused(served: Served, plain: str) -> None:
    import base64

    after = base64.urlsafe_b64encode(plain.encode()).decode().rstrip("=") or "!"
    with pytest.raises(PlaceNotUsable):
        Place.parse(after)
    assert served.client.get("/v1/events", params={"after": after}).status_code == 422
    head = {"Last-Event-ID": after, "Accept": "text/event-stream"}
    assert served.client.get("/v1/events", headers=head).status_code == 422


def test_a_place_of_another_database_is_refused(served: Served) -> None:
    foreign = Place(12345, "3:3:", None, 0)
    assert Place.parse(str(foreign)) == foreign
    answer = served.client.get("/v1/events", params={"after": str(foreign)})
    assert answer.status_code == 422 and "another database" in answer.text


@pytest.mark.parametrize("path", ["decisions", "executions", "trading-states"])
def test_who_has_the_answer_already_is_told_so(served: Served, path: str) -> None:
    send(served, "one")
    first = served.client.get(f"/v1/{path}")
    head = {"If-None-Match": first.headers["etag"]}
    again = served.client.get(f"/v1/{path}", headers=head)
    assert (again.status_code, again.content) == (304, b"")
    served.client.post("/v1/halt", json={"reason": "x"})
    send(served, "two")
    changed = served.client.get(f"/v1/{path}", headers=head)
    assert changed.status_code == (304 if path == "executions" else 200)
