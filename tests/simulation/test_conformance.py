"""The simulation's broker is put to the suite that every broker of ours must pass."""

from __future__ import annotations

import secrets

import pytest

from tests.brokers.conformance import CHECKS, UNIQUENESS_CHECKS, fresh_ids
from tests.simulation.book import Book
from tests.simulation.line import Calm, Line
from torghut.clock import utc_now


def line() -> Line:
    calm = Calm()
    return Line(Book(utc_now, "conformance", calm.stamp, fills_at_once=True), calm, "test")


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
def test_conformance(check: object) -> None:
    check(line(), fresh_ids(secrets.token_hex(8)))  # type: ignore[operator]


@pytest.mark.parametrize("check", UNIQUENESS_CHECKS, ids=lambda check: check.__name__)
def test_control_uniqueness_off_is_noticed(check: object, monkeypatch: pytest.MonkeyPatch) -> None:
    """The control: against a book that forgets which ids are taken these checks must fail."""
    take = Book.take

    def forgetful(self: Book, *args: object, **over: object) -> object:
        self.by_client_id.clear()
        return take(self, *args, **over)  # type: ignore[arg-type]

    monkeypatch.setattr(Book, "take", forgetful)
    with pytest.raises(AssertionError):
        check(line(), fresh_ids("control"))  # type: ignore[operator]
