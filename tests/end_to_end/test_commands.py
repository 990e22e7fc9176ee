"""The commands of a day: submit, look, explain, halt, resume, reconcile, doctor, hash, stop."""

from __future__ import annotations

import json
import signal
import time

from tests.end_to_end.user import User, decisions, eventually, one_line
from tests.factories import decision_json


def test_a_day(new_user: User) -> None:
    """From an empty database, with nothing prepared, to a clean stop."""
    user = new_user
    user.sim()
    daemon = user.run("--migrate")
    code, answers = user.submit(decisions(3))
    assert (code, [a["result"] for a in answers]) == (0, ["created"] * 3)
    eventually(lambda: user.statuses() == {"closed": 3})
    eventually(lambda: user.proof().holds)
    hash_ = answers[0]["decision_hash"]
    # looking
    for name, count in (("decisions", 3), ("executions", 3), ("fills", 3), ("positions", 1)):
        rows = user.torghut(name, "--json")
        assert rows.returncode == 0, rows.stderr
        assert len(rows.stdout.splitlines()) >= count, name
        assert all(json.loads(line) for line in rows.stdout.splitlines())
    assert "AAPL" in user.torghut("decisions").stdout
    assert user.torghut("decisions", "--json", "--status", "denied").stdout == ""
    story = user.torghut("explain", hash_)
    assert story.returncode == 0
    for word in (hash_, "approved", "accepted", "filled", "AAPL"):
        assert word in story.stdout, word
    assert json.loads(user.torghut("explain", hash_, "--json").stdout)
    # hash says what submit said
    told = user.torghut("hash", "-", stdin=json.dumps(decisions(1)[0]))
    assert json.loads(told.stdout)["decision_hash"] == hash_
    # halting
    assert user.torghut("halt", "--reason", "lunch").stdout.strip() == "global: active → halted"
    _, (denied,) = user.submit([decision_json(intent="while halted")])
    eventually(lambda: user.statuses().get("denied") == 1)
    assert "trading_halted" in user.torghut("explain", denied["decision_hash"], "--json").stdout
    assert user.posts() == 3
    assert "halted → active" in user.torghut("resume", "--reason", "back").stdout
    user.submit([decision_json(intent="after")])
    eventually(lambda: user.statuses().get("closed") == 4)
    changes = user.sql("SELECT payload->>'reason' FROM events WHERE kind = 'trading_state.changed'")
    assert changes == [("lunch",), ("back",)]
    # asking on demand, and the doctor (the test database is not durable, which it says)
    assert user.torghut("reconcile").returncode == 0
    found = json.loads(user.torghut("doctor", "--json").stdout)
    failed = {f["check"] for f in found if f["result"] == "failed"}
    assert all(check.startswith("database ") for check in failed), found
    assert {"settings", "database", "broker"} <= {f["check"] for f in found}
    (quotes,) = [f for f in found if f["check"] == "quotes"]
    assert quotes["result"] == "ok"
    elsewhere = user.torghut("doctor", "--json", APCA_API_DATA_URL="http://127.0.0.1:9")
    (quotes,) = [f for f in json.loads(elsewhere.stdout) if f["check"] == "quotes"]
    assert (quotes["result"], "facts_unavailable" in quotes["found"]) == ("warning", True)
    assert "APCA_API_DATA_URL" in quotes["mend"]
    # stopping
    began = time.monotonic()
    assert daemon.end() == 0
    assert time.monotonic() - began < 8
    assert user.sql("SELECT owner FROM account_leases") == [(None,)]
    assert "Traceback" not in daemon.output


def test_stopping_twice_is_at_once_and_an_interrupt_is_a_stop(user: User) -> None:
    user.sim()
    daemon = user.run()
    assert daemon.end(signal.SIGINT) == 0
    assert user.sql("SELECT owner FROM account_leases") == [(None,)]


def test_stopping_with_a_call_under_way_waits_for_its_answer(user: User) -> None:
    user.sim("--fault", "submit:slow:1.0:delay_s=1.5")
    daemon = user.run(TORGHUT_BROKER_TIMEOUT_S="10")
    user.submit(decisions(4))
    eventually(lambda: user.posts() == 4)
    assert daemon.end() == 0
    assert set(user.statuses()) <= {"submitted", "closed"}
    assert user.sql("SELECT owner FROM account_leases") == [(None,)]


def test_a_second_daemon_stands_by_and_takes_over(user: User) -> None:
    """Two processes, one account: who stops hands over, and nothing is sent twice."""
    user.sim()
    first, second = user.run(), user.run()
    code, _ = user.submit(decisions(20))
    assert code == 0
    eventually(lambda: user.statuses() == {"closed": 20})
    first.end()
    user.submit(decisions(20, strategy="second"))
    eventually(lambda: user.statuses() == {"closed": 40})
    assert user.proof().holds and user.posts() == 40
    second.end()


def test_reconcile_without_a_daemon_and_without_a_broker(user: User) -> None:
    user.sim()
    assert "opening booked" in user.torghut("reconcile").stdout
    assert "nothing to correct" in user.torghut("reconcile").stdout
    user.env["APCA_API_BASE_URL"] = "http://127.0.0.1:9"
    done = user.torghut("reconcile")
    assert done.returncode == 1
    assert "Traceback" not in done.stderr


def test_reconcile_shows_before_it_writes_and_reads_again(user: User) -> None:
    """--dry-run writes nothing; --since reads what lies behind the cursor."""
    user.sim()
    tables = ("executions", "execution_events", "fills", "events", "discrepancies")

    def rows() -> dict[str, int]:
        return {name: user.sql(f"SELECT count(*) FROM {name}")[0][0] for name in tables}

    user.torghut("migrate")
    ids = {user.place()["id"] for _ in range(3)}
    eventually(lambda: user.control("GET", "/ledger")["totals"]["fills"] == 3)
    before = rows()
    shown = user.torghut("reconcile", "--dry-run", "--json")
    found = [json.loads(line) for line in shown.stdout.splitlines()]
    assert {one["broker_id"] for one in found if one["what"] == "adopt"} == ids
    assert sum(one["what"] == "fill" for one in found) == 3
    assert rows() == before
    done = json.loads(user.torghut("reconcile", "--json").stdout)
    assert (done["adopt"], done["fills"]) == (3, 3)
    assert "nothing to correct" in user.torghut("reconcile", "--dry-run").stdout
    # without the audit, which would find them as well: as if they had never been seen
    user.sql("DELETE FROM book_tallies")
    user.sql("UPDATE broker_cursors SET position = '2099-01-01T00:00:00.000000Z'")
    for name in ("fills", "execution_events", "executions"):
        user.sql(f"ALTER TABLE {name} DISABLE TRIGGER USER")
        user.sql(f"DELETE FROM {name}")
        user.sql(f"ALTER TABLE {name} ENABLE TRIGGER USER")
    assert "adopt" not in json.loads(user.torghut("reconcile", "--json").stdout)
    again = json.loads(user.torghut("reconcile", "--since", "1h", "--json").stdout)
    assert (again["adopt"], again["fills"]) == (3, 3)


def test_explain_of_a_hash_that_is_none(user: User) -> None:
    done = user.torghut("explain", "0" * 64)
    assert done.returncode == 1
    one_line(done, "no decision")
