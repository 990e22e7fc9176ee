"""docs/event.schema.json and the tables of docs/events.md: `python -m tests.event_reference`."""

from __future__ import annotations

import json
from pathlib import Path

from torghut.domain.event_schema import PAYLOADS, envelope_fields, json_schema
from torghut.domain.events import EventKind

DOCS = Path(__file__).parent.parent / "docs"
SCHEMA = DOCS / "event.schema.json"
FILE = DOCS / "events.md"


def envelope_table() -> str:
    rows = ["| field | |", "|---|---|"]
    rows += [f"| `{name}` | {says} |" for name, says in envelope_fields().items()]
    return "\n".join(rows)


def kinds_table() -> str:
    rows = ["| kind | what happened | payload |", "|---|---|---|"]
    for kind in EventKind:
        payload = PAYLOADS[kind]
        fields = [f"`{name}`" for name in payload.always]
        fields += [f"`{name}` (sometimes)" for name in payload.sometimes]
        fields += ["evidence"] if payload.open else []
        rows.append(f"| `{kind}` | {payload.says} | {', '.join(fields)} |")
    return "\n".join(rows)


def rendered(text: str) -> str:
    """The document with its tables made anew."""
    for name, table in (("envelope", envelope_table()), ("kinds", kinds_table())):
        begin, end = f"<!-- {name}: generated -->", f"<!-- {name}: end -->"
        before, _, rest = text.partition(begin)
        _, _, after = rest.partition(end)
        text = f"{before}{begin}\n\n{table}\n\n{end}{after}"
    return text


def schema_text() -> str:
    """What docs/event.schema.json has to be."""
    return json.dumps(json_schema(), indent=1, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    FILE.write_text(rendered(FILE.read_text(encoding="utf-8")), encoding="utf-8")
    SCHEMA.write_text(schema_text(), encoding="utf-8")
