"""Pages out of templates: everything stored is shown as text, and nothing is loaded from elsewhere.

1. Jinja2 escapes whatever is put into a page; what cannot be printed (escape sequences, marks that
   turn the direction of writing) is shown as �. A name that a template does not get is an error.
2. The Content-Security-Policy allows this server's own script, style and images, and no inline
   ones: text that got into a page as markup would still not run.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from datetime import UTC, datetime
from decimal import Decimal, InvalidOperation
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup
from starlette.responses import HTMLResponse

from torghut import cli_words as words
from torghut.cli_text import duration, fields, moment, order_in_words, order_now, times
from torghut.domain.lifecycle import DecisionStatus

CSP = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "img-src 'self'",
        "connect-src 'self'",
        "form-action 'self'",
        "base-uri 'none'",
        "frame-ancestors 'none'",
    )
)
HEADERS = {
    "Content-Security-Policy": CSP,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "same-origin",  # `no-referrer` would make the Origin of our forms null
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
}
HASH_SHOWN = 12

_TONES = {
    **dict.fromkeys(("denied", "rejected", "in_doubt", "halted", "failed", "compensating"), "bad"),
    **dict.fromkeys(("expired", "canceled", "submitting", "reducing", "skipped"), "warn"),
    **dict.fromkeys(("stopped", "undone", "undoing", "compensated"), "warn"),
    **dict.fromkeys(("submitted", "closed", "filled", "active", "approved", "ran"), "good"),
    **dict.fromkeys(("completed", "succeeded", "done"), "good"),
}


class Pages:
    """Renders templates."""

    def __init__(self) -> None:
        self._templates = Environment(
            loader=PackageLoader("torghut.web.console"),
            autoescape=True,
            undefined=StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
            finalize=_printable,
        )
        self._templates.filters.update(
            moment=moment_tag,
            age=age,
            money=money,
            signed=signed,
            amount=amount,
            tone=lambda status: _TONES.get(str(status), ""),
            order=order_in_words,
            order_now=order_now,
            fields=fields,
            times=times,
            duration=duration,
            said=lambda member, name: words.in_words(_words(name), member or ""),
            reason=words.reason_in_words,
            short=lambda text: str(text)[:HASH_SHOWN],
        )
        self._templates.globals.update(
            new_key=lambda: os.urandom(16).hex(),
            statuses=[status.value for status in DecisionStatus],
        )

    def page(self, template: str, context: Mapping[str, Any], *, status: int = 200) -> HTMLResponse:
        """A page as an answer."""
        text = self._templates.get_template(template).render(**context)
        return HTMLResponse(text, status, HEADERS)


def moment_tag(instant: str | None) -> Markup:
    """An RFC 3339 instant as a `<time>`: the date and time in UTC."""
    if instant is None:
        return Markup("")
    return Markup("<time datetime='{}'>{}</time>").format(instant, moment(instant))


def age(instant: str | None, now: datetime) -> str:
    """How long ago an RFC 3339 instant was."""
    if instant is None:
        return "never"
    return duration(max(0.0, (now - datetime.fromisoformat(instant)).total_seconds()))


def money(value: str | Decimal | None) -> str:
    """`1,234.50`; empty for what is not known."""
    number = _number(value)
    return "" if number is None else f"{number:,.2f}"


def signed(value: str | Decimal | None) -> Markup:
    """An amount with its sign, marked as gain or loss."""
    number = _number(value)
    if number is None:
        return Markup("")
    tone = "gain" if number > 0 else "loss" if number < 0 else ""
    return Markup("<span class='{}'>{}</span>").format(
        tone, f"{number:+,.2f}" if number else "0.00"
    )


def amount(value: str | None) -> str:
    """A quantity or price with thousands apart; as it is if it is no number."""
    number = _number(value)
    return str(value or "") if number is None else f"{number:,f}"


def now_text(now: datetime) -> str:
    """The instant of a page, for people."""
    return f"{now.astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC"


def _number(value: object) -> Decimal | None:
    if value is None:
        return None
    try:
        number = Decimal(str(value))
    except InvalidOperation:
        return None
    return number if number.is_finite() else None


def _words(name: str) -> Mapping[str, str]:
    found: Mapping[str, str] = getattr(words, f"{name.upper()}_WORDS")
    return found


def _printable(value: object) -> object:
    """What a template puts into a page, before it is escaped."""
    if not isinstance(value, str) or value.isprintable():
        return value
    shown = "".join(
        c if c.isprintable() or c in "\n\t" else "\N{REPLACEMENT CHARACTER}" for c in value
    )
    return Markup(shown) if isinstance(value, Markup) else shown  # noqa: S704 - it was before
