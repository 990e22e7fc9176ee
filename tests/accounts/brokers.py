"""A broker for each of several accounts, each with keys of its own, on one database."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import requests
from sqlalchemy import text

from tests.crash.processes import Child
from tests.factories import decision_json
from torghut import proof
from torghut.config import Settings
from torghut.domain.decisions import Decision, parse_decision
from torghut.places import Reach, reach
from torghut.simulator import SimConfig, Simulator
from torghut.storage.database import Database
from torghut.storage.replicas import owners

FAST: Mapping[str, Any] = {
    "broker": "alpaca",
    "broker_timeout_s": 2,
    "lease_ttl_s": 6,
    "reconcile_interval_s": 0.5,
    "absence_grace_s": 0.6,
    "broker_rate_per_min": 100_000,
    "decision_ttl_s": 3650 * 86_400,
    "risk": {"check_assets": "false"},
}


def key(label: str) -> str:
    return f"key-of-{label}"


def secret(label: str) -> str:
    return f"secret-of-{label}"


class Brokers:
    """One simulator per account, which takes that account's keys and no others."""

    def __init__(self, url: str, folder: Path, simulators: Mapping[str, Simulator]) -> None:
        self.url = url
        self.simulators = simulators
        self.database = Database(url, pool_size=6)
        self.children: list[Child] = []
        self._folder = folder

    @property
    def labels(self) -> list[str]:
        return sorted(self.simulators)

    def settings(self, **over: Any) -> Settings:
        """Of a daemon with all accounts; `over` may hold `accounts` for what differs of them."""
        differing = over.pop("accounts", {})
        tables = {
            label: {
                "apca_api_key_id": key(label),
                "apca_api_secret_key": secret(label),
                "apca_api_base_url": simulator.url,
                **differing.get(label, {}),
            }
            for label, simulator in self.simulators.items()
        }
        return Settings(**{**FAST, "accounts": tables, "database_url": self.url, **over})

    def reach(self, settings: Settings) -> dict[str, Reach]:
        return {one.account: reach(one) for one in settings.each()}

    def start(self, *, mutated: Sequence[str] = (), **over: object) -> Child:
        """`torghut run` with all accounts, by environment alone."""
        environment = {
            f"TORGHUT_{name.upper()}": str(value)
            for name, value in FAST.items()
            if not isinstance(value, Mapping)
        }
        for label, simulator in self.simulators.items():
            table = f"TORGHUT_ACCOUNTS__{label.upper()}__"
            environment |= {
                f"{table}APCA_API_KEY_ID": key(label),
                f"{table}APCA_API_SECRET_KEY": secret(label),
                f"{table}APCA_API_BASE_URL": simulator.url,
            }
        environment |= {
            "TORGHUT_DATABASE_URL": self.url,
            "TORGHUT_HTTP_PORT": "0",
            "TORGHUT_RISK__CHECK_ASSETS": "false",
            **{name: str(value) for name, value in over.items()},
        }
        log = self._folder / f"daemon-{len(self.children) + 1}.log"
        child = Child("run", environment, log=log, mutated=tuple(mutated))
        self.children.append(child)
        return child

    def owners(self) -> dict[str, str]:
        """Account → the owner's name, of leases in force."""
        with self.database.transaction() as tx:
            return dict(owners(tx))

    def shares(self) -> dict[int, int]:
        """Process id → how many accounts it owns."""
        found: dict[int, int] = {}
        for owner in self.owners().values():
            pid = int(owner.split(":")[1])
            found[pid] = found.get(pid, 0) + 1
        return found

    # ------------------------------------------------------------------ orders

    def posts(self, label: str) -> dict[str, int]:
        """client_order_id → how often it was posted to this account's broker."""
        url = f"{self.simulators[label].control_url}/requests"
        found: dict[str, int] = requests.get(url, timeout=10).json()["posts_by_client_order_id"]
        return found

    def control(self, label: str, path: str, body: Any) -> None:
        url = self.simulators[label].control_url + path
        answer = requests.post(url, json=body, timeout=10)
        assert answer.ok, answer.text

    def open(self, label: str) -> int:
        """Decisions of an account that are not closed."""
        with self.database.transaction() as tx:
            return int(
                tx.execute(
                    text("""SELECT count(*) FROM trade_decisions
                    WHERE account = :account AND status <> 'closed'"""),
                    {"account": label},
                ).scalar_one()
            )

    def faults(self, sent: Sequence[Decision]) -> list[str]:
        """What is not as it must be: each order exactly once, at its own account's broker."""
        found = []
        for label in self.labels:
            ledger = requests.get(f"{self.simulators[label].control_url}/ledger", timeout=10)
            with self.database.transaction() as tx:
                books = proof.compare(tx, label, proof.ledger_orders(ledger.json()))
            if not books.holds:
                found.append(f"{label}: {books}: {books.differences[:3]}")
            own = {one.decision_hash for one in sent if one.account == label}
            posts = self.posts(label)
            found += [f"{label}: not sent {one[:8]}" for one in own - posts.keys()]
            found += [f"{label}: not its own {one[:8]}" for one in posts.keys() - own]
        return found

    def logs(self) -> str:
        return "\n".join(child.log.read_text()[-3000:] for child in self.children)

    def close(self) -> None:
        for child in self.children:
            child.kill()
        self.database.close()


def batch(label: str, count: int, **over: object) -> list[Decision]:
    """Different decisions of one account for a little each."""
    return [
        parse_decision(
            decision_json(qty="0.01", intent=f"n{n}", **over),
            account=label,
            ttl=timedelta(days=3650),
        )
        for n in range(count)
    ]


@contextmanager
def brokers(url: str, folder: Path, *labels: str) -> Iterator[Brokers]:
    """Simulators for these accounts."""
    with ExitStack() as stack:
        simulators = {
            label: stack.enter_context(
                Simulator(
                    SimConfig(
                        port=0,
                        control_port=0,
                        key=key(label),
                        secret=secret(label),
                        partial_fill_probability=0.0,
                    )
                )
            )
            for label in labels
        }
        built = Brokers(url, folder, simulators)
        stack.callback(built.close)
        yield built


class Watch:
    """Seconds since it was made."""

    def __init__(self) -> None:
        self._began = time.monotonic()

    @property
    def s(self) -> float:
        return time.monotonic() - self._began
