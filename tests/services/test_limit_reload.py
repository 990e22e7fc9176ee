"""Reading the limits again: what is taken over, what is refused, and what the event says."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.services.rig import ACCOUNT, Rig
from torghut import config
from torghut.config import Settings, risk_policy
from torghut.domain.errors import ConfigError
from torghut.services.limit_reload import LimitChange, LimitReload, PolicyInForce, difference
from torghut.storage import control

MakeRig = Callable[..., Rig]


def reloader(rig: Rig, load: Callable[[], Settings], owner: str = "one") -> LimitReload:
    return LimitReload(owner, rig.database, [(rig.settings, rig.policy)], load=load, clock=rig.time)


def request(rig: Rig) -> tuple[int, int]:
    with rig.database.transaction() as tx:
        return control.request_reload(tx, actor="cli:me", now=rig.time())


def answers(rig: Rig, asked: tuple[int, int]) -> list[tuple[str, dict[str, Any]]]:
    with rig.database.transaction() as tx:
        return control.reload_answers(tx, ACCOUNT, asked[0], after=asked[1])


def with_risk(rig: Rig, **risk: Any) -> Settings:
    return rig.settings.model_copy(update={"risk": risk})


# ---------------------------------------------------------------------- the difference


@pytest.mark.parametrize(
    ("before", "after", "wanted"),
    [
        ({}, {}, []),
        ({"risk": {"a": "1"}}, {"risk": {"a": "1"}}, []),
        ({"risk": {"a": "1"}}, {"risk": {"a": "2"}}, [("risk", "a", "1", "2")]),
        ({"risk": {"a": "1"}}, {"risk": {"a": None}}, [("risk", "a", "1", "off")]),
        ({"risk": {"a": "1"}}, {"risk": {}}, [("risk", "a", "1", None)]),
        (
            {"strategy": {}},
            {"strategy": {"x": {"b": "2"}, "w": {"b": "1"}}},
            [("strategy.w", "b", None, "1"), ("strategy.x", "b", None, "2")],
        ),
        ({"symbols": None}, {"symbols": ["A", "B"]}, [("", "symbols", "off", "A,B")]),
    ],
)
def test_difference(before: Any, after: Any, wanted: list[Any]) -> None:
    assert difference(before, after) == [LimitChange(*change) for change in wanted]


# ---------------------------------------------------------------------- taken over


def test_new_limits_hold_from_the_next_claim_on(rig: Rig) -> None:
    """The executor goes on with the same objects; the next decision meets the new limit."""
    first = rig.send(intent="first")
    rig.execute()
    assert rig.status(first)[0] == "submitted"
    before = rig.policy.current.version
    asked = request(rig)
    assert reloader(rig, lambda: with_risk(rig, max_order_qty="1")).run_once(rig.time()) == {
        "reloads": 1
    }
    second = rig.send(intent="second")
    rig.execute()
    assert rig.status(second) == ("denied", "order_qty")
    ((kind, payload),) = answers(rig, asked)
    assert kind == "limits.reloaded"
    assert payload["changes"] == [
        {"scope": "risk", "name": "max_order_qty", "before": "off", "after": "1"}
    ]
    assert (payload["version_before"], payload["version_after"]) == (
        before,
        rig.policy.current.version,
    )
    assert (payload["owner"], payload["asked_by"], payload["needs_restart"]) == (
        *("one", "cli:me"),
        [],
    )


def test_each_request_is_answered_once_by_every_process(rig: Rig) -> None:
    one, two = (reloader(rig, lambda: rig.settings, owner) for owner in ("one", "two"))
    asked = request(rig)
    for _ in range(3):
        one.run_once(rig.time())
        two.run_once(rig.time())
    assert sorted(payload["owner"] for _, payload in answers(rig, asked)) == ["one", "two"]
    again = request(rig)
    one.run_once(rig.time())
    assert [payload["owner"] for _, payload in answers(rig, again)] == ["one"]


def test_what_was_asked_long_before_the_start_is_not_answered(rig: Rig) -> None:
    """A process that starts has read its limits; only who asked meanwhile may still wait."""
    old = request(rig)
    rig.time.pass_s(120)
    late = reloader(rig, lambda: rig.settings)
    assert late.run_once(rig.time()) == {"reloads": 0}
    assert answers(rig, old) == []
    assert reloader(rig, lambda: rig.settings).run_once(rig.time()) == {"reloads": 0}
    new = request(rig)
    assert late.run_once(rig.time()) == {"reloads": 1}
    assert len(answers(rig, new)) == 1


def test_a_signal_reads_them_too(rig: Rig) -> None:
    desk = reloader(rig, lambda: with_risk(rig, max_order_qty="7"))
    assert desk.run_once(rig.time()) == {"reloads": 0}
    desk.on_signal()
    assert [desk.run_once(rig.time()) for _ in range(2)] == [{"reloads": 1}, {"reloads": 0}]
    (event,) = rig.sql("SELECT actor, payload FROM events WHERE kind = 'limits.reloaded'")
    assert (event.actor, event.payload["asked_by"]) == ("limits", "SIGHUP")


def test_other_settings_are_named_and_not_taken_over(rig: Rig) -> None:
    """Names, never values: a secret is among them."""
    fresh = with_risk(rig).model_copy(
        update={"submit_threads": 3, "apca_api_secret_key": config.SecretStr("hush")}
    )
    asked = request(rig)
    reloader(rig, lambda: fresh).run_once(rig.time())
    ((_, payload),) = answers(rig, asked)
    assert payload["needs_restart"] == ["APCA_API_SECRET_KEY", "TORGHUT_SUBMIT_THREADS"]
    assert "hush" not in str(payload)


# ---------------------------------------------------------------------- refused


def test_a_wrong_file_keeps_the_old_limits(
    rig: Rig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The real file, read by the real `config.load`; the refusal is the line a start would say."""
    for name in [name for name in os.environ if name.startswith(("TORGHUT_", "APCA_"))]:
        monkeypatch.delenv(name)
    file = tmp_path / "torghut.toml"
    monkeypatch.setenv("TORGHUT_CONFIG", str(file))
    before = rig.policy.current
    desk = reloader(rig, config.load)
    for text in ("[risk]\nmax_order_qty = -1\n", "[risk\n", "[risk]\nmax_ordr_qty = 1\n"):
        file.write_text(text)
        with pytest.raises(ConfigError, match=r"TORGHUT_CONFIG|TORGHUT_RISK__MAX_ORD") as start:
            config.load()
        asked = request(rig)
        desk.run_once(rig.time())
        assert rig.policy.current is before
        ((kind, payload),) = answers(rig, asked)
        assert (kind, payload["error"]) == ("limits.reload_refused", str(start.value))
    file.write_text("[risk]\nmax_order_qty = 5\n")
    asked = request(rig)
    desk.run_once(rig.time())
    assert answers(rig, asked)[0][0] == "limits.reloaded"
    assert rig.policy.current is not before


LIVE = {"max_order_notional": "10", "max_orders_per_minute": "10", "max_daily_loss": "10"}


@pytest.mark.parametrize("mode", ["live", "paper"])
def test_live_mode_keeps_its_limits(rig: Rig, mode: Any) -> None:
    """As at the start, by the mode that runs: a file that says paper now removes none of them.

    Control: in paper mode the same reload is taken.
    """
    settings = rig.settings.model_copy(update={"trading_mode": mode, "risk": LIVE})
    in_force = PolicyInForce(risk_policy(settings))
    before = in_force.current
    fresh = settings.model_copy(
        update={"trading_mode": "paper", "risk": {**LIVE, "max_daily_loss": "off"}}
    )
    desk = LimitReload(
        "one", rig.database, [(settings, in_force)], load=lambda: fresh, clock=rig.time
    )
    asked = request(rig)
    desk.run_once(rig.time())
    ((kind, _),) = answers(rig, asked)
    refused = mode == "live"
    assert kind == ("limits.reload_refused" if refused else "limits.reloaded")
    assert (in_force.current is before) == refused
