"""Cancel, replace, close and flatten as a user does it: real processes, a simulated broker."""

from __future__ import annotations

import json
from typing import Any

from tests.end_to_end.user import User, decisions, eventually

WHY = ("--reason", "a test")


def told(user: User, *arguments: str) -> Any:
    """The JSON that a command prints, which must have gone well."""
    done = user.torghut(*arguments, *WHY, "--json")
    assert done.returncode == 0, done.stderr + done.stdout
    return json.loads(done.stdout)


def test_orders_that_stand(user: User) -> None:
    """Each command ends with its outcome; nothing is doubled."""
    user.sim()
    user.run()
    resting = decisions(2, type="limit", limit_price="1")
    _, answers = user.submit([*resting, *decisions(1, symbol="MSFT", type="market")])
    first, second = (answer["decision_hash"] for answer in answers[:2])
    eventually(lambda: user.statuses().get("submitted", 0) >= 2)

    replaced = told(user, "replace", first[:12], "--qty", "2", "--key", "r")
    assert replaced["actions"][0]["client_order_id"] == f"{first}-r1"
    assert replaced["actions"][0]["status"] in ("done", "refused")
    assert told(user, "replace", first[:12], "--qty", "2", "--key", "r")["replayed"]
    canceled = told(user, "cancel", second)
    assert canceled["actions"][0]["status"] == "done"
    asked = told(user, "flatten", "--wait", "40")
    assert asked["account"] == "paper"
    listed = user.torghut("actions", "--json")
    assert len(listed.stdout.splitlines()) >= 3
    assert user.torghut("cancel", *WHY).returncode == 2
    assert user.torghut("close", "NVDA", *WHY).returncode == 1
    assert user.proof().duplicates == 0
