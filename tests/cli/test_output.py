"""What is shown: facts, widths, and stored text that is never interpreted."""

from __future__ import annotations

import io
from datetime import timedelta
from typing import Any

import pytest
from rich.cells import cell_len
from rich.console import Console, RenderableType

from tests.cli import stories
from tests.cli.stories import BROKER_ORDER_ID, DECISION, START, STORIES
from torghut.cli_output import LISTINGS, explain, status, table
from torghut.cli_text import after, duration, line, order_in_words, printable
from torghut.domain.lifecycle import DecisionStatus

WIDTHS = (80, 160)

FACTS: dict[str, tuple[str, ...]] = {
    "planned": ("waits for the risk check", "Next: risk check at 2026-01-05 14:30:04 UTC"),
    "approved": ("did not leave this machine", "connection refused", "Next: sending at"),
    "denied": ("the order is worth too much", "✗ order_notional: 1895, at most 1000 currency"),
    "submitting": ("on the way to the broker", "attempt 1, sent: no answer is written"),
    "in_doubt": (
        "asked 4 times since, 2 times the answer was 'no such order'",
        "Next: question at 2026-01-05 14:30:04 UTC",
        "Nothing for you to do",
        'no definite answer (HTTP 504, request req-1), "504 Gateway Time-out"',
        "no such order, after 20 ms; 2 times until +1.0 s",
        "could not be answered, which proves nothing",
    ),
    "submitted": (
        BROKER_ORDER_ID,
        "found by lookup",
        "partially_filled, 4 of 10 filled at 189.42 on average",
        "booked 0 of 4 filled",
    ),
    "closed": (
        "10 of 10 filled at 189.42 on average",
        "+1.2 s buy 4 AAPL at 189.42",
        "+1.4 s buy 6 AAPL at 189.42",
        "accepted (HTTP 200), after 213 ms",
    ),
    "rejected": ('refused (HTTP 403, code 40310000), "insufficient buying power"', "no such order"),
    "expired": ("an order has turned up", "order_after_end", "+1 d 1 h, open", BROKER_ORDER_ID),
    "canceled": (
        "the account or the strategy (risk had approved it, and denied it",
        "Verdict 2 of 2",
    ),
}


def rendered(shown: RenderableType, width: int = 80) -> str:
    """As it goes into a pipe of `width` columns; also checks that it fits."""
    out = io.StringIO()
    Console(file=out, width=width, highlight=False, markup=False, emoji=False).print(shown)
    text = out.getvalue()
    assert "\x1b" not in text, "no colours where there is no terminal"
    too_wide = [row for row in text.splitlines() if cell_len(row) > width]
    assert not too_wide
    return text


def unfolded(text: str) -> str:
    """The words in one line, whatever the width folded them to."""
    return " ".join(text.split())


def test_there_is_a_story_for_every_status() -> None:
    assert set(STORIES) == set(FACTS) == set(DecisionStatus)


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("name", list(STORIES))
def test_a_story_tells_its_facts_within_the_width(name: str, width: int) -> None:
    text = rendered(explain(STORIES[name], START + timedelta(seconds=3.5)), width)
    assert text.splitlines()[0] == "BUY 10 AAPL limit 189.5 day"
    assert f"{name}: " in text
    assert DECISION.decision_hash in text, "the hash can be copied in one piece"
    missing = [fact for fact in FACTS[name] if fact not in unfolded(text)]
    assert not missing, text


@pytest.mark.parametrize("name", list(STORIES))
def test_a_story_has_its_parts_in_order(name: str) -> None:
    rows = rendered(explain(STORIES[name])).splitlines()
    parts = ("Identity", "Verdict", "Attempts", "Order at the broker", "Fills", "Discrepancies")
    found = [next(i for i, row in enumerate(rows) if row.startswith(p)) for p in parts]
    assert found == sorted(found)
    assert rows.index("Timeline") > found[-1]


def test_every_check_has_one_entry_with_value_limit_and_source() -> None:
    text = rendered(explain(STORIES["approved"]), 160)
    for check in (
        "✓  trading_halted: active, wanted: not halted [state, default]",
        "no limit set: max_order_qty",
        "✓  order_notional: 1895, at most 100000 currency [max_order_notional, risk.strategy",
        "✓  buying_power: 1895, at most 98105.123456789 currency [buying_power, default]",
    ):
        assert check in text


@pytest.mark.parametrize(
    "named",
    [{"name": "max_quote_age_s", "unit": "s"}, {"name": None, "unit": "s (max_quote_age_s)"}],
    ids=["now", "as version 0.1 stored it"],
)  # fmt: skip
def test_a_check_without_its_fact_says_so(named: dict[str, object]) -> None:
    check = stories.check("facts_unavailable", None, "5", passed=False, source="default", **named)
    verdict = stories.verdict("facts_unavailable", checks=[check], reference_px=None, notional=None)
    text = rendered(explain(stories.story("denied", verdicts=[verdict])))
    assert "✗  facts_unavailable: not known, at most 5 s [max_quote_age_s, default]" in text
    assert "a fact that the check needs is not known" in text


