"""Decimal in, Alpaca's string form out.

Money, prices and quantities are `Decimal` from the request body to the answer; a float never
takes part, except in the market data API, whose JSON carries numbers.
"""

from __future__ import annotations

from decimal import ROUND_DOWN, Decimal, InvalidOperation

ZERO = Decimal(0)
QTY_STEP = Decimal("0.000000001")


def read_decimal(value: object) -> Decimal:
    """Read a JSON number or numeric string. Raises ValueError for anything else, NaN included."""
    if isinstance(value, bool) or not isinstance(value, int | float | str | Decimal):
        raise ValueError(f"not a number: {value!r}")
    try:
        number = value if isinstance(value, Decimal) else Decimal(str(value).strip())
    except InvalidOperation as error:
        raise ValueError(f"not a number: {value!r}") from error
    if not number.is_finite():
        raise ValueError(f"not a finite number: {value!r}")
    return number


def truncate_qty(qty: Decimal) -> Decimal:
    """Cut a quantity to nine decimals; Alpaca drops further digits without an error."""
    return qty.quantize(QTY_STEP, rounding=ROUND_DOWN)


def is_whole(qty: Decimal) -> bool:
    """True for a whole number of shares."""
    return qty == qty.to_integral_value()


def text(value: Decimal) -> str:
    """Plain decimal notation without trailing zeros: `Decimal("10.500")` is `"10.5"`."""
    if not value:
        return "0"
    plain = format(value, "f")
    return plain.rstrip("0").rstrip(".") if "." in plain else plain


def optional_text(value: Decimal | None) -> str | None:
    """`text`, with None kept."""
    return None if value is None else text(value)
