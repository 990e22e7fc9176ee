"""A verdict for people: what failed first, then what passed, then the limits that are off.

Forty checks are too many to read under stress: only those with something to compare get a line
of their own, the others are named. `--json` has every one of them. The console draws bars beside
the same words.
"""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Group, RenderableType
from rich.text import Text

from torghut.cli_text import BAD, GOOD, Data, after, grid, line, printable, section
from torghut.cli_words import reason_in_words
from torghut.domain.limits import AT_LEAST

VERSION_SHOWN = 12


def verdicts(stored: Sequence[Data], start: str) -> list[Group]:
    """The sections of a decision's verdicts; times relative to `start`."""
    if not stored:
        return [section("Verdict", line("none yet"))]
    sections = []
    for number, verdict in enumerate(stored, 1):
        approved = verdict["outcome"] == "approved"
        why = "" if approved else f", {reason_in_words(verdict['deny_reason'])}"
        title = "Verdict" if len(stored) == 1 else f"Verdict {number} of {len(stored)}"
        content: list[RenderableType] = [
            line(
                (verdict["outcome"], GOOD if approved else BAD),
                f"{why} ({after(verdict['judged_at'], start)});"
                f" price {_known(verdict, 'reference_px')},"
                f" takes {_known(verdict, 'notional')} of buying power;"
                f" policy {verdict['policy_version'][:VERSION_SHOWN]}",
            )
        ]
        whole = number in (1, len(stored))  # repeated ones in between: only what failed
        content += _checks(verdict["checks"], whole=whole)
        sections.append(section(title, *content))
    return sections


def _checks(checks: Sequence[Data], *, whole: bool) -> list[RenderableType]:
    failed = [check for check in checks if not check["passed"]]
    passed = [check for check in checks if check["passed"] and compares(check)]
    off = [check_name(check) for check in checks if check["passed"] and not compares(check)]
    shown = failed + (passed if whole else [])
    content: list[RenderableType] = [grid([_check(check) for check in shown])] if shown else []
    if off and whole:
        content.append(line(f"no limit set: {', '.join(off)}"))
    return content


def compares(check: Data) -> bool:
    """True if the check has a limit to compare with."""
    return check["limit"] is not None and check["limit"] not in ("any", "off")


def check_name(check: Data) -> str:
    """The name of a check's limit."""
    # verdicts of version 0.1 had the limit's name in the unit
    return str(check.get("name") or check["unit"].partition("(")[2].rstrip(")") or check["code"])


def _check(check: Data) -> tuple[Text, Text]:
    mark = line(("✓", GOOD)) if check["passed"] else line(("✗", BAD))
    return mark, line(check_told(check))


def check_told(check: Data) -> str:
    """What was measured, against which limit, and where that was set."""
    unit = check["unit"].partition(" (")[0]
    if not unit:
        limit = f", wanted: {check['limit']}"
    else:
        bound = "at least" if check_name(check) in AT_LEAST else "at most"
        limit = f", {bound} {check['limit']} {unit}"
    told = f"{check['code']}: {_known(check, 'measured')}{limit}"
    return printable(f"{told} [{check_name(check)}, {check['source']}]")


def _known(data: Data, name: str) -> str:
    return "not known" if data[name] is None else str(data[name])
