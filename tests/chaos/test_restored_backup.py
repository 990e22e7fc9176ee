"""The restore drill of docs/backup.md: yesterday's dump, today's orders, one order each (P1, P12).

yesterday   orders filled, resting and in doubt ── pg_dump ──▶ dump
today       more of each, a cancel, a replacement ── kill -9; the database is lost
afterwards  pg_restore ─▶ torghut halt ─▶ torghut reconcile ─▶ torghut run
            ─▶ the senders send everything again ─▶ a person looks ─▶ torghut resume
"""

from __future__ import annotations

import json
import subprocess
from collections import Counter
from collections.abc import Iterator, Sequence
from decimal import Decimal
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text

from tests.crash.answers import BY_NAME
from tests.crash.processes import Child
from tests.crash.world import World
from tests.factories import decision
from torghut import proof
from torghut.clock import utc_now
from torghut.domain.decisions import Decision
from torghut.places import notify
from torghut.services.intake import IntakeDesk
from torghut.storage.database import Database
from torghut.storage.embedded_binaries import bundled

pytestmark = pytest.mark.timeout(400)
AWAY = ("list_orders", "by_client_order_id", "get_order")
OPENING = "SELECT count(*) FROM account_entries WHERE kind = 'OPENING'"
UNAVAILABLE = {"kind": "refuse_5xx", "status": 503}


