"""Every limit, table-driven: at it, one beside it on either side, off, and without its data."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from decimal import Decimal

import pytest

from tests.domain.judging import (
    BY_PERSON,
    CLOSING,
    NO_QUOTE,
    NOW,
    PLAIN,
    PLENTY,
    Change,
    failed,
    judge,
    named,
)
from torghut.domain.deny_reasons import DenyReason as R
from torghut.domain.limits import AT_LEAST, COUNTED, LIMITS

AGO = NOW - timedelta(seconds=20)
UNQUOTED = Change(facts=NO_QUOTE)
NO_ACCOUNT = Change(no_account=True)
BY_NOTIONAL = Change(order={"qty": None, "notional": "1000"})
LIMITED_101 = Change(order={"type": "limit", "limit_price": "101"})
SELL_LIMITED = Change(order={"type": "limit", "limit_price": "98.01"})


@dataclass(frozen=True, kw_only=True)
class Row:
    """A limit with a case in which it measures `measured`.

    `missing`: cases in which it cannot be measured; none: we count it ourselves. `closing` and
    `by_person`: whether an order that only closes (sent by a person) passes beyond the limit, too.
    """

    name: str
    measured: int
    case: Change = PLAIN
    missing: tuple[Change, ...] = ()
    closing: bool
    by_person: bool
    check: str = ""
    closing_case: Change = PLAIN
    reserve: bool = False

    def beyond(self, by: int) -> int:
        """A limit that the case is beyond by `by`."""
        at_least = self.name in AT_LEAST or self.reserve
        return self.measured + by if at_least else self.measured - by


def counted(name: str, count: str) -> Row:
    return Row(name=name, measured=5, case=Change(counts={count: 4}), closing=False, by_person=True)


ROWS = [
    Row(name="max_open_discrepancies", measured=3, case=Change(facts={"open_discrepancies": 3}),
        closing=True, by_person=True),
    Row(name="max_repeated_executions", measured=7, case=Change(own_counts={"last_minute": 6}),
        closing=False, by_person=True),
    Row(name="max_rate_denials", measured=5, case=Change(reserved={"rate_denials": 5}),
        closing=False, by_person=True),
    Row(name="max_decision_age_s", measured=20, case=Change(event_ts=AGO),
        closing=False, by_person=False),
    Row(name="max_facts_age_s", measured=20, case=Change(account={"observed_at": AGO}),
        missing=(NO_ACCOUNT,), closing=False, by_person=False),
    Row(name="max_quote_age_s", measured=20, case=Change(facts={"quoted_at": AGO}),
        missing=(UNQUOTED,), closing=True, by_person=True),
    Row(name="price_collar_bps", measured=100, case=LIMITED_101, missing=(UNQUOTED,),
        closing=False, by_person=False, closing_case=SELL_LIMITED),
    Row(name="max_order_qty", measured=10, missing=(UNQUOTED | BY_NOTIONAL,),
        closing=False, by_person=True),
    Row(name="min_order_notional", measured=1000, missing=(UNQUOTED,),
        closing=True, by_person=True),
    Row(name="max_order_notional", measured=1000, missing=(UNQUOTED,),
        closing=False, by_person=True),
    Row(name="max_adv_pct", measured=10, case=Change(facts={"daily_volume": Decimal(100)}),
        missing=(Change(facts={"daily_volume": None}), Change(facts={"daily_volume": Decimal(0)}),
                 UNQUOTED | BY_NOTIONAL),
        closing=True, by_person=True),
    Row(name="max_position_qty", measured=10, missing=(NO_ACCOUNT, UNQUOTED | BY_NOTIONAL),
        closing=True, by_person=True),
    Row(name="max_position_notional", measured=1000, missing=(NO_ACCOUNT, UNQUOTED),
        closing=True, by_person=True),
    Row(name="max_position_pct_equity", measured=10,
        case=Change(account={"equity": Decimal(10_000)}),
        missing=(NO_ACCOUNT, UNQUOTED, Change(account={"equity": None}),
                 Change(account={"equity": Decimal(0)}), Change(account={"equity": Decimal(-5)})),
        closing=True, by_person=True),
    Row(name="max_concentration_pct", measured=10,
        case=Change(account={"equity": Decimal(5_000)}, reserved={"others_gross": Decimal(9_000)}),
        missing=(NO_ACCOUNT, UNQUOTED, Change(account={"equity": None}),
                 Change(reserved={"others_gross": None})),
        closing=True, by_person=True),
    Row(name="max_strategy_exposure", measured=1500,
        case=Change(reserved={"strategy_others": Decimal(500)}),
        missing=(UNQUOTED, Change(reserved={"strategy_others": None}), UNQUOTED | BY_NOTIONAL),
        closing=True, by_person=True),
    Row(name="max_gross_exposure", measured=1500,
        case=Change(reserved={"others_gross": Decimal(500)}),
        missing=(NO_ACCOUNT, UNQUOTED, Change(reserved={"others_gross": None})),
        closing=True, by_person=True),
    Row(name="max_net_exposure", measured=1500,
        case=Change(reserved={"others_net_high": Decimal(500), "others_net_low": Decimal(-1200)}),
        missing=(NO_ACCOUNT, UNQUOTED, Change(reserved={"others_net_high": None}),
                 Change(reserved={"others_net_low": None})),
        closing=True, by_person=True),
    counted("max_open_orders", "open_orders"),
    counted("max_orders_per_second", "last_second"),
    counted("max_orders_per_minute", "last_minute"),
    counted("max_orders_per_day", "today"),
    Row(name="duplicate_window_s", measured=20, case=Change(reserved={"twin_at": AGO}),
        closing=False, by_person=True),
    Row(name="cooldown_s", measured=20, case=Change(facts={"last_fill_at": AGO}),
        closing=True, by_person=True),
    Row(name="max_consecutive_rejects", measured=3, case=Change(reserved={"rejects_in_a_row": 3}),
        closing=True, by_person=True),
    Row(name="max_daily_loss", measured=1000, case=Change(account={"equity": Decimal(99_000)}),
        missing=(NO_ACCOUNT, Change(account={"equity": None}),
                 Change(account={"last_equity": None}),
                 Change(account={"last_equity": Decimal(0)}),
                 Change(account={"last_equity": Decimal(-1)})),
        closing=True, by_person=True),
    Row(name="max_drawdown_pct", measured=10, case=Change(account={"equity": Decimal(90_000)}),
        missing=(NO_ACCOUNT, Change(account={"equity": None}),
                 Change(account={"peak_equity": None}),
                 Change(account={"peak_equity": Decimal(0)})),
        closing=True, by_person=True),
    Row(name="buying_power_reserve_pct", measured=50,
        case=Change(account={"buying_power": Decimal(2000)}), check="buying_power", reserve=True,
        missing=(NO_ACCOUNT, UNQUOTED, Change(account={"buying_power": None})),
        closing=True, by_person=True),
]  # fmt: skip
each_row = pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)


def limited(row: Row, limit: object) -> Change:
    return Change(limited={row.name: limit})


def test_every_limit_has_a_row() -> None:
    assert sorted(row.name for row in ROWS) == sorted(LIMITS)


@each_row
def test_at_the_limit(row: Row) -> None:
    """One within it, at it and off pass; one beyond it fails, and nothing else does."""
    for limit in (row.beyond(-1), row.beyond(0), None):
        verdict = judge(row.case | limited(row, limit))
        assert verdict.approved, (limit, failed(verdict))
    verdict = judge(row.case | limited(row, row.beyond(1)))
    assert failed(verdict) == [row.check or row.name]
    assert verdict.deny_reason is LIMITS[row.name].reason


@each_row
def test_what_a_failed_check_tells(row: Row) -> None:
    """Measured value, limit, unit and source; the limit's own even where nothing is known."""
    verdict = judge(row.case | limited(row, row.beyond(1)))
    told = named(verdict, row.check or row.name).as_json()
    assert told["passed"] is False
    assert told["code"] == LIMITS[row.name].reason.value
    assert told["source"] == "test"
    if not row.reserve:
        assert told["measured"] == str(row.measured)
        assert told["limit"] == str(row.beyond(1))
        assert told["unit"] == LIMITS[row.name].unit


