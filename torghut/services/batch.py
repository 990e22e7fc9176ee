"""Decisions as senders write them: one JSON text, or a stream of lines of it.

    raw bytes ─ read_decision ─▶ Decision of an account here      (POST /v1/decisions)
    lines ─ submit_lines ─▶ chunk of ≤ 500 ─▶ IntakeDesk ─▶ one answer per line, in their order

1. A bad line never stops the others: it is answered `invalid` and the next one is read.
2. A line is answered after the commit that holds it, so every answer that came out is durable (P2);
   a reader may stop anywhere, and sending the same lines again is answered `replayed`.
3. Memory is one chunk, however long the stream.
4. Blank lines are counted, so that numbers are those of an editor, and not answered.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import BinaryIO

from torghut import telemetry
from torghut.domain.decisions import Decision, load_json, parse_decision
from torghut.domain.errors import Fault, InvalidDecision
from torghut.services.intake import IntakeDesk
from torghut.storage.rows import Intake, IntakeResult

CHUNK_LINES = 500
LINE_BYTES_MAX = 256 * 1024
CHUNK_BYTES_MAX = 4 * 1024 * 1024
ERROR_LENGTH_MAX = 1_000

INVALID = "invalid"


@dataclass(frozen=True, slots=True)
class Accounts:
    """The accounts traded here, and which one a decision without a name means; None: it has to
    name one."""

    labels: Sequence[str]
    default: str | None

    @classmethod
    def only(cls, label: str) -> Accounts:
        """A single one."""
        return cls((label,), label)

    def check(self, decision: Decision) -> None:
        """Refuse a decision for another account: nothing here would ever execute it.

        Raises InvalidDecision.
        """
        if decision.account in self.labels:
            return
        if len(self.labels) == 1:
            problem = f"is not the account traded here ({self.default!a})"
            problem += "; leave it out, or send it there"
        else:
            problem = f"is none of the accounts traded here: {', '.join(self.labels)}"
        raise InvalidDecision((Fault("account", problem),))


@dataclass(frozen=True, slots=True)
class _Line:
    """One line read: a decision, or why it is none."""

    number: int
    decision: Decision | None
    error: str | None


def read_decision(
    raw: bytes, *, accounts: Accounts, ttl: timedelta, intent: str | None = None
) -> Decision:
    """A Decision of one of `accounts` from JSON text in UTF-8; arguments as `parse_decision`.

    Raises InvalidDecision naming every fault.
    """
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise InvalidDecision((Fault("", f"is not UTF-8 at byte {error.start}"),)) from None
    decision = parse_decision(load_json(text), account=accounts.default, ttl=ttl, intent=intent)
    accounts.check(decision)
    return decision


def submit_lines(
    lines: Iterable[bytes], desk: IntakeDesk, *, accounts: Accounts, ttl: timedelta, source: str
) -> Iterator[dict[str, object]]:
    """Submit each line's decision; yields `{"line", "decision_hash", "result", "error"?}` in order.

    `result` is created, replayed, conflict or invalid; `decision_hash` is None for invalid lines,
    `error` is there for the last two. Raises DatabaseUnavailable: the lines of the current chunk
    are not acknowledged, those before were.
    """
    chunk: list[_Line] = []
    size = 0
    for number, raw in enumerate(lines, start=1):
        if len(raw) <= LINE_BYTES_MAX and not raw.strip():
            continue
        chunk.append(_read(number, raw, accounts=accounts, ttl=ttl))
        size += len(raw)
        if len(chunk) >= CHUNK_LINES or size >= CHUNK_BYTES_MAX:
            yield from _submit(chunk, desk, source=source)
            chunk, size = [], 0
    yield from _submit(chunk, desk, source=source)


def lines_of(stream: BinaryIO) -> Iterator[bytes]:
    """Lines of a stream; one that is too long is cut just beyond LINE_BYTES_MAX, so that it is
    answered as too long without being held."""
    while line := stream.readline(LINE_BYTES_MAX + 2):
        yield line
        while not line.endswith(b"\n"):
            line = stream.readline(LINE_BYTES_MAX)
            if not line:
                return


def conflict_text(answer: Intake) -> str:
    """What a conflict is, in one line for a person."""
    fields = ", ".join(answer.differing)
    return f"the same decision was sent before with another payload; different: {fields}"


def counted(result: str) -> None:
    """Add one answer to the metrics."""
    telemetry.DECISIONS.labels(result).inc()


def _read(number: int, raw: bytes, *, accounts: Accounts, ttl: timedelta) -> _Line:
    line = raw.removesuffix(b"\n").removesuffix(b"\r")
    if len(line) > LINE_BYTES_MAX:  # `lines_of` has cut it: even its beginning means nothing
        return _Line(number, None, f"is longer than {LINE_BYTES_MAX} bytes")
    try:
        return _Line(number, read_decision(line, accounts=accounts, ttl=ttl), None)
    except InvalidDecision as error:
        return _Line(number, None, str(error)[:ERROR_LENGTH_MAX])


def _submit(chunk: list[_Line], desk: IntakeDesk, *, source: str) -> Iterator[dict[str, object]]:
    decisions = [line.decision for line in chunk if line.decision is not None]
    answers = iter(desk.accept(decisions, source=source) if decisions else [])
    for line in chunk:
        answer: dict[str, object] = {"line": line.number, "decision_hash": None}
        if line.decision is None:
            answer |= {"result": INVALID, "error": line.error}
        else:
            intake = next(answers)
            answer |= {"decision_hash": intake.decision_hash, "result": intake.result.value}
            if intake.result is IntakeResult.CONFLICT:
                answer["error"] = conflict_text(intake)
        counted(str(answer["result"]))
        yield answer
