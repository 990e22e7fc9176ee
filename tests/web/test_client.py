"""torghut.client on a network that loses answers: what is sent again is done once."""

from __future__ import annotations

import re
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
from sqlalchemy import text

from tests.factories import decision_json
from tests.web.conftest import Serve, Served
from torghut.client import Client, Conflict, Refused, Unanswered

API = Path(__file__).parent.parent.parent / "docs" / "api.md"


@contextmanager
def losing(port: int, answers: int) -> Iterator[str]:
    """The address of a way to `port` that loses the first `answers` answers."""
    listener = socket.create_server(("127.0.0.1", 0))
    left = [answers]

    def serve(near: socket.socket) -> None:
        with near, socket.create_connection(("127.0.0.1", port), timeout=60) as far:
            while request := near.recv(65_536):
                far.sendall(request)
                if b"\r\n\r\n" not in request or (
                    request.startswith(b"POST") and request.endswith(b"\r\n\r\n")
                ):
                    continue  # the body comes apart from the head
                answer = far.recv(65_536)
                if left[0] > 0:
                    left[0] -= 1
                    return
                near.sendall(answer)

    def accept() -> None:
        with suppress(OSError):
            while True:
                near, _ = listener.accept()
                threading.Thread(target=quietly, args=[near], daemon=True).start()

    def quietly(near: socket.socket) -> None:
        with suppress(OSError):
            serve(near)

    threading.Thread(target=accept, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        assert left[0] == 0, "answers were lost"
    finally:
        listener.close()


def count(served: Served, query: str) -> int:
    with served.database.transaction() as tx:
        return int(tx.execute(text(f"SELECT count(*) FROM {query}")).scalar_one())


def test_a_decision_whose_answer_was_lost_is_stored_once(served: Served) -> None:
    with losing(served.port, 2) as url, Client(url) as torghut:
        sent = torghut.submit(decision_json())
    assert sent.replayed  # the first try had stored it
    assert count(served, "trade_decisions") == 1


def test_a_request_whose_answer_was_lost_is_done_once(served: Served) -> None:
    with losing(served.port, 1) as url, Client(url) as torghut:
        torghut.flatten("fire")
    with losing(served.port, 1) as url, Client(url) as torghut:
        assert torghut.halt("fire")["state"] == "halted"
    assert count(served, "events WHERE kind = 'trading_state.changed'") == 2  # and reducing
    assert count(served, "flattens") == 1


def test_no_answer_at_all_says_so() -> None:
    with socket.create_server(("127.0.0.1", 0)) as full:
        port = full.getsockname()[1]
        full.close()
        with Client(f"http://127.0.0.1:{port}", tries=2) as torghut, pytest.raises(Unanswered):
            torghut.status()


def test_refusals_are_exceptions_at_once(serve: Serve) -> None:
    served = serve(api_tokens="t")
    url = f"http://127.0.0.1:{served.port}"
    with Client(url, token="wrong") as torghut, pytest.raises(Refused) as refused:
        torghut.status()
    assert (refused.value.status, refused.value.kind) == (401, "invalid-token")
    with Client(url, token="t") as torghut:
        torghut.submit(decision_json())
        with pytest.raises(Conflict) as conflict:
            torghut.submit(decision_json(qty="7"))
        assert conflict.value.problem["differing_fields"]
        with pytest.raises(Refused, match="qty") as invalid:
            torghut.submit(decision_json(qty="-1"))
        assert invalid.value.errors[0]["field"] == "qty"


def test_lists_and_batches_are_whole(served: Served) -> None:
    with Client(f"http://127.0.0.1:{served.port}") as torghut:
        sent = list(torghut.submit_many(decision_json(intent=str(n)) for n in range(1_003)))
        assert [one["line"] for one in sent] == list(range(1, 1_004))
        assert {one["result"] for one in sent} == {"created"}
        rows = list(torghut.rows("decisions", limit=500))
        assert {row["decision_hash"] for row in rows} == {one["decision_hash"] for one in sent}
        assert torghut.story(rows[0]["decision_hash"])


def test_the_feed_comes_back_by_itself(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    from torghut.web import events_api

    monkeypatch.setattr(events_api, "STREAM_S", 0.5)
    with Client(f"http://127.0.0.1:{served.port}") as torghut:
        events = torghut.events(after="0")
        for n in range(3):
            sent = torghut.submit(decision_json(intent=str(n)))
            place, event = next(events)
            assert event["decision_hash"] == sent.decision_hash
            threading.Event().wait(0.6)  # the stream is over meanwhile
        events.close()
        rest = served.client.get("/v1/events", params={"after": place}).json()
        assert rest["items"] == []  # what was told is what there was


def test_the_example_of_the_document_runs(serve: Serve, capsys: pytest.CaptureFixture[str]) -> None:
    (example,) = re.findall(r"```python\n(.*?)```", API.read_text(encoding="utf-8"), re.DOTALL)
    served = serve(api_tokens="t")
    exec(example, {"url": f"http://127.0.0.1:{served.port}", "token": "t"})
    said = capsys.readouterr().out
    assert "True" in said and "422" in said and "trading_state.changed http:token-" in said
