"""Each rule of the broker's, broken and just kept; what is not known is not judged."""

from __future__ import annotations

from dataclasses import replace
from decimal import Decimal

import pytest

from tests.domain.rule_cases import CASES, LIMIT, NOON, OCO, Case, broken, kept, request
from torghut.domain.order_rules import BrokenRule, OrderRule, broken_rules


def test_every_rule_has_a_case() -> None:
    assert {case.rule for case in CASES} == set(OrderRule)


@pytest.mark.parametrize("case", CASES, ids=str)
def test_an_order_that_breaks_the_rule(case: Case) -> None:
    rules = broken(case).judged()
    assert case.rule in {rule.code for rule in rules}
    assert all(rule.measured and rule.limit for rule in rules)


@pytest.mark.parametrize("case", CASES, ids=str)
def test_an_order_that_just_keeps_it(case: Case) -> None:
    assert kept(case).judged() == ()


NEED_FACTS = {
    OrderRule.COST_MINIMUM,
    OrderRule.FRACTIONAL_SHORT,
    OrderRule.ENTRY_OR_EXIT,
}


@pytest.mark.parametrize("case", CASES, ids=str)
def test_what_is_not_known_is_not_judged(case: Case) -> None:
    put = broken(case)
    codes = {rule.code for rule in broken_rules(put.order, put.at)}
    assert not codes & NEED_FACTS
    if case.rule not in NEED_FACTS | {OrderRule.EXIT_DISTANCE}:
        assert case.rule in codes


def test_all_broken_rules_are_named() -> None:
    order = request({**OCO, "time_in_force": "ioc", "qty": "1.5", "limit_price": "109.999"})
    codes = [rule.code for rule in broken_rules(order, NOON)]
    assert codes == [
        OrderRule.PRICE_INCREMENT,
        OrderRule.FRACTIONAL_TIME_IN_FORCE,
        OrderRule.FRACTIONAL_ORDER_CLASS,
        OrderRule.CLASS_TIME_IN_FORCE,
        OrderRule.OCO_LIMIT_PRICE,
    ]


def test_the_words_name_both_sides() -> None:
    order = request({**LIMIT, "limit_price": "290.123"})
    assert broken_rules(order, NOON) == (
        BrokenRule(OrderRule.PRICE_INCREMENT, "limit_price 290.123", "2 decimals from 1, 4 below"),
    )


@pytest.mark.parametrize("side", ["buy", "sell"])
def test_an_order_that_closes_is_not_kept_back_by_its_cost(side: str) -> None:
    """What is worth less than the minimum can still be sold off."""
    order = replace(request({"side": side}), qty=Decimal("0.001"))
    held = Decimal("0.001") if side == "sell" else Decimal("-0.001")
    assert broken_rules(order, NOON, position_qty=held, reference_px=Decimal(1)) == ()


def test_notional_orders_that_nobody_has_measured_are_left_to_the_broker() -> None:
    order = request({**LIMIT, "qty": None, "notional": "100"})
    assert broken_rules(order, NOON) == ()
