"""Steering a running daemon from the command line: states of three scopes, and the limits."""

from __future__ import annotations

import json
import os
import pty
import signal
import sys

from tests.end_to_end.user import User, decisions, eventually, one_line
from tests.factories import decision_json


def test_states_from_the_command_line(new_user: User) -> None:
    """Halt, reduce and resume a strategy and everything; what stands is shown with who and why."""
    user = new_user
    user.sim()
    user.run("--migrate")
    user.submit(decisions(1, strategy="trend"))
    eventually(lambda: user.statuses() == {"closed": 1})
    halted = user.torghut("halt", "--strategy", "trend", "--reason", "odd orders")
    assert halted.stdout.strip() == "strategy:trend: active → halted"
    user.submit([decision_json(strategy="trend", intent="late"), decision_json(strategy="calm")])
    eventually(lambda: user.statuses() == {"closed": 2, "denied": 1})
    assert user.torghut("reduce", "--reason", "lunch").stdout.strip() == "global: active → reducing"
    shown = user.torghut("states").stdout
    for word in ("global", "reducing", "lunch", "strategy:trend", "halted", "odd orders", "cli:"):
        assert word in shown, word
    scopes = {
        row["scope"]: row["state"] for row in json.loads(user.torghut("states", "--json").stdout)
    }
    assert scopes == {"global": "reducing", "account:paper": "active", "strategy:trend": "halted"}
    found = json.loads(user.torghut("doctor", "--json").stdout)
    warned = [f["mend"] for f in found if f["check"] == "trading"]
    assert [mend.partition("torghut ")[2] for mend in warned] == [
        "resume --reason …",
        "resume --reason … --strategy trend",
    ]
    resumed = user.torghut("resume", "--strategy", "trend", "--reason", "mended")
    assert resumed.stdout.strip() == "strategy:trend: halted → active"
    # errors that speak
    one_line(user.torghut("halt", "--strategy", "trned", "--reason", "x"), "strategy", "'trned'")
    one_line(user.torghut("halt", "--account", "papre", "--reason", "x"), "account", "'papre'")
    both = user.torghut("halt", "--account", "paper", "--strategy", "trend", "--reason", "x")
    assert both.returncode == 2
    one_line(both, "--account", "--strategy")


def test_limits_are_reloaded(new_user: User) -> None:
    """By the command and by SIGHUP; a wrong file changes nothing and says why."""
    user = new_user
    user.sim()
    file = user.folder / "torghut.toml"
    file.write_text("[risk]\nmax_order_qty = 100\n")
    nobody = user.torghut("migrate").returncode, user.torghut("limits", "reload")
    assert nobody[0] == 0 and nobody[1].returncode == 1
    one_line(nobody[1], "no daemon trades account paper")
    daemon = user.run(TORGHUT_CONFIG=str(file))
    # the same table in the command's own settings
    shown = json.loads(user.torghut("limits", "--json", TORGHUT_CONFIG=str(file)).stdout)
    assert {"limit": "max_order_qty", "value": "100", "source": "risk"} in shown["limits"]
    assert shown["policy_version"] in user.torghut("limits", TORGHUT_CONFIG=str(file)).stdout
    # taken over
    file.write_text("submit_threads = 3\n[risk]\nmax_order_qty = 5\n")
    done = user.torghut("limits", "reload")
    assert done.returncode == 0, done.stderr
    for word in ("max_order_qty", "100", "5", "policy"):
        assert word in done.stdout, word
    user.submit([decision_json(intent="ten", qty="10")])
    eventually(lambda: user.statuses() == {"denied": 1})
    # refused
    file.write_text("[risk]\nmax_order_qty = -5\n")
    wrong = user.torghut("limits", "reload", "--json")
    assert wrong.returncode == 1
    one_line(wrong, "the old limits stay", "TORGHUT_RISK__MAX_ORDER_QTY", "-5")
    assert "TORGHUT_RISK__MAX_ORDER_QTY" in json.loads(wrong.stdout)["error"]
    user.submit([decision_json(intent="six", qty="6")])
    eventually(lambda: user.statuses() == {"denied": 2})
    # by signal
    file.write_text("[risk]\nmax_order_qty = 50\n")
    daemon.process.send_signal(signal.SIGHUP)
    query = "SELECT count(*) FROM events WHERE kind = 'limits.reloaded'"
    eventually(lambda: user.sql(query) == [(2,)])
    user.submit([decision_json(intent="eleven", qty="11")])
    eventually(lambda: user.statuses() == {"denied": 2, "closed": 1})
    assert daemon.end() == 0


def test_a_closed_terminal_ends_the_daemon(new_user: User) -> None:
    """SIGHUP means both: the limits, and a terminal that went away, which is no reload."""
    user = new_user
    user.sim()
    assert user.torghut("migrate").returncode == 0
    child, terminal = pty.fork()
    if child == 0:
        os.execve(sys.executable, [sys.executable, "-m", "torghut", "run"], user.env)
    said = b""
    while b"API at" not in said:
        said += os.read(terminal, 4096)
    eventually(lambda: user.sql("SELECT 1 FROM account_leases WHERE owner IS NOT NULL"))
    os.close(terminal)
    ended, status = eventually(lambda: (w := os.waitpid(child, os.WNOHANG))[0] and w)
    assert (ended, status) == (child, 0)
    assert user.sql("SELECT owner FROM account_leases") == [(None,)]
    assert user.sql("SELECT 1 FROM events WHERE kind LIKE 'limits.%%'") == []
