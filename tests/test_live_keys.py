"""Live money needs three keys (P10), shown on real processes and by what reaches the broker."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest
import requests

from tests.end_to_end.user import User, decisions, eventually

LIVE = {
    "TORGHUT_TRADING_MODE": "live",
    "TORGHUT_LIVE_TRADING_ENABLED": "true",
    "TORGHUT_RISK__MAX_ORDERS_PER_MINUTE": "1000",
    "TORGHUT_RISK__MAX_DAILY_LOSS": "100000",
}
NUMBER = "TORGHUT_LIVE_ACCOUNT_NUMBER"


@pytest.fixture
def user(tmp_path: Path, database_url: str) -> Iterator[User]:
    """A user with a simulated broker, and one decision waiting to be sent."""
    user = User(tmp_path, database_url)
    user.sim()
    assert user.submit(decisions(1))[0] == 0
    yield user
    user.close()


def number(user: User) -> str:
    keys = {"APCA-API-KEY-ID": "k", "APCA-API-SECRET-KEY": "s"}
    answer = requests.get(f"{user.broker_url}/v2/account", headers=keys, timeout=10).json()
    return str(answer["account_number"])


def requests_seen(user: User) -> dict[str, int]:
    return dict(user.control("GET", "/requests")["routes"])


@pytest.mark.parametrize(
    ("given", "names"),
    [
        ({"TORGHUT_TRADING_MODE": "live"}, "TORGHUT_LIVE_TRADING_ENABLED"),
        ({**LIVE, "TORGHUT_LIVE_TRADING_ENABLED": "false", NUMBER: "1"},
         "TORGHUT_LIVE_TRADING_ENABLED"),
        (LIVE, NUMBER),
    ],
)  # fmt: skip
def test_live_without_its_keys_sends_nothing(
    user: User, given: Mapping[str, str], names: str
) -> None:
    """Exit 78, one line, and not one request of any kind reaches the broker."""
    done = user.torghut("run", **given)
    assert done.returncode == 78
    assert done.stderr.startswith(f"torghut: {names}: ") and done.stderr.count("\n") == 1
    assert requests_seen(user) == {}
    assert user.statuses() == {"planned": 1}


def test_a_wrong_account_number_sends_nothing(user: User) -> None:
    """The keys reach another account than the one that is named: asked once, and refused."""
    done = user.torghut("run", **{**LIVE, NUMBER: "NOT-" + number(user)})
    assert done.returncode == 78
    assert done.stderr.splitlines()[-1].startswith(f"torghut: {NUMBER}: ")
    assert requests_seen(user) == {"account": 2}  # ours above, and the daemon's question
    assert user.statuses() == {"planned": 1}


def test_a_reconciliation_by_hand_goes_around_no_key(user: User) -> None:
    done = user.torghut("reconcile", **{**LIVE, NUMBER: "another"})
    assert done.returncode == 78
    assert set(requests_seen(user)) == {"account"}


def test_an_account_that_is_not_answered_is_not_the_right_one(user: User) -> None:
    """In live mode unknown is not right: the start fails, where paper mode would wait."""
    own = number(user)
    user.control("POST", "/faults", {"route": "account", "kind": "refuse_5xx"})
    done = user.torghut("run", **{**LIVE, NUMBER: own})
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].startswith("torghut: account")
    assert user.posts() == 0


def test_control_with_all_three_keys_it_trades(user: User) -> None:
    daemon = user.run(**{**LIVE, NUMBER: number(user)})
    assert "live mode" in daemon.output
    eventually(lambda: user.statuses() == {"closed": 1})
    assert user.posts() == 1


def test_the_account_is_checked_again_in_every_term(user: User) -> None:
    """Another account answers after a while: the next term of the lease sends nothing."""
    daemon = user.run(**{**LIVE, NUMBER: number(user)})
    eventually(lambda: user.statuses() == {"closed": 1})
    user.sql("UPDATE account_leases SET owner = 'other', fencing_token = fencing_token + 1")
    user.control("POST", "/faults", {"route": "account", "kind": "unauthorized"})
    posts = user.posts()
    user.submit(decisions(1, strategy="later"))
    assert daemon.wait(20) == 78
    assert daemon.lines[-1].startswith("torghut: APCA_API_KEY_ID")
    assert user.posts() == posts


def test_paper_mode_refuses_the_live_host(user: User) -> None:
    done = user.torghut("run", APCA_API_BASE_URL="https://API.alpaca.markets:443")
    assert done.returncode == 78
    assert done.stderr.startswith("torghut: APCA_API_BASE_URL: ")
    assert user.statuses() == {"planned": 1}


def test_a_crash_point_is_refused_in_live_mode(user: User) -> None:
    done = user.torghut("run", TORGHUT_CRASH_AT="claim.before_commit", **{**LIVE, NUMBER: "1"})
    assert done.returncode == 78
    assert done.stderr.startswith("torghut: TORGHUT_CRASH_AT: ")
    assert json.dumps(requests_seen(user)) == "{}"