@each_row
def test_missing_data_denies(row: Row) -> None:
    """Fail closed, however wide the limit; control: a limit that is off asks for nothing."""
    wide = 0 if row.name in AT_LEAST or row.reserve else PLENTY
    for missing in row.missing:
        verdict = judge(row.case | missing | limited(row, wide))
        assert verdict.deny_reason is R.FACTS_UNAVAILABLE, missing
        blocked = ["account"] * missing.no_account  # whether it is blocked is always asked
        assert failed(verdict) == [*blocked, row.check or row.name]
        check = named(verdict, row.check or row.name)
        assert check.code is R.FACTS_UNAVAILABLE
        # nothing was measured, though what the order costs may be known
        assert check.measured is None or row.reserve
        assert failed(judge(row.case | missing)) == blocked, missing


def test_rows_without_missing_data_are_counted_by_ourselves() -> None:
    """None of these comes from outside, so it cannot be missing; or there was nothing yet."""
    assert {row.name for row in ROWS if not row.missing} == {
        *COUNTED,
        *("max_open_discrepancies", "max_repeated_executions", "max_rate_denials"),
        *("max_decision_age_s", "duplicate_window_s", "cooldown_s", "max_consecutive_rejects"),
    }
    assert judge(Change(limited={"duplicate_window_s": 60, "cooldown_s": 60})).approved