@pytest.mark.parametrize(
    ("name", "bound"), [("min_order_notional", "at least"), ("max_order_notional", "at most")]
)
def test_which_way_a_limit_holds_is_said(name: str, bound: str) -> None:
    check = stories.check("order_too_small", "5", "7", name=name, passed=False, unit="currency")
    text = rendered(explain(stories.story("denied", verdicts=[stories.verdict(checks=[check])])))
    assert f"5, {bound} 7 currency [{name}, rule]" in text
    assert "None" not in text


@pytest.mark.parametrize(
    ("seconds", "said"),
    [
        (3.5, "(in 500 ms)"),
        (5, "14:30:04 UTC (now)"),
        (304, "overdue by 5 min 0 s (is a daemon running? torghut status)"),
    ],
)
@pytest.mark.parametrize("name", ["planned", "approved", "in_doubt"])
def test_a_step_that_is_overdue_is_said_to_be(name: str, seconds: float, said: str) -> None:
    shown = explain(STORIES[name], START + timedelta(seconds=seconds))
    assert said in unfolded(rendered(shown))


def test_an_answer_that_is_overdue_is_said_to_be() -> None:
    shown = explain(STORIES["submitting"], START + timedelta(minutes=3))
    assert "the answer is overdue by 2 min 59 s" in unfolded(rendered(shown))


def test_a_stored_row_that_was_changed_is_said_to_be() -> None:
    text = rendered(explain({**STORIES["closed"], "identity_intact": False}))
    assert "NO: the stored row is not what was hashed" in text


def test_many_lookups_are_one_line() -> None:
    asked = [stories.lookup("unanswered", n, message="read timeout") for n in range(1, 900)]
    shown = explain(stories.story("in_doubt", STORIES["in_doubt"]["decision"], attempts=asked))
    text = rendered(shown)
    assert text.count("read timeout") == 1
    assert "899 times until +14 min 59 s" in unfolded(text)


def test_verdicts_between_the_first_and_the_last_show_what_failed() -> None:
    verdicts = [stories.verdict() for _ in range(5)]
    text = rendered(explain(stories.story("approved", verdicts=verdicts)), 160)
    assert "Verdict 3 of 5" in text
    assert text.count("order_qty") == 2


def test_a_bracket_order_shows_its_legs() -> None:
    payload = {
        "type": "market",
        "time_in_force": "gtc",
        "extended_hours": False,
        "order_class": "bracket",
        "notional": "500",
        "take_profit": {"limit_price": "200"},
        "stop_loss": {"stop_price": "180", "limit_price": "179"},
    }
    shown = explain(stories.story("planned", stories.decision("planned", payload=payload)))
    assert rendered(shown, 160).splitlines()[0] == (
        "BUY 500 worth of AAPL market gtc, bracket, take profit 200, stop loss stop 180,"
        " stop loss limit 179"
    )


HOSTILE = "[bold red]x[/] [link=http://a]y \x1b[31mred\x07 \u202egnp :smile: 株式会社"


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("name", list(STORIES))
def test_stored_text_is_shown_and_never_interpreted(name: str, width: int) -> None:
    """Every text of every story is replaced; what was markup comes out as it was written."""
    hostile = _with_text(STORIES[name])
    hostile["decision"]["strategy"] = HOSTILE
    text = rendered(explain(hostile), width)
    assert "[bold red]x[/] [link=http://a]y �[31mred� �gnp :smile:" in unfolded(text)
    assert not any(ord(c) < 32 or c in "\x7f\u202e" for c in text if c != "\n")


def _with_text(story: dict[str, Any]) -> dict[str, Any]:
    """A deep copy in which every free text is hostile and long."""
    free = {"message", "body", "request_id", "status_detail", "actor", "source", "broker_order_id"}
    free |= {"correlation_id", "subject", "resolution", "activity_id", "broker_code"}

    def changed(name: str, value: Any) -> Any:
        if isinstance(value, dict):
            return {key: changed(key, item) for key, item in value.items()}
        if isinstance(value, list):
            return [changed(name, item) for item in value]
        return HOSTILE * 5 if name in free and value is not None else value

    copy: dict[str, Any] = changed("", story)
    return copy


# ---------------------------------------------------------------- lists


def position(**changes: object) -> dict[str, Any]:
    """A row of positions."""
    row = {"account": "paper", "symbol": "AAPL", "qty": "10", "avg_px": "189.42"}
    row |= {"realized_pl": "-1234.567890123456789", "unrealized_pl": "55.8", "mark": "195"}
    row |= {"broker_qty": "12", "difference": "2", "updated_at": stories.at(1)}
    return {**row, **changes}


ROWS: dict[str, dict[str, Any]] = {
    "decisions": stories.decision("denied", status_reason="order_notional"),
    "executions": stories.execution("filled", "10"),
    "fills": stories.fill("4", 1),
    "positions": position(),
}


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("name", list(LISTINGS))
def test_a_list_fits_the_width(name: str, width: int) -> None:
    row = ROWS[name]
    long = {**row, "strategy": "a-strategy-with-a-long-name-" * 4, "symbol": "ABCDEFGHIJKLMNOP" * 2}
    text = rendered(table([row, long], LISTINGS[name].columns), width)
    assert "AAPL" in text
    if name != "positions":
        assert DECISION.decision_hash[:12] in text
        assert DECISION.decision_hash[:13] not in text


