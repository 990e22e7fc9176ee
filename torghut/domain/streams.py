"""Decisions as messages of a stream: what comes, and what is said back."""

from __future__ import annotations

from dataclasses import dataclass

from torghut.domain.errors import TorghutError


class StreamUnavailable(TorghutError):
    """The stream does not answer, or cannot be used as it is: later again."""


@dataclass(frozen=True, slots=True)
class Delivery:
    """A message that waits for its acknowledgement; it may have been delivered before.

    `problem` is set where it holds no decision at all; `body` is then what there is to show.
    """

    message_id: str
    body: bytes
    problem: str | None = None


@dataclass(frozen=True, slots=True)
class StreamAnswer:
    """What became of a message: created, replayed, conflict or invalid.

    `decision_hash` is None for what is no decision, `error` for what was taken.
    """

    message_id: str
    result: str
    decision_hash: str | None
    error: str | None
