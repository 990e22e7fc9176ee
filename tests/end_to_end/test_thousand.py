"""Many decisions with every fault on at 20 %, and power failures in between: the books are equal.

Two independent books are compared: ours, and the ledger that the simulator keeps apart from its
order book (torghut.proof).
"""

from __future__ import annotations

import signal
import time

import pytest

from tests.end_to_end.user import User, decisions, eventually

FAULTY = ("--faults", "all:0.2", "--fault-hold-s", "0.7", "--cash", "10000000")
FINAL = {"closed", "rejected", "denied", "expired", "canceled"}


def settled(user: User, count: int) -> bool:
    statuses = user.statuses()
    return sum(statuses.values()) == count and set(statuses) <= FINAL and user.proof().holds


def check_books(user: User, count: int) -> None:
    """Every decision closed with one order of its own; nothing twice, nothing lost."""
    proof = user.proof()
    assert proof.holds, proof.differences
    assert user.statuses() == {"closed": count}
    assert (proof.orders, proof.decisions) == (count, count)
    totals = user.control("GET", "/ledger")["totals"]
    assert totals["duplicate_client_order_ids"] == []
    assert totals["by_status"] == {"filled": count}
    assert user.sql("SELECT sum(qty)::int FROM positions") == [(count,)]
    assert user.sql("SELECT kind, count(*) FROM discrepancies GROUP BY 1") == []


def check_replay(user: User, count: int) -> None:
    """The same file again: all replayed, and not one more request to place an order."""
    posts = user.posts()
    code, answers = user.submit(decisions(count))
    assert (code, {a["result"] for a in answers}) == (0, {"replayed"})
    assert len(answers) == count
    eventually(lambda: user.statuses() == {"closed": count})
    assert user.posts() == posts


@pytest.mark.timeout(900)
def test_every_fault_at_20_percent(user: User, size: int, record_property) -> None:
    user.sim(*FAULTY)
    user.run()
    began = time.monotonic()
    code, answers = user.submit(decisions(size))
    assert (code, [a["result"] for a in answers]) == (0, ["created"] * size)
    eventually(lambda: settled(user, size), 800)
    took_s = time.monotonic() - began
    check_books(user, size)
    hits = sum(r["hits"] for r in user.control("GET", "/faults")["rules"])
    assert hits > size / 10  # control: the faults did strike
    user.control("DELETE", "/faults")
    check_replay(user, size)
    figures = {
        "decisions": size, "seconds": round(took_s, 1), "faults": hits, "posts": user.posts(),
        "recovered": user.sql("SELECT count(*) FROM executions WHERE origin <> 'submitted'")[0][0],
        "attempts": user.sql("SELECT operation, count(*) FROM submission_attempts GROUP BY 1"),
    }  # fmt: skip
    record_property("figures", figures)
    print(figures)


@pytest.mark.timeout(300)
def test_kill_9_in_the_middle(user: User) -> None:
    """200 decisions, faults, and the daemon killed twice; a third one finds everything."""
    count = 200
    user.sim("--faults", "all:0.1", "--fault-hold-s", "0.7", "--cash", "10000000")
    daemon = user.run()
    assert user.submit(decisions(count))[0] == 0
    for share in (0.2, 0.5):
        eventually(lambda share=share: user.statuses().get("planned", 0) < count * (1 - share))
        daemon.end(signal.SIGKILL)
        daemon = user.run()
    eventually(lambda: settled(user, count), 200)
    check_books(user, count)
    user.control("DELETE", "/faults")
    check_replay(user, count)
    assert daemon.end() == 0
