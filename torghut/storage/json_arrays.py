"""Many JSON documents as one parameter.

As an array of text the driver would escape every quotation mark of every document by itself, which
took longer than all else about a batch.
"""

from __future__ import annotations

from collections.abc import Iterable


def jsonb_array(parameter: str) -> str:
    """SQL for the jsonb[] of a parameter that `json_array` made."""
    return (
        "ARRAY(SELECT CAST(element AS jsonb) FROM "
        f"json_array_elements(CAST(:{parameter} AS json)) "
        "WITH ORDINALITY AS e (element, place) ORDER BY place)"
    )


def json_array(documents: Iterable[str]) -> str:
    """One JSON array of documents that are JSON already, in their order."""
    return "[" + ",".join(documents) + "]"
