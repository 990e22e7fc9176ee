"""docs/identity-vectors.json and docs/identity.md against two implementations."""

from __future__ import annotations

import json
import re
from collections import Counter
from datetime import timedelta
from pathlib import Path

import pytest

from tests.domain.reference_identity import identity_and_payload, sha256
from torghut.domain.decisions import HASH_VERSION, load_json, parse_decision
from torghut.domain.errors import InvalidDecision
from torghut.domain.values import canonical_json

DOCS = Path(__file__).parents[2] / "docs"
PUBLISHED = json.loads((DOCS / "identity-vectors.json").read_text())
ACCEPTED = [v for v in PUBLISHED["vectors"] if "decision_hash" in v]
REFUSED = [v for v in PUBLISHED["vectors"] if "error_fields" in v]
SAME_TRADE = [
    ("quantity 1", 'quantity "1.00"'),
    ("quantity 1.0", "quantity 1e0"),
    ("minimal market order", "keys in another order, with white space"),
    ("minimal market order", "defaults spelled out"),
    ("minimal market order", "telemetry changes nothing"),
    ("minimal market order", "event time with an offset"),
    ("minimal market order", "lower-case symbol"),
    ("strategy in NFC", "strategy in NFD"),
    ("params with floats", "params in another spelling"),
]
TTL = timedelta(minutes=5)


def named(vector: dict[str, object]) -> str:
    return str(vector["name"]).replace(" ", "-")


@pytest.mark.parametrize("vector", ACCEPTED, ids=named)
def test_the_code_gives_the_published_identity(vector: dict[str, str]) -> None:
    """Story 36: 64 hex characters, and nothing of now in them."""
    decision = parse_decision(load_json(vector["decision"]), account=vector["account"], ttl=TTL)
    assert canonical_json(decision.identity()).decode() == vector["canonical_identity"]
    assert canonical_json(decision.payload()).decode() == vector["canonical_payload"]
    assert decision.decision_hash == vector["decision_hash"]
    assert decision.payload_digest == vector["payload_digest"]
    assert re.fullmatch("[0-9a-f]{64}", decision.decision_hash)


@pytest.mark.parametrize("vector", ACCEPTED, ids=named)
def test_a_second_implementation_gives_the_published_identity(vector: dict[str, str]) -> None:
    identity, payload = identity_and_payload(vector["decision"], vector["account"])
    assert (identity, payload) == (vector["canonical_identity"], vector["canonical_payload"])
    assert sha256(identity) == vector["decision_hash"]
    assert sha256(payload) == vector["payload_digest"]


@pytest.mark.parametrize("vector", REFUSED, ids=named)
def test_refused_decisions_name_the_published_fields(vector: dict[str, object]) -> None:
    with pytest.raises(InvalidDecision) as caught:
        parse_decision(load_json(str(vector["decision"])), account="paper", ttl=TTL)
    assert sorted({fault.field for fault in caught.value.faults}) == vector["error_fields"]
    assert str(caught.value).isascii() and len(str(caught.value)) < 500


@pytest.mark.parametrize(("first", "second"), SAME_TRADE)
def test_two_spellings_of_one_trade_are_one(first: str, second: str) -> None:
    vectors = {v["name"]: v for v in ACCEPTED}
    for name in ("decision_hash", "payload_digest"):
        assert vectors[first][name] == vectors[second][name]


def test_the_file_is_large_enough_and_names_are_unique() -> None:
    assert PUBLISHED["hash_version"] == HASH_VERSION
    assert len(ACCEPTED) >= 40 and len(REFUSED) >= 30
    assert len(ACCEPTED) + len(REFUSED) == len(PUBLISHED["vectors"])
    assert max(Counter(v["name"] for v in PUBLISHED["vectors"]).values()) == 1


def test_version_1_is_frozen() -> None:
    """A changed vector is a changed identity: make a version 2 beside it instead."""
    frozen = "".join(v["decision_hash"] + v["payload_digest"] for v in ACCEPTED)
    assert sha256(frozen) == "796b97d310ef1d79df160742f4d745195fa2ae1f2c7a2887fa8a79f5fd5f9298"


def test_the_worked_example_of_the_page_is_true() -> None:
    page = (DOCS / "identity.md").read_text()
    decision_text, identity, payload = re.findall(r"```json\n(.*?)\n```", page, re.DOTALL)
    hashes = re.findall(r"`([0-9a-f]{64})`", page)
    decision = parse_decision(load_json(decision_text), account="paper", ttl=TTL)
    assert canonical_json(decision.identity()).decode() == identity
    assert canonical_json(decision.payload()).decode() == payload
    assert [decision.decision_hash, decision.payload_digest] == hashes
    assert identity_and_payload(decision_text, "paper") == (identity, payload)
