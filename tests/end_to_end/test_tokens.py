"""Tokens from the command line, at a daemon that others could reach."""

from __future__ import annotations

import json
import re

import requests

from tests.end_to_end.user import User, eventually


def test_a_token_is_made_used_and_revoked(user: User) -> None:
    reachable = {"TORGHUT_HTTP_HOST": "0.0.0.0", "TORGHUT_REQUIRE_TOKEN": "true"}
    refused = user.torghut("run", "--migrate", **reachable)
    assert refused.returncode == 78 and "TORGHUT_HTTP_HOST" in refused.stderr
    assert "torghut token create" in refused.stderr

    made = user.torghut("token", "create", "scraper", "--scope", "read", "--expires", "90d")
    assert made.returncode == 0, made.stderr
    token = made.stdout.strip()
    again = user.torghut("token", "create", "scraper", "--scope", "read")
    assert again.returncode == 1 and "was made before" in again.stderr
    for wrong in (["a b", "--scope", "read"], ["x", "--scope", "all"], ["x"]):
        assert user.torghut("token", "create", *wrong).returncode == 2, wrong
    for ends in ("yesterday", "0d", "2020-01-01T00:00:00Z"):
        arguments = ("token", "create", "x", "--scope", "read", "--expires", ends)
        assert user.torghut(*arguments).returncode == 2, ends

    daemon = user.run(**reachable)
    port = re.search(r":(\d+)$", daemon.find(r"API at (\S+)"))
    assert port
    url = f"http://127.0.0.1:{port.group(1)}"
    head = {"Authorization": f"Bearer {token}"}
    assert requests.get(f"{url}/metrics", timeout=30).status_code == 401
    assert requests.get(f"{url}/metrics", headers=head, timeout=30).status_code == 200
    halt = requests.post(f"{url}/v1/halt", json={"reason": "x"}, headers=head, timeout=30)
    assert halt.status_code == 403

    def listed() -> dict[str, object]:
        requests.get(f"{url}/v1/status", headers=head, timeout=30)
        rows = user.torghut("token", "list", "--json").stdout.splitlines()
        (row,) = map(json.loads, rows)
        return row if row["last_used_at"] else {}

    row = eventually(listed)
    assert (row["name"], row["scopes"]) == ("scraper", ["read"])
    assert str(row["made_by"]).startswith("cli:") and row["expires_at"]
    assert "scraper" in user.torghut("token", "list").stdout

    assert user.torghut("token", "revoke", "scraper", "--reason", " ").returncode == 2
    assert user.torghut("token", "revoke", "scraper", "--reason", "over").returncode == 0
    assert user.torghut("token", "revoke", "scraper", "--reason", "over").returncode == 1
    eventually(
        lambda: requests.get(f"{url}/v1/status", headers=head, timeout=30).status_code == 401
    )
    assert "none" in user.torghut("token", "list").stdout
    assert "scraper" in user.torghut("token", "list", "--all").stdout
    assert daemon.end() == 0
    assert token not in daemon.output
