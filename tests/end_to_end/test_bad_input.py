"""Bad input: one clear error each, an exact exit code, and nothing lost."""

from __future__ import annotations

import json
import socket

import pytest

from tests.end_to_end.user import User, eventually, one_line
from tests.factories import decision_json

GOOD = decision_json(intent="good")
LINES = {
    "malformed": ('{"strategy": "s", ', "JSON"),
    "no object": ("[1, 2]", "object"),
    "unknown field": (decision_json(quantity="5"), "quantity"),
    "NaN": ('{"strategy":"s","symbol":"AAPL","side":"buy","type":"market","qty":NaN,'
            '"event_ts":"2026-01-05T14:30:00Z"}', "NaN"),
    "infinity": (decision_json(qty="Infinity"), "qty"),
    "negative qty": (decision_json(qty="-1"), "qty"),
    "zero qty": (decision_json(qty="0"), "qty"),
    "qty and notional": (decision_json(notional="100"), "notional"),
    "neither": (decision_json(qty=None), "qty"),
    "long symbol": (decision_json(symbol="A" * 10_000), "symbol"),
    "no zone": (decision_json(event_ts="2026-01-05T14:30:00"), "event_ts"),
    "no event_ts": (decision_json(event_ts=None), "event_ts"),
    "duplicate key": ('{"strategy":"a","strategy":"b"}', "strategy"),
    "too long a line": (json.dumps(decision_json(params={"x": "y" * 300_000})), "longer than"),
    "another account": (decision_json(account="other"), "account"),
    "limit without price": (decision_json(type="limit"), "limit_price"),
}  # fmt: skip


def test_one_bad_line_each(user: User) -> None:
    """All of them in one file, good ones between: every line answered, the good ones stored."""
    lines: list[object] = []
    for n, (line, _) in enumerate(LINES.values()):
        lines += [line, decision_json(intent=f"good {n}")]
    code, answers = user.submit(lines)  # type: ignore[arg-type]
    assert code == 1
    assert [a["line"] for a in answers] == list(range(1, len(lines) + 1))
    assert [a["result"] for a in answers] == ["invalid", "created"] * len(LINES)
    for (name, (_, word)), answer in zip(LINES.items(), answers[::2], strict=True):
        assert word in answer["error"], (name, answer)
        assert "\n" not in answer["error"] and len(answer["error"]) <= 1000, name
        assert answer["decision_hash"] is None
    assert user.statuses() == {"planned": len(LINES)}


@pytest.mark.parametrize("name", ["malformed", "NaN", "long symbol"])
def test_alone_it_exits_1_and_stores_nothing(user: User, name: str) -> None:
    code, (answer,) = user.submit([LINES[name][0]])  # type: ignore[list-item]
    assert (code, answer["result"]) == (1, "invalid")
    assert user.statuses() == {}


def test_conflict(user: User) -> None:
    """The fields that differ are named; the first one stands; exit 1. Again: replayed, exit 0."""
    assert user.submit([GOOD])[0] == 0
    code, answers = user.submit([{**GOOD, "qty": "11", "time_in_force": "gtc"}, GOOD])
    assert (code, [a["result"] for a in answers]) == (1, ["conflict", "replayed"])
    assert answers[0]["error"].endswith("different: qty, time_in_force")
    assert user.sql("SELECT qty FROM trade_decisions") == [(10,)]
    assert user.submit([GOOD])[0] == 0


def test_standard_input_and_a_file_that_is_not_there(user: User) -> None:
    done = user.torghut("submit", "-", stdin=json.dumps(GOOD) + "\n\n")
    assert (done.returncode, json.loads(done.stdout)["result"]) == (0, "created")
    done = user.torghut("submit", str(user.folder / "missing.jsonl"))
    assert done.returncode == 2
    one_line(done, "missing.jsonl", "No such file")


@pytest.mark.parametrize("command", [("run",), ("submit", "-"), ("decisions",)])
def test_database_down(user: User, command: tuple[str, ...]) -> None:
    url = "postgresql://u:canary-pw@127.0.0.1:9/d"
    done = user.torghut(*command, stdin=json.dumps(GOOD), TORGHUT_DATABASE_URL=url)
    assert done.returncode == 1
    one_line(done, "127.0.0.1:9", "does not answer")
    assert "canary-pw" not in done.stderr


def test_a_database_without_the_schema(new_user: User) -> None:
    for command in (("run",), ("submit", "-")):
        done = new_user.torghut(*command, stdin=json.dumps(GOOD))
        assert done.returncode == 1, command
        one_line(done, "torghut migrate")


def test_broker_down_at_start(user: User) -> None:
    """The daemon waits for it: what is sent meanwhile is kept, and traded once it is there."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    user.env |= {
        "TORGHUT_BROKER": "alpaca",
        "APCA_API_BASE_URL": f"http://127.0.0.1:{port}",
        "APCA_API_KEY_ID": "any-key",
        "APCA_API_SECRET_KEY": "any-secret",
    }
    daemon = user.run()
    assert "broker does not answer" in daemon.output
    assert user.submit([GOOD])[0] == 0
    user.sim(port=port)
    eventually(lambda: user.statuses() == {"closed": 1})
    assert user.posts() == 1


def test_wrong_keys(user: User) -> None:
    user.sim("--key", "right", "--secret", "right")
    done = user.torghut("run")
    assert done.returncode == 78
    line = done.stderr.splitlines()[-1]
    assert line.startswith("torghut: APCA_API_KEY_ID: is refused by the broker")
    assert "any-secret" not in done.stderr + done.stdout
    assert user.posts() == 0
    right = {"APCA_API_KEY_ID": "right", "APCA_API_SECRET_KEY": "right"}
    user.run(**right)  # control


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        ((), 2),
        (("sbumit",), 2),
        (("submit",), 2),
        (("halt",), 2),
        (("halt", "--reason", "  "), 2),
        (("decisions", "--limit", "0"), 2),
    ],
)
def test_usage(user: User, arguments: tuple[str, ...], code: int) -> None:
    done = user.torghut(*arguments)
    assert done.returncode == code
    assert "Traceback" not in done.stderr
