"""A client for the HTTP interface, in a few lines and safe to repeat.

    from torghut.client import Client

    with Client("http://127.0.0.1:8080", token="tgh_…") as torghut:
        sent = torghut.submit({"strategy": "mine", "symbol": "AAPL", …})
        sent.decision_hash, sent.replayed

1. What gets no definite answer is sent again, the same bytes under the same name: a decision by its
   own identity, an operator's request by an `Idempotency-Key` that is made once per call. So a
   repetition is answered with what the first try led to, and nothing is done twice.
2. Waits between tries double from RETRY_S, or are what the server's `Retry-After` says.
3. A definite refusal is an exception at once: `Conflict` (409), `Refused` (any other). What has had
   no answer after all tries is `Unanswered`: it may have been taken; call again, with the same.

Synchronous; one object for each thread. Answers are plain JSON as documented at /openapi.json.
"""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from types import TracebackType
from typing import Any
from urllib.parse import quote

import requests

Json = dict[str, Any]

RETRY_S = 0.25
RETRY_MAX_S = 10.0
AGAIN = frozenset({429, 502, 503, 504})
LOST = (
    requests.ConnectionError,
    requests.Timeout,
    requests.exceptions.ChunkedEncodingError,
)
STREAM_QUIET_S = 60.0
BATCH_LINES = 1_000


class Refused(Exception):
    """A definite refusal: `status`, `kind` (the end of the problem's type), `detail`, and `errors`
    as `{"field", "problem"}`."""

    def __init__(self, status: int, problem: Mapping[str, Any]) -> None:
        self.status = status
        self.kind = str(problem.get("type", "")).rpartition(":")[2]
        self.detail = str(problem.get("detail", ""))
        self.errors: list[dict[str, str]] = list(problem.get("errors", []))
        self.problem = dict(problem)
        faults = "".join(f"; {one['field']}: {one['problem']}" for one in self.errors)
        super().__init__(f"{status} {self.kind}: {self.detail}{faults}")


class Conflict(Refused):
    """The name stands for something else already; of a decision `problem` has the fields that
    differ."""


class Unanswered(Exception):
    """No definite answer after all tries: it may have been taken. The same call again is safe for
    decisions, and for other requests with the same `key`."""


@dataclass(frozen=True, slots=True)
class Sent:
    """A decision that is stored; `replayed` if it had been before."""

    decision_hash: str
    status: str
    replayed: bool


