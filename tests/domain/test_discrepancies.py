"""The table of docs/reconciliation.md says what the code does."""

from __future__ import annotations

import re
from pathlib import Path

from torghut.cli_words import DISCREPANCY_WORDS
from torghut.domain.discrepancies import DRIFTS, GRAVE, DiscrepancyKind
from torghut.storage.exposure import GRAVE_DISCREPANCIES

DOCUMENT = Path(__file__).parents[2] / "docs" / "reconciliation.md"


def test_the_table_has_every_kind_with_its_words_and_whether_it_blocks() -> None:
    text = DOCUMENT.read_text(encoding="utf-8")
    rows = re.findall(r"^\| `([a-z_]+)` \| ([^|]+) \| ([^|]+) \| [^|]+ \|$", text, re.MULTILINE)
    blocks = dict.fromkeys(DiscrepancyKind, "no")
    blocks |= dict.fromkeys(GRAVE, "yes") | dict.fromkeys(DRIFTS, "beyond the tolerance")
    assert rows == [(kind.value, DISCREPANCY_WORDS[kind], blocks[kind]) for kind in DiscrepancyKind]


def test_what_is_grave_blocks_new_exposure() -> None:
    assert {DiscrepancyKind(kind) for kind in GRAVE_DISCREPANCIES} == set(GRAVE)
    assert DiscrepancyKind.ROWS_MISSING in GRAVE
