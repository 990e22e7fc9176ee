"""The examples of README are run: what it shows is what the code answers."""

from __future__ import annotations

import json
import re
from datetime import timedelta
from pathlib import Path

import pytest

from torghut.domain.errors import InvalidDecision
from torghut.services.batch import Accounts, read_decision

README = (Path(__file__).parent.parent / "README.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    """Fenced blocks of one language."""
    return re.findall(rf"```{language}\n(.*?)```", README, re.DOTALL)


def test_the_decision_has_the_hash_that_is_shown() -> None:
    (example,) = blocks("json")
    decision = read_decision(
        example.encode(), accounts=Accounts.only("paper"), ttl=timedelta(days=1)
    )
    answers = [json.loads(line) for line in README.splitlines() if line.startswith('{"line"')]
    assert answers[0] == {
        "line": 1,
        "decision_hash": decision.decision_hash,
        "result": "created",
    }
    assert f"torghut explain {decision.decision_hash[:8]}" in README


def test_the_refusal_reads_as_shown() -> None:
    (example,) = blocks("json")
    refused = {**json.loads(example), "qty": -1}
    with pytest.raises(InvalidDecision) as error:
        read_decision(
            json.dumps(refused).encode(), accounts=Accounts.only("paper"), ttl=timedelta(days=1)
        )
    assert f'"error": "{error.value}"' in README


def test_every_command_is_in_the_table() -> None:
    from torghut.cli import app

    names = {c.name or c.callback.__name__ for c in app.registered_commands if c.callback}
    missing = sorted(name for name in names if f"`{name}" not in README)
    assert not missing