@each_row
def test_an_order_that_only_closes(row: Row) -> None:
    """P11: beyond the limit, which ones keep a closing order back, and a person's."""
    beyond = 0 if not (row.name in AT_LEAST or row.reserve) else 100 if row.reserve else PLENTY
    case = row.case | CLOSING | row.closing_case | limited(row, beyond)
    assert judge(case).approved is row.closing, failed(judge(case))
    assert judge(case | BY_PERSON).approved is row.by_person
    # control: the other way round, where it opens, it is kept back
    opening = judge(row.case | limited(row, beyond))
    assert opening.deny_reason is LIMITS[row.name].reason
    # being sent by a person alone opens nothing
    assert not judge(row.case | BY_PERSON | limited(row, beyond)).approved


@each_row
def test_closing_with_data_missing(row: Row) -> None:
    """What a closing order is exempt from does not ask for its data either."""
    needs_price = ("price_collar_bps", "max_order_qty")
    for missing in row.missing:
        if missing.no_account or row.name in needs_price or "notional" in missing.order:
            continue  # what closes is not known without the account, or the size
        wide = 0 if row.name in AT_LEAST or row.reserve else PLENTY
        verdict = judge(row.case | CLOSING | missing | limited(row, wide))
        assert verdict.approved, (missing, failed(verdict))


OWN = [("max_open_orders", "open_orders"), ("max_orders_per_second", "last_second"),
       ("max_orders_per_minute", "last_minute"), ("max_orders_per_day", "today")]  # fmt: skip


@pytest.mark.parametrize(("name", "count"), OWN)
def test_a_strategy_s_own_count_holds_beside_the_account_s(name: str, count: str) -> None:
    """Its own limit counts its own orders, the account's all of them; both are in the verdict."""
    assert {name for name, _ in OWN} == COUNTED
    case = Change(counts={count: 9}, own_counts={count: 4})
    for own, account, reason in (
        (5, 10, None),
        (6, 11, None),
        (4, 10, LIMITS[name].reason),  # its own is passed, the account's is not
        (5, 9, LIMITS[name].reason),  # the other way round: it does not widen the account's
        (None, 10, None),
    ):
        verdict = judge(case | Change(limited={name: account}, own={name: own}))
        assert verdict.deny_reason is reason, (own, account)
        assert named(verdict, name).measured == 10
        assert named(verdict, f"{name} (strategy)").measured == 5
    beyond = case | Change(own={name: 4}) | CLOSING
    assert failed(judge(beyond)) == [f"{name} (strategy)"]
    assert judge(beyond | BY_PERSON).approved


def test_without_limits_of_its_own_a_strategy_has_no_such_checks() -> None:
    assert not [c for c in judge().checks if "strategy)" in c.rule.name]


@pytest.mark.parametrize("row", [r for r in ROWS if r.name not in COUNTED], ids=lambda r: r.name)
def test_other_limits_are_listed_once(row: Row) -> None:
    verdict = judge(row.case)
    check = named(verdict, row.check or row.name)
    assert check.passed
    assert check.rule.limit is None


def test_a_check_as_json() -> None:
    verdict = judge(Change(limited={"max_order_qty": "9.50"}))
    assert named(verdict, "max_order_qty").as_json() == {
        "code": "order_qty", "name": "max_order_qty", "passed": False, "measured": "10",
        "limit": "9.5", "unit": "shares", "source": "test",
    }  # fmt: skip
