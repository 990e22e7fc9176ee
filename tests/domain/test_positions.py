"""Positions as folds of fills: money is conserved, exactly."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Context, Decimal, Inexact, localcontext

import pytest
from hypothesis import given
from hypothesis import strategies as st

from torghut.domain.positions import (
    AVG_PX_STEP,
    FLAT,
    Position,
    apply_entry,
    apply_fill,
    cash_moved,
    fold,
    unrealized_pl,
)

D = Decimal
EXACT = Context(prec=400, traps=[Inexact])


@dataclass(frozen=True)
class Fill:
    side: str
    last_qty: Decimal
    last_px: Decimal

    @property
    def signed_qty(self) -> Decimal:
        return self.last_qty if self.side == "buy" else -self.last_qty


def fill(side: str, qty: str, px: str) -> Fill:
    return Fill(side, D(qty), D(px))


QTYS = st.decimals("0.000000001", "1000000", places=9) | st.integers(1, 500).map(Decimal)
PRICES = st.decimals("0", "100000", places=9) | st.decimals("0.01", "900", places=2)
FILLS = st.lists(st.builds(Fill, st.sampled_from(["buy", "sell"]), QTYS, PRICES), max_size=30)


@given(FILLS, PRICES)
def test_profit_is_the_cash_moved_plus_the_value_held(fills: list[Fill], mark: Decimal) -> None:
    position = fold(fills)
    with localcontext(EXACT):
        cash = -sum((f.signed_qty * f.last_px for f in fills), D(0))
        assert position.realized_pl - position.cost_basis == cash
        assert position.realized_pl + unrealized_pl(position, mark) == cash + position.qty * mark


@given(FILLS)
def test_quantity_is_the_sum_and_a_flat_position_holds_no_cost(fills: list[Fill]) -> None:
    position = fold(fills)
    with localcontext(EXACT):
        assert position.qty == sum((f.signed_qty for f in fills), D(0))
    if not position.qty:
        assert position.cost_basis == 0 and position.avg_px == 0
        assert unrealized_pl(position, D(123)) == 0


@given(FILLS)
def test_the_shown_average_lies_between_the_prices_paid(fills: list[Fill]) -> None:
    position = fold(fills)
    if position.qty:
        prices = [f.last_px for f in fills]
        assert min(prices) - AVG_PX_STEP <= position.avg_px <= max(prices) + AVG_PX_STEP
        with localcontext(EXACT):
            error = abs(position.qty * position.avg_px - position.cost_basis)
            assert error <= abs(position.qty) * AVG_PX_STEP


@given(FILLS, st.integers(0, 30))
def test_a_fold_may_stop_and_go_on(fills: list[Fill], at: int) -> None:
    assert fold(fills[at:], start=fold(fills[:at])) == fold(fills)


@given(FILLS)
def test_a_short_position_mirrors_a_long_one(fills: list[Fill]) -> None:
    mirrored = [Fill("sell" if f.side == "buy" else "buy", f.last_qty, f.last_px) for f in fills]
    ours, theirs = fold(fills), fold(mirrored)
    with localcontext(EXACT):
        assert (theirs.qty, theirs.cost_basis) == (-ours.qty, -ours.cost_basis)
        assert theirs.realized_pl == -ours.realized_pl


@given(FILLS, st.integers(1, 8))
def test_partial_fills_at_one_price_add_up(fills: list[Fill], pieces: int) -> None:
    """One order filled in pieces leaves the position that it leaves in one piece, up to the
    rounding of cost to 18 decimals per piece."""
    split: list[Fill] = []
    for f in fills:
        part = (f.last_qty / pieces).quantize(D("1e-9"))
        rest = f.last_qty - part * (pieces - 1)
        if part > 0 and rest > 0:
            split += [Fill(f.side, part, f.last_px)] * (pieces - 1) + [
                Fill(f.side, rest, f.last_px)
            ]
        else:
            split.append(f)
    whole, in_pieces = fold(fills), fold(split)
    assert in_pieces.qty == whole.qty
    # the early roundings are carried along, scaled by ratios of quantities
    assert abs(in_pieces.cost_basis - whole.cost_basis) < D("1e-6")


@pytest.mark.parametrize(
    ("fills", "qty", "avg_px", "realized_pl"),
    [
        ([], "0", "0", "0"),
        ([("buy", "10", "100")], "10", "100", "0"),
        ([("buy", "10", "100"), ("buy", "30", "120")], "40", "115", "0"),
        ([("buy", "10", "100"), ("sell", "4", "110")], "6", "100", "40"),
        ([("buy", "10", "100"), ("sell", "10", "90")], "0", "0", "-100"),
        ([("buy", "10", "100"), ("sell", "15", "110")], "-5", "110", "100"),
        ([("sell", "10", "100"), ("buy", "4", "90")], "-6", "100", "40"),
        ([("sell", "10", "100"), ("buy", "25", "90")], "15", "90", "100"),
        ([("buy", "0.5", "3"), ("sell", "0.25", "5"), ("sell", "0.5", "7")], "-0.25", "7", "1.5"),
        ([("buy", "3", "10"), ("sell", "1", "0")], "2", "10", "-10"),
        ([("buy", "1", "1"), ("buy", "2", "2")], "3", "1.666666667", "0"),
    ],
)
def test_by_hand(
    fills: Sequence[tuple[str, str, str]], qty: str, avg_px: str, realized_pl: str
) -> None:
    position = fold(fill(*each) for each in fills)
    assert (position.qty, position.avg_px, position.realized_pl) == (
        D(qty),
        D(avg_px),
        D(realized_pl),
    )


def test_a_third_of_a_cost_moves_nothing_out_of_the_books() -> None:
    position = fold([fill("buy", "1", "1"), fill("buy", "2", "2"), fill("sell", "1", "2")])
    assert position.cost_basis == D("3.333333333333333333")
    assert position.realized_pl == D("0.333333333333333333")
    assert position.realized_pl - position.cost_basis == D(-3)


@pytest.mark.parametrize(
    ("qty", "px", "keeps_cost", "held", "cost", "realized_pl"),
    [
        ("-1", None, False, "9", "900", "-100"),  # a fee in units: lost at their cost
        ("5", None, False, "15", "1000", "0"),  # a gift
        ("10", "110", False, "20", "2100", "0"),  # units from another account
        ("10", None, True, "20", "1000", "0"),  # a split
        ("-5", None, True, "5", "1000", "0"),  # a reverse split
        ("-10", None, True, "0", "0", "-1000"),  # nothing is left to carry the cost
        ("0", "1", False, "10", "1000", "0"),
    ],
)
def test_entries(
    qty: str, px: str | None, keeps_cost: bool, held: str, cost: str, realized_pl: str
) -> None:
    """Units that come and go without a trade move no cash: their worth alone is not conserved."""
    before = fold([fill("buy", "10", "100")])
    after = apply_entry(before, D(qty), None if px is None else D(px), keeps_cost=keeps_cost)
    assert (after.qty, after.cost_basis, after.realized_pl) == (D(held), D(cost), D(realized_pl))
    assert cash_moved(after) == cash_moved(before) - D(qty) * D(px or "0")


def test_the_context_of_the_caller_changes_nothing() -> None:
    fills = [fill("buy", "1234567.123456789", "98765.123456789"), fill("sell", "0.1", "1.1")]
    with localcontext(Context(prec=4)):
        position = fold(fills)
        worth = unrealized_pl(position, D("98765.123456789"))
    assert position == fold(fills)
    assert worth == unrealized_pl(position, D("98765.123456789"))


@pytest.mark.parametrize(
    ("side", "qty", "px"),
    [
        ("hold", "1", "1"),
        ("buy", "0", "1"),
        ("buy", "-1", "1"),
        ("sell", "1", "-0.01"),
        ("buy", "NaN", "1"),
        ("buy", "1", "Infinity"),
    ],
)
def test_what_is_no_fill_is_refused(side: str, qty: str, px: str) -> None:
    with pytest.raises(ValueError):
        apply_fill(FLAT, side=side, last_qty=D(qty), last_px=D(px))


def test_the_start_is_flat() -> None:
    assert Position() == FLAT == fold([])