@pytest.mark.parametrize(
    ("name", "facts"),
    [
        ("decisions", ("2026-01-05 14:30:00", "buy 10 AAPL limit 189.5", "denied order_notional")),
        ("executions", ("ma-crossover", "filled", "10/10 @ 189.42")),
        ("fills", ("buy 4 AAPL at 189.42", "2026-01-05 14:30:01")),
        ("positions", ("AAPL", "189.42", "195", "-1,234.57", "55.80", "12 (+2)")),
    ],
)
def test_a_row_has_its_facts(name: str, facts: tuple[str, ...]) -> None:
    text = unfolded(rendered(table([ROWS[name]], LISTINGS[name].columns), 160))
    assert all(fact in text for fact in facts), text


@pytest.mark.parametrize("name", list(LISTINGS))
def test_markup_in_a_list_is_text(name: str) -> None:
    row = {**ROWS[name], "strategy": "[red]r[/]", "symbol": "[b]", "account": "[i]a"}
    text = rendered(table([row], LISTINGS[name].columns), 160)
    assert "[b]" in text
    assert ("[i]a" if name == "positions" else "[red]r[/]") in text


def test_an_order_that_is_not_ours_has_no_strategy() -> None:
    row = stories.execution("filled", "10", origin="external", strategy=None)
    assert "(external)" in rendered(table([row], LISTINGS["executions"].columns))


# ---------------------------------------------------------------- status

SUMMARY: dict[str, Any] = {
    "account": "paper",
    "decisions": {"planned": 0, "in_doubt": 2, "closed": 7},
    "open_orders": 3,
    "in_doubt": {"decisions": 2, "oldest_age_s": 3725.0},
    "trading_state": {"state": "halted", "reason": "global by ops: [bold]lunch[/]"},
    "lease": {"owner": "host:1", "fencing_token": 4, "valid": True},
    "open_discrepancies": 1,
    "discrepancies": [{"kind": "order_differs", "subject": "abc"}],
    "broker_account": {
        "account_number": "PA1",
        "status": "ACTIVE",
        "currency": "USD",
        "cash": "100",
        "equity": "200",
        "buying_power": "400",
        "blocked": True,
        "positions": {},
        "observed_at": stories.at(0),
    },
}


@pytest.mark.parametrize("width", WIDTHS)
def test_status_tells_how_the_account_stands(width: int) -> None:
    text = unfolded(rendered(status(SUMMARY), width))
    for fact in (
        "halted (global by ops: [bold]lunch[/])",
        "host:1 (fencing token 4)",
        "2 in_doubt, 7 closed",
        "2, the oldest for 1 h 2 min: torghut decisions --status in_doubt",
        "1 open: order_differs abc",
        "account PA1 ACTIVE, blocked; equity 200, cash 100, buying power 400 USD",
    ):
        assert fact in text


def test_status_of_an_account_that_nothing_happened_to_says_what_to_do() -> None:
    empty = {
        **SUMMARY,
        "decisions": {"planned": 0},
        "in_doubt": {"decisions": 0, "oldest_age_s": None},
        "lease": None,
        "open_discrepancies": 0,
        "broker_account": None,
    }
    text = rendered(status(empty))
    assert "nobody: nothing is sent; start a daemon: torghut run" in text
    assert "none yet; submit one: torghut submit FILE" in text


# ---------------------------------------------------------------- pieces


@pytest.mark.parametrize(
    ("seconds", "said"),
    [
        (0, "0 ms"),
        (0.0124, "12 ms"),
        (0.9999, "1.0 s"),
        (3.44, "3.4 s"),
        (303, "5 min 3 s"),
        (7500, "2 h 5 min"),
        (273_600, "3 d 4 h"),
    ],
)
def test_durations_in_words(seconds: float, said: str) -> None:
    assert duration(seconds) == said


def test_times_before_the_decision_are_negative() -> None:
    assert after(stories.at(-3), stories.at(0)) == "-3.0 s"
    assert after(None, stories.at(0)) == ""


def test_orders_in_words() -> None:
    base = {"side": "sell", "symbol": "TSLA", "qty": "1"}
    assert order_in_words({**base, "type": "market"}) == "sell 1 TSLA market"
    stop = {**base, "type": "stop_limit", "limit_price": "9", "stop_price": "10"}
    assert order_in_words(stop) == "sell 1 TSLA stop_limit 9 stop 10"
    trailing = {**base, "type": "trailing_stop", "trail_percent": "2"}
    assert order_in_words(trailing) == "sell 1 TSLA trailing_stop trail 2%"


def test_text_is_one_printable_line() -> None:
    assert printable("a\r\n\tb\x00c\x1b") == "a b�c�"
    assert line("a\nb", ("c\x1b", "bold")).plain == "a�bc�"
