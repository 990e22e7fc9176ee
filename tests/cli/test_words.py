"""Every member of a closed set has words, and nothing else has."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum

import pytest

from torghut import cli_words as words
from torghut.domain.deny_reasons import DenyReason
from torghut.domain.discrepancies import DiscrepancyKind
from torghut.domain.events import EventKind
from torghut.domain.lifecycle import DecisionStatus, Reason
from torghut.domain.order_actions import ActionReason, ActionStatus
from torghut.domain.order_rules import OrderRule
from torghut.domain.plans import ItemReason, ItemStatus, PlanStatus
from torghut.domain.sagas import SagaStatus
from torghut.domain.submission import Proof


@pytest.mark.parametrize(
    ("members", "said"),
    [
        (DecisionStatus, words.STATUS_WORDS),
        (Reason, words.REASON_WORDS),
        (DenyReason, words.DENY_WORDS),
        (OrderRule, words.RULE_WORDS),
        (Proof, words.PROOF_WORDS),
        (EventKind, words.EVENT_WORDS),
        (ActionStatus, words.ACTION_WORDS),
        (ActionReason, words.ACTION_REASON_WORDS),
        (PlanStatus, words.PLAN_WORDS),
        (ItemStatus, words.ITEM_WORDS),
        (ItemReason, words.ITEM_REASON_WORDS),
        (SagaStatus, words.SAGA_WORDS),
        (DiscrepancyKind, words.DISCREPANCY_WORDS),
        (DiscrepancyKind, words.DISCREPANCY_ADVICE),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_every_member_has_words_of_its_own(members: type[StrEnum], said: Mapping[str, str]) -> None:
    assert set(said) == set(members)
    assert len(set(said.values())) == len(said)
    assert all(
        text.strip() and "_" not in text.replace("client_order_id", "").replace("expires_at", "")
        for text in said.values()
    )


def test_a_reason_that_is_not_known_is_shown_as_it_is() -> None:
    assert words.reason_in_words("from_a_later_version") == "from_a_later_version"
    assert words.reason_in_words(None) == ""


def test_a_reason_means_one_thing() -> None:
    members = [*Reason, *DenyReason, *OrderRule]
    assert len({member.value for member in members}) == len(members)