class Client:
    """One connection to a daemon. `timeout_s` is for each try, `tries` how many there are."""

    def __init__(
        self, url: str, *, token: str | None = None, timeout_s: float = 10, tries: int = 6
    ) -> None:
        self._url = url.rstrip("/")
        self._timeout_s = timeout_s
        self._tries = tries
        self._session = requests.Session()
        if token is not None:
            self._session.headers["Authorization"] = f"Bearer {token}"
        self._closed = threading.Event()

    def __enter__(self) -> Client:
        return self

    def __exit__(
        self,
        _type: type[BaseException] | None,
        _error: BaseException | None,
        _traceback: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """End the connection; a wait for another try ends at once."""
        self._closed.set()
        self._session.close()

    # ------------------------------------------------------------------ decisions

    def submit(self, decision: Mapping[str, Any]) -> Sent:
        """Store one decision. Raises Conflict, Refused (422 with every fault), Unanswered."""
        answer = self._ask("POST", "/v1/decisions", body=_json(decision))
        replayed = answer.headers.get("Idempotent-Replayed") == "true"
        found = answer.json()
        return Sent(found["decision_hash"], found["status"], replayed)

    def submit_many(self, decisions: Iterable[Mapping[str, Any]]) -> Iterator[Json]:
        """Store decisions; for each, in order, `{"line", "decision_hash", "result", "error"?}`.
        A bad one never stops the others. Raises Refused, Unanswered."""
        batch: list[bytes] = []
        before = 0
        for decision in decisions:
            batch.append(_json(decision))
            if len(batch) == BATCH_LINES:
                yield from self._submit(batch, before)
                before, batch = before + len(batch), []
        if batch:
            yield from self._submit(batch, before)

    def decision(self, decision_hash: str) -> Json:
        """One decision, by its hash or 8 or more first characters. Raises Refused (404)."""
        return self._get(f"/v1/decisions/{quote(decision_hash, safe='')}")

    def story(self, decision_hash: str) -> Json:
        """Its whole story: identity, verdict, attempts, order, fills, events."""
        return self._get(f"/v1/decisions/{quote(decision_hash, safe='')}/story")

    # ------------------------------------------------------------------ lists

    def rows(self, name: str, **filters: str | int) -> Iterator[Json]:
        """All of `decisions`, `executions`, `fills`, `positions`, `actions` or `discrepancies`,
        newest first, page by page; filters are those of the interface (status, symbol, since …)."""
        query = {key: value for key, value in filters.items() if value is not None}
        while True:
            page = self._get(f"/v1/{name}", query)
            yield from page["items"]
            if page["next_cursor"] is None:
                return
            query["cursor"] = page["next_cursor"]

    def status(self) -> Json:
        """How the account stands."""
        return self._get("/v1/status")

    def events(self, after: str | None = None) -> Iterator[tuple[str, Json]]:
        """What happens, without end: the place after each event, and the event. Keep the place,
        and give it as `after` to go on from there; `"0"` is the beginning, None is now. Comes back
        by itself when the connection is lost. Raises Refused, Unanswered."""
        place = after if after is not None else str(self._get("/v1/events")["next_cursor"])
        while not self._closed.is_set():
            answer = self._ask("GET", "/v1/events", query={"after": place}, stream=True)
            try:
                for at, event in _told(answer):
                    place = at
                    yield at, event
            except requests.RequestException:
                continue
            finally:
                answer.close()

    # ------------------------------------------------------------------ operation

    def halt(self, reason: str, **scope: str) -> Json:
        """Stop trading: everything, or `account=`, or `strategy=`."""
        return self._do("/v1/halt", {"reason": reason, **scope})

    def reduce(self, reason: str, **scope: str) -> Json:
        """Let only orders through that shrink a position."""
        return self._do("/v1/reduce", {"reason": reason, **scope})

    def resume(self, reason: str, **scope: str) -> Json:
        """Trade again."""
        return self._do("/v1/resume", {"reason": reason, **scope})

    def cancel(self, decision_hash: str, reason: str, *, key: str | None = None) -> Json:
        """Cancel a decision's order, or call the decision off; `key` names the request."""
        path = f"/v1/decisions/{quote(decision_hash, safe='')}:cancel"
        return self._do(path, {"reason": reason}, key)

    def replace(
        self, decision_hash: str, reason: str, *, key: str | None = None, **values: str
    ) -> Json:
        """Replace its order by one with other values: qty, limit_price, stop_price, trail,
        time_in_force."""
        path = f"/v1/decisions/{quote(decision_hash, safe='')}:replace"
        return self._do(path, {"reason": reason, **values}, key)

    def cancel_all(self, reason: str, *, key: str | None = None, **filters: str) -> Json:
        """Cancel every order, or those of a `symbol=`, a `strategy=`."""
        return self._do("/v1/orders:cancel", {"reason": reason, **filters}, key)

    def close_position(
        self, symbol: str, reason: str, *, qty: str | None = None, key: str | None = None
    ) -> Json:
        """Close a position, or `qty` of it."""
        body = {"reason": reason, **({} if qty is None else {"qty": qty})}
        return self._do(f"/v1/positions/{quote(symbol)}:close", body, key)

    def flatten(self, reason: str, *, key: str | None = None) -> Json:
        """Cancel every order, then close every position."""
        return self._do("/v1/flatten", {"reason": reason}, key)

    # ------------------------------------------------------------------ pieces

    def _submit(self, batch: list[bytes], before: int) -> Iterator[Json]:
        answer = self._ask(
            "POST", "/v1/decisions:batch", body=b"\n".join(batch), media_type="application/x-ndjson"
        )
        for line in answer.text.splitlines():
            found: Json = json.loads(line)
            yield {**found, "line": found["line"] + before}

    def _get(self, path: str, query: Mapping[str, str | int] | None = None) -> Json:
        found: Json = self._ask("GET", path, query=query).json()
        return found

    def _do(self, path: str, body: Mapping[str, Any], key: str | None = None) -> Json:
        name = key or os.urandom(16).hex()
        found: Json = self._ask("POST", path, body=_json(body), key=name).json()
        return found

    def _ask(
        self,
        method: str,
        path: str,
        *,
        query: Mapping[str, str | int] | None = None,
        body: bytes | None = None,
        media_type: str = "application/json",
        key: str | None = None,
        stream: bool = False,
    ) -> requests.Response:
        headers = {"Accept": "text/event-stream"} if stream else {}
        headers |= {} if body is None else {"Content-Type": media_type}
        headers |= {} if key is None else {"Idempotency-Key": key}
        timeout = (self._timeout_s, STREAM_QUIET_S if stream else self._timeout_s)
        problem, wait_s = "", RETRY_S
        for left in reversed(range(self._tries)):
            try:
                answer = self._session.request(
                    method, self._url + path, params=dict(query or {}), data=body,
                    headers=headers, timeout=timeout, stream=stream, allow_redirects=False,
                )  # fmt: skip
            except LOST as error:
                problem, asked_s = type(error).__name__, 0.0
            else:
                if answer.ok:
                    return answer
                again = answer.status_code in AGAIN or (
                    answer.status_code == 409 and "Retry-After" in answer.headers
                )
                if not again:
                    raise _refusal(answer)
                problem, asked_s = str(answer.status_code), _retry_after_s(answer)
            if left and self._closed.wait(min(max(wait_s, asked_s), RETRY_MAX_S)):
                break
            wait_s *= 2
        raise Unanswered(f"{method} {path}: no definite answer in {self._tries} tries ({problem})")


def _refusal(answer: requests.Response) -> Refused:
    try:
        problem = answer.json()
    except ValueError:
        problem = {}
    kind = Conflict if answer.status_code == 409 else Refused
    return kind(answer.status_code, problem if isinstance(problem, dict) else {})


def _retry_after_s(answer: requests.Response) -> float:
    text = answer.headers.get("Retry-After", "")
    return float(text) if text.isdigit() else 0.0


def _told(answer: requests.Response) -> Iterator[tuple[str, Json]]:
    """(id, event) of a stream of server-sent events, as ours are written: one line of data each."""
    place = ""
    for line in answer.iter_lines(chunk_size=1):
        if line.startswith(b"id: "):
            place = line[4:].decode()
        elif line.startswith(b"data: "):
            yield place, json.loads(line[6:])


def _json(value: Mapping[str, Any]) -> bytes:
    return json.dumps(value, default=_plain, allow_nan=False).encode()


def _plain(value: object) -> str:
    """Instants as RFC 3339, amounts as text."""
    return value.isoformat() if isinstance(value, datetime) else str(value)
