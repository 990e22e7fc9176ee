"""The tables of docs/risk.md, made from the code: `python -m tests.risk_reference` writes them."""

from __future__ import annotations

from pathlib import Path

from torghut.domain.deny_reasons import MEANING, DenyReason
from torghut.domain.limits import COUNTED, LIMITS, LimitSpec, Scope

FILE = Path(__file__).parent.parent / "docs" / "risk.md"


def default(spec: LimitSpec) -> str:
    return "off" if spec.default is None else f"`{spec.default}`"


def where(spec: LimitSpec) -> str:
    places = [
        scope.value for scope in Scope if scope in spec.scopes and scope is not Scope.EVERYTHING
    ]
    return "anywhere" if len(places) == 3 else ", ".join(places)


def limits_table() -> str:
    rows = [
        "| limit | default | unit | measured | may be set for | reason |",
        "|---|---|---|---|---|---|",
    ]
    for spec in LIMITS.values():
        own = "; a strategy's own beside the account's" if spec.name in COUNTED else ""
        rows.append(
            f"| `{spec.name}` | {default(spec)} | {spec.unit} | {spec.says}{own} | {where(spec)} "
            f"| `{spec.reason}` |"
        )
    return "\n".join(rows)


def reasons_table() -> str:
    rows = ["| reason | meaning |", "|---|---|"]
    rows += [f"| `{reason}` | {MEANING[reason]} |" for reason in DenyReason]
    return "\n".join(rows)


def rendered(text: str) -> str:
    """The document with its tables made anew."""
    for name, table in (("limits", limits_table()), ("reasons", reasons_table())):
        begin, end = f"<!-- {name}: generated -->", f"<!-- {name}: end -->"
        before, _, rest = text.partition(begin)
        _, _, after = rest.partition(end)
        text = f"{before}{begin}\n\n{table}\n\n{end}{after}"
    return text


if __name__ == "__main__":
    FILE.write_text(rendered(FILE.read_text(encoding="utf-8")), encoding="utf-8")
