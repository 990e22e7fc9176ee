"""POST /v1/decisions:batch: lines in, lines out; a bad line never stops the others."""

from __future__ import annotations

import io
import json
from collections import Counter
from collections.abc import Iterator
from datetime import timedelta

import httpx

from tests.factories import decision, decision_json
from tests.web.conftest import Served
from tests.web.test_decisions_api import stored
from torghut.clock import utc_now
from torghut.services.batch import LINE_BYTES_MAX, Accounts, lines_of, submit_lines
from torghut.services.intake import IntakeDesk

LINES = {"Content-Type": "application/x-ndjson"}


def line(number: int, **over: object) -> bytes:
    return json.dumps(decision_json(intent=str(number), **over)).encode()


def post(served: Served, body: bytes) -> httpx.Response:
    return served.client.post("/v1/decisions:batch", content=body, headers=LINES)


def results(answer: httpx.Response) -> list[dict[str, object]]:
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"].startswith("application/x-ndjson")
    return [json.loads(text) for text in answer.text.splitlines()]


def test_bad_lines_between_good_ones_lose_none(served: Served) -> None:
    bad = [b"{", b"[]", b"\xff\xfe", line(0, qty="NaN"), line(0, account="other"), b"\0"]
    body = b"\n".join([line(1), *bad, line(2), b"", b"   ", line(1), line(2, qty="7")]) + b"\n"
    got = results(post(served, body))
    assert [row["line"] for row in got] == [1, 2, 3, 4, 5, 6, 7, 8, 11, 12]
    assert [row["result"] for row in got] == [
        "created",
        *["invalid"] * 6,
        "created",
        "replayed",
        "conflict",
    ]
    assert got[0]["decision_hash"] == decision(intent="1").decision_hash
    assert all("error" in row for row in got if row["result"] in ("invalid", "conflict"))
    assert all("error" not in row for row in got if row["result"] in ("created", "replayed"))
    assert all(row["decision_hash"] is None for row in got if row["result"] == "invalid")
    assert "qty" in str(got[-1]["error"])
    assert stored(served.database) == 2


def test_thousands_of_lines_then_again(served: Served) -> None:
    body = b"\r\n".join(line(number) for number in range(2_100))
    assert Counter(str(row["result"]) for row in results(post(served, body))) == {"created": 2_100}
    assert Counter(str(row["result"]) for row in results(post(served, body))) == {"replayed": 2_100}
    assert stored(served.database) == 2_100


def test_a_line_that_is_too_long_is_one_bad_line(served: Served) -> None:
    too_long = [
        line(2).ljust(3 * LINE_BYTES_MAX),
        line(2).ljust(LINE_BYTES_MAX) + b"   x",
        b" " * (2 * LINE_BYTES_MAX) + line(2),
        line(2)[:-1] + b', "params": {"a": "' + b"x" * LINE_BYTES_MAX + b'"}}',
        line(2).ljust(LINE_BYTES_MAX + 2, b"\r"),
    ]
    fits = line(3).ljust(LINE_BYTES_MAX) + b"\r"
    got = results(post(served, b"\n".join([line(1), *too_long, fits, line(4)])))
    assert [row["result"] for row in got] == ["created", *["invalid"] * 5, "created", "created"]
    assert [row["line"] for row in got] == list(range(1, 9))


def test_limits_of_the_whole_batch(served: Served) -> None:
    assert post(served, b"\n" * 100_001).status_code == 413
    assert post(served, b" " * (16 * 1024 * 1024 + 1)).status_code == 413
    assert results(post(served, b"")) == []
    page = {"Content-Type": "text/plain"}
    answer = served.client.post("/v1/decisions:batch", content=line(1), headers=page)
    assert answer.status_code == 415


def test_lines_are_taken_in_chunks_and_each_is_committed_before_it_is_answered(
    served: Served,
) -> None:
    desk = IntakeDesk(served.database, utc_now, lambda _: None)
    read = 0

    def endless() -> Iterator[bytes]:
        nonlocal read
        while True:
            read += 1
            yield line(read)

    answers = submit_lines(
        endless(), desk, accounts=Accounts.only("paper"), ttl=timedelta(days=1), source="test"
    )
    for count, answer in zip(range(1, 752), answers, strict=False):
        assert answer["line"] == count
        assert stored(served.database) >= count if count % 250 == 0 else True
    assert read == 1_000  # two chunks of 500, and nothing ahead of them


def test_lines_of_a_stream() -> None:
    rest = b"y" * (2 * LINE_BYTES_MAX)
    stream = io.BytesIO(b"one\n\n" + rest + b"\ntwo")
    lines = list(lines_of(stream))
    assert [lines[0], lines[1], lines[3]] == [b"one\n", b"\n", b"two"]
    assert LINE_BYTES_MAX < len(lines[2]) <= LINE_BYTES_MAX + 2
