"""Identity of decisions, and the parsing of their JSON: every fault named, nothing guessed."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from torghut.domain.decisions import Decision, differing_fields, load_json, parse_decision
from torghut.domain.errors import InvalidDecision
from torghut.domain.orders import Side, order_from_payload
from torghut.domain.values import canonical_amount

TTL = timedelta(minutes=5)
BASE: dict[str, object] = {
    "strategy": "ma-crossover",
    "symbol": "AAPL",
    "side": "sell",
    "qty": "10",
    "type": "limit",
    "limit_price": "189.90",
    "event_ts": "2026-01-05T21:00:00Z",
}

AMOUNT_TEXTS = st.decimals("0.000000001", "1000000000", places=9).map(canonical_amount)
WORDS = st.text(st.characters(codec="utf-8", exclude_categories=("C", "Z")), max_size=20)


def parsed(intent: str | None = None, /, **changes: object) -> Decision:
    return parse_decision({**BASE, **changes}, account="paper", ttl=TTL, intent=intent)


def faults(intent: str | None = None, /, **changes: object) -> dict[str, str]:
    with pytest.raises(InvalidDecision) as caught:
        parsed(intent, **changes)
    return {fault.field: fault.problem for fault in caught.value.faults}


def identity(decision: Decision) -> tuple[str, str]:
    return decision.decision_hash, decision.payload_digest


def test_story_36_nothing_of_now_is_in_the_hash_and_all_of_it_is_kept() -> None:
    first, later = parsed(), parse_decision(BASE, account="paper", ttl=timedelta(days=1))
    assert identity(first) == identity(later)
    assert first.expires_at != later.expires_at
    assert len(first.decision_hash) == 64 and set(first.decision_hash) <= set("0123456789abcdef")
    assert set(first.identity()) == {
        *("v", "account", "strategy", "symbol", "side", "event_ts", "intent")
    }


@given(correlation_id=WORDS.filter(bool), expires_s=st.integers(0, 10**6))
def test_story_3_telemetry_changes_neither_hash_nor_digest(
    correlation_id: str, expires_s: int
) -> None:
    expires_at = datetime(2026, 1, 5, 21, tzinfo=UTC) + timedelta(seconds=expires_s)
    told = parsed(correlation_id=correlation_id, expires_at=expires_at.isoformat())
    assert identity(told) == identity(parsed())
    assert told.expires_at == expires_at


@given(st.permutations(list(BASE)))
def test_the_order_of_the_fields_does_not_matter(names: list[str]) -> None:
    shuffled = {name: BASE[name] for name in names}
    assert identity(parse_decision(shuffled, account="paper", ttl=TTL)) == identity(parsed())


@given(AMOUNT_TEXTS, AMOUNT_TEXTS, st.integers(0, 9))
def test_the_spelling_of_numbers_does_not_matter(qty: str, price: str, zeros: int) -> None:
    long = [f"{Decimal(text):.9f}" + "0" * zeros for text in (qty, price)]
    exponent = [f"{Decimal(text).scaleb(zeros):f}e-{zeros}" for text in (qty, price)]
    expected = identity(parsed(qty=qty, limit_price=price))
    assert identity(parsed(qty=long[0], limit_price=long[1])) == expected
    for texts in (long, exponent):
        as_numbers = json.dumps({**BASE, "qty": "Q", "limit_price": "P"})
        as_numbers = as_numbers.replace('"Q"', texts[0]).replace('"P"', texts[1])
        decision = parse_decision(load_json(as_numbers), account="paper", ttl=TTL)
        assert identity(decision) == expected


SHAPING: list[dict[str, object]] = [
    {"qty": "11"},
    {"qty": None, "notional": "10"},
    {"limit_price": "189.91"},
    {"type": "market", "limit_price": None},
    {"type": "stop", "limit_price": None, "stop_price": "189.90"},
    {"type": "stop_limit", "stop_price": "189"},
    {"type": "trailing_stop", "limit_price": None, "trail_price": "2"},
    {"type": "trailing_stop", "limit_price": None, "trail_percent": "2"},
    {"time_in_force": "gtc"},
    {"extended_hours": True},
    {"order_class": "oto", "take_profit": {"limit_price": "1"}},
    {"order_class": "oto", "stop_loss": {"stop_price": "1"}},
    {"order_class": "oto", "stop_loss": {"stop_price": "1", "limit_price": "1"}},
    {
        "order_class": "bracket",
        "take_profit": {"limit_price": "1"},
        "stop_loss": {"stop_price": "1"},
    },
    {"order_class": "oco", "take_profit": {"limit_price": "1"}, "stop_loss": {"stop_price": "1"}},
    {"params": {"fast": 1}},
    {"params": {"fast": True}},
    {"params": {"fast": "1"}},
    {"params": {"fast": None}},
]


def test_every_field_that_shapes_the_order_changes_the_digest_and_never_the_hash() -> None:
    decisions = [parsed(), *(parsed(**change) for change in SHAPING)]
    assert len({decision.decision_hash for decision in decisions}) == 1
    assert len({decision.payload_digest for decision in decisions}) == len(decisions)


@pytest.mark.parametrize("first", [{}, *SHAPING], ids=str)
def test_a_conflict_names_the_fields_that_differ(first: dict[str, object]) -> None:
    for second in [{}, *SHAPING]:
        names = differing_fields(parsed(**first).payload(), parsed(**second).payload())
        assert bool(names) is (str(first) != str(second))
    assert differing_fields({"qty": "1", "a": 1}, {"qty": "2", "b": 1}) == ("a", "b", "qty")


def test_a_conflict_is_seen_in_params_that_python_holds_to_be_equal() -> None:
    assert differing_fields({"params": {"x": 1}}, {"params": {"x": True}}) == ("params",)
    assert differing_fields({"params": {"x": 1e21}}, {"params": {"x": 10**21}}) == ()


IDENTIFYING: list[dict[str, object]] = [
    {"account": "ira"},
    {"strategy": "other"},
    {"symbol": "MSFT"},
    {"side": "buy"},
    {"event_ts": "2026-01-05T21:00:00.000001Z"},
    {"intent": "a"},
]


def test_every_field_of_the_identity_changes_the_hash_and_never_the_digest() -> None:
    decisions = [parsed(), *(parsed(**change) for change in IDENTIFYING)]
    assert len({decision.payload_digest for decision in decisions}) == 1
    assert len({decision.decision_hash for decision in decisions}) == len(decisions)


@given(strategy=WORDS.filter(bool), intent=WORDS)
def test_fields_of_the_identity_do_not_run_into_each_other(strategy: str, intent: str) -> None:
    decision = parsed(strategy=strategy, intent=intent)
    swapped = parsed(strategy=intent or "x", intent=strategy)
    same = (decision.strategy, decision.intent) == (swapped.strategy, swapped.intent)
    assert (decision.decision_hash == swapped.decision_hash) is same


@pytest.mark.parametrize("change", [{}, *SHAPING], ids=str)
def test_the_order_is_read_back_from_its_stored_payload(change: dict[str, object]) -> None:
    decision = parsed(**change)
    stored = json.loads(json.dumps(decision.payload()))
    assert order_from_payload("AAPL", "sell", stored) == decision.order


def test_a_damaged_payload_is_an_error() -> None:
    with pytest.raises(ValueError, match="stored payload is no order"):
        order_from_payload("AAPL", "sell", {"type": "limit"})


def test_an_idempotency_key_is_the_intent() -> None:
    assert identity(parsed("key-1")) == identity(parsed(intent="key-1"))
    assert identity(parsed("key-1", intent="key-1")) == identity(parsed("key-1"))
    assert identity(parsed("", intent="a")) == identity(parsed(intent="a"))
    assert identity(parsed("caf\u00e9", intent="cafe\u0301")) == identity(parsed("cafe\u0301"))
    assert "contradicts" in faults("key-1", intent="key-2")["intent"]


@pytest.mark.parametrize("key", ["k" * 257, "a\nb", "\ud800", "\0"])
def test_an_idempotency_key_is_checked_like_an_intent(key: str) -> None:
    assert set(faults(key)) == {"intent"}


def test_what_the_sender_left_out_is_filled_in() -> None:
    decision = parsed()
    assert decision.account == "paper" and decision.intent == "" and decision.params == {}
    assert decision.expires_at == decision.event_ts + TTL
    assert decision.order.side is Side.SELL


@pytest.mark.parametrize(
    ("change", "fields"),
    [
        ({"qty": None}, {"qty"}),
        ({"notional": "5"}, {"qty"}),
        ({"qty": "-1"}, {"qty"}),
        ({"qty": 0}, {"qty"}),
        ({"qty": float("nan")}, {"qty"}),
        ({"side": "BUY"}, {"side"}),
        ({"side": ["buy"]}, {"side"}),
        ({"type": None}, {"type"}),
        ({"type": "iceberg"}, {"type"}),
        ({"time_in_force": "forever"}, {"time_in_force"}),
        ({"extended_hours": "yes"}, {"extended_hours"}),
        ({"limit_price": None}, {"limit_price"}),
        ({"stop_price": "1"}, {"stop_price"}),
        ({"trail_price": "1"}, {"trail_price"}),
        ({"type": "trailing_stop", "limit_price": None}, {"trail_price"}),
        ({"take_profit": {"limit_price": "1"}}, {"take_profit"}),
        ({"order_class": "oto"}, {"take_profit"}),
        ({"order_class": "bracket"}, {"take_profit", "stop_loss"}),
        ({"order_class": "oto", "take_profit": "200"}, {"take_profit"}),
        ({"order_class": "oto", "take_profit": {}}, {"take_profit.limit_price"}),
        ({"order_class": "oto", "stop_loss": {"stop_price": -1}}, {"stop_loss.stop_price"}),
        ({"order_class": "oto", "take_profit": {"limit_price": 1, "x": 1}}, {"take_profit.x"}),
        ({"symbol": "A" * 10_000}, {"symbol"}),
        ({"strategy": None}, {"strategy"}),
        ({"strategy": "s" * 129}, {"strategy"}),
        ({"account": ""}, {"account"}),
        ({"intent": "i" * 257}, {"intent"}),
        ({"correlation_id": 7}, {"correlation_id"}),
        ({"event_ts": "2026-01-05T21:00:00"}, {"event_ts"}),
        ({"event_ts": None, "expires_at": "soon"}, {"event_ts", "expires_at"}),
        ({"event_ts": "9999-12-31T23:59:59Z"}, {"event_ts"}),
        ({"params": "fast"}, {"params"}),
        ({"params": {"x": "y" * 9_000, "z": "y" * 9_000}}, {"params"}),
        ({"params": {"x": float("inf")}}, {"params"}),
        ({"quantity": 1, "\ud800": 2}, {"quantity", "\\ud800"}),
    ],
    ids=lambda value: ascii(sorted(value) if isinstance(value, set) else value)[:60],
)
def test_a_bad_field_is_named(change: dict[str, object], fields: set[str]) -> None:
    assert set(faults(**change)) == fields


def test_every_fault_is_named_at_once() -> None:
    found = faults(side="long", qty="ten", limit_price=None, event_ts="today", params=[], extra=1)
    assert set(found) == {"side", "qty", "limit_price", "event_ts", "params", "extra"}


@pytest.mark.parametrize("data", [None, 1, "text", [], [BASE]])
def test_what_is_no_object_is_refused(data: object) -> None:
    with pytest.raises(InvalidDecision, match="JSON object"):
        parse_decision(data, account="paper", ttl=TTL)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "{'a':1}",
        '{"a":NaN}',
        '{"a":-Infinity}',
        '{"a":1,"a":1}',
        '{"p":{"a":1,"a":2}}',
        b'{"a":"\xff"}',
        "[" * 100_000,
        '{"a":1}{"b":2}',
    ],
    ids=lambda text: ascii(text)[:30],
)
def test_what_is_no_json_is_refused(text: str | bytes) -> None:
    with pytest.raises(InvalidDecision) as caught:
        load_json(text)
    assert len(str(caught.value)) < 200


def test_an_integer_of_10_000_digits_is_an_ordinary_fault() -> None:
    data = load_json(f'{{"qty":{"9" * 10_000},"params":{{"x":1{"0" * 10_000}}}}}')
    assert isinstance(data, dict)
    assert set(faults(**data)) == {"qty", "params"}


def test_numbers_of_json_are_exact() -> None:
    assert load_json('{"a":0.1,"b":1e2,"c":7}') == {"a": Decimal("0.1"), "b": 100, "c": 7}


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
        lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
        max_leaves=20,
    )
)
def test_any_json_is_a_decision_or_a_named_fault(value: object) -> None:
    for data in (value, {**BASE, "params": value}, {**BASE, "qty": value, "intent": value}):
        try:
            again = load_json(json.dumps(data))
            decision = parse_decision(again, account="paper", ttl=TTL)
        except InvalidDecision as error:
            assert error.faults
        else:
            assert len(decision.decision_hash) == 64