def pg(program: str, *arguments: str | Path) -> None:
    """One of PostgreSQL's programs, as the embedded database brings them."""
    command = [bundled().program(program), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr


def some(intent: str, **over: object) -> Decision:
    """A decision for one share."""
    return decision(strategy="drill", intent=intent, **{"qty": "1", **over})


def resting(intent: str) -> Decision:
    return some(intent, type="limit", limit_price="1", time_in_force="gtc")


class Story(World):
    """Two days, the dump between them, and the database that takes the place of the lost one."""

    def __init__(self, url: str, folder: Path) -> None:
        super().__init__(url, folder, BY_NAME["accepted"], others=0)
        self.yesterday = [some(f"old {n}") for n in range(4)]
        self.standing = [resting("to be canceled"), resting("to be replaced")]
        self.doubtful = some("doubtful", qty="2")
        self.today = [*(some(f"new {n}") for n in range(3)), resting("late")]
        self.denied = some("too large", qty="10000000")
        self.strangers = [some("stranger 1"), some("stranger 2")]
        self.dump = folder / "torghut.dump"
        self.before: set[str] = set()  # client_order_ids at the broker when the database was lost

    @property
    def sent_again(self) -> list[Decision]:
        """Everything that the senders ever sent, the newest first."""
        return [*self.today, self.denied, *self.standing, *self.yesterday, self.doubtful]

    def day_one(self) -> Child:
        """Filled, resting, somebody else's, and one in doubt; the dump is taken while it runs."""
        daemon = self.start(target="run", TORGHUT_HTTP_PORT=0)
        self.accept([*self.yesterday, *self.standing])
        self.place_stranger("stranger 1")
        self.until({"closed": 4, "submitted": 2})
        self.wait(lambda: self.held() == 5 and self.one(OPENING) == 1, "fills and the opening")
        lost = {"route": "submit", "kind": "accept_then_reset"}
        for rule in [lost, *({"route": route, **UNAVAILABLE} for route in AWAY)]:
            self._add_fault(rule)
        self.accept([self.doubtful])
        self.until({"closed": 4, "submitted": 2, "in_doubt": 1})
        pg("pg_dump", "--format=custom", "--file", self.dump, _plain(self._url))
        self.end_faults()
        self.until({"closed": 5, "submitted": 2})
        return daemon

    def day_two(self, daemon: Child) -> None:
        """What the dump does not know, and then power fails."""
        self.accept([*self.today, self.denied])
        self.until({"closed": 8, "submitted": 3, "denied": 1})
        canceled, replaced = (one.decision_hash for one in self.standing)
        wait = ("--reason", "drill", "--wait", "60")
        self.says("cancel", canceled, *wait)
        self.says("replace", replaced, "--limit-price", "2", *wait)
        self.place_stranger("stranger 2")
        self.wait(lambda: self.proof().holds and self.held() == 11, "whole books")
        daemon.kill()
        assert daemon.power_failed
        self.before = set(self.ledger()["orders"])

    def restore(self, url: str) -> None:
        """The dump into an empty database, which is ours from now on."""
        how = ("--exit-on-error", "--single-transaction", "--no-owner")
        pg("pg_restore", *how, "--dbname", _plain(url), self.dump)
        self._url = url
        self.database = Database(url, pool_size=2)
        self._stack.callback(self.database.close)
        self.desk = IntakeDesk(self.database, utc_now, partial(notify, self.database))
        assert self.statuses() == {"closed": 4, "submitted": 2, "in_doubt": 1}

    # ------------------------------------------------------------------ what there is

    def says(self, *words: str) -> str:
        """`torghut …`, which must succeed; what it printed."""
        log = self._folder / f"{words[0]}-again.log"
        before = log.stat().st_size if log.exists() else 0
        done = self.command(list(words), None)
        said = log.read_text()[before:]
        assert done.join(1) == 0, said
        return said

    def until(self, statuses: dict[str, int]) -> None:
        self.wait(lambda: self.statuses() == statuses, str(statuses))

    def statuses(self) -> dict[str, int]:
        with self.database.transaction() as tx:
            query = "SELECT status, count(*) FROM trade_decisions GROUP BY 1"
            return {row[0]: row[1] for row in tx.execute(text(query))}

    def one(self, query: str) -> Any:
        with self.database.transaction() as tx:
            return tx.execute(text(query)).scalar()

    def held(self) -> Decimal:
        return Decimal(self.one("SELECT coalesce(sum(qty), 0) FROM positions"))

    def proof(self) -> proof.Proof:
        with self.database.transaction() as tx:
            return proof.compare(tx, "paper", proof.ledger_orders(self.ledger()))

    def posts(self) -> dict[str, int]:
        return dict(self.requests()["posts_by_client_order_id"])

    def place_stranger(self, id_: str) -> None:
        """A share bought past us."""
        body = {"symbol": "AAPL", "qty": "1", "side": "buy", "type": "market"}
        whole = {**body, "time_in_force": "day", "client_order_id": id_}
        url = f"{self.simulator.url}/v2/orders"
        keys = {"APCA-API-KEY-ID": "any", "APCA-API-SECRET-KEY": "any"}
        self._http.post(url, json=whole, headers=keys, timeout=30).raise_for_status()

    def listed(self) -> list[dict[str, Any]]:
        """The differences that a person is shown."""
        return [json.loads(line) for line in self.says("discrepancies", "--json").splitlines()]


def _plain(url: str) -> str:
    return url.replace("+psycopg", "", 1)


@pytest.fixture
def story(database_url: str, empty_database_url: str, tmp_path: Path) -> Iterator[Story]:
    """Two days; the database is gone, and the dump is restored."""
    with Story(database_url, tmp_path) as story:
        story.day_two(story.day_one())
        story.restore(empty_database_url)
        yield story


def _hashes(some: Sequence[Decision]) -> set[str]:
    return {one.decision_hash for one in some}


def test_the_drill(story: Story) -> None:
    posts = story.posts()
    story.says("halt", "--reason", "restored backup")
    first = json.loads(story.says("reconcile", "--json"))
    # rebuilt from the broker: today's orders, the replacement among them, and today's fills
    assert first["adopt"] >= 5 and first["fills"] >= 5, first
    story.wait(lambda: story.proof().holds, "whole books")
    assert story.held() == 11
    story.says("reconcile")
    assert json.loads(story.says("reconcile", "--json")) == {}
    # the daemon, and the senders, who repeat all that they ever sent
    story.start(target="run", TORGHUT_HTTP_PORT=0)
    answers = Counter(result.value for result in story.accept(story.sent_again))
    assert answers == {"created": 5, "replayed": 7}
    story.until({"closed": 9, "submitted": 2, "denied": 1})
    story.wait(lambda: story.proof().holds, "whole books")
    assert story.posts() == posts, "an order was sent again"
    # what a person has to see: orders that nothing in these books approved
    excess = "SELECT count(*) FROM discrepancies WHERE kind = 'order_excess'"
    story.wait(lambda: story.one(excess) >= 5, "the guard")
    listed = story.listed()
    named = {row["evidence"].get("client_order_id") for row in listed}
    assert named >= _hashes(story.today)
    for row in listed:
        story.says("resolve", str(row["id"]), "--reason", "today's: seen in the sender's log")
    for scope in ((), ("--account", "paper")):
        story.says("resume", "--reason", "drill over", *scope)
    story.accept([some("after the drill")])
    story.until({"closed": 10, "submitted": 2, "denied": 1})
    story.wait(lambda: story.proof().holds, "whole books")


def test_a_daemon_that_is_just_started_doubles_nothing(story: Story) -> None:
    """Nobody halts or reconciles first, and the senders do not wait."""
    story.accept(story.sent_again)
    story.start(target="run", TORGHUT_HTTP_PORT=0)
    story.wait(lambda: set(story.statuses()) <= {"submitted", "closed", "denied"}, "an end")
    story.wait(lambda: story.proof().holds and story.held() == 11, "whole books")
    assert story.ledger()["orders"].keys() == story.before


def test_control_a_broker_that_takes_an_id_twice_and_lists_nothing(story: Story) -> None:
    """What the drill rests on, taken away: a repetition becomes an order, and is found."""
    url = f"{story.simulator.control_url}/switches"
    story._http.post(url, json={"uniqueness": "off"}, timeout=30).raise_for_status()
    story._add_fault({"route": "list_orders", **UNAVAILABLE})
    story.accept(story.sent_again)
    story.start(target="run", TORGHUT_HTTP_PORT=0)
    story.wait(lambda: story.proof().duplicates == len(story.today), "duplicates")
