"""What a caller is told, classed by what to do next."""

from __future__ import annotations


class IdempotencyError(Exception):
    """Base of all of these; `key` is the one that was asked for."""

    def __init__(self, key: str, text: str) -> None:
        super().__init__(text)
        self.key = key


class KeyReused(IdempotencyError):
    """The key was used with another payload: give each request its own."""

    def __init__(self, key: str) -> None:
        super().__init__(key, f"{key!r} was used with another payload")


class InProgress(IdempotencyError):
    """Somebody is at it. Ask again; `lease_left_s` is how long its owner is believed to live."""

    def __init__(self, key: str, lease_left_s: float) -> None:
        super().__init__(key, f"{key!r} is being worked on")
        self.lease_left_s = lease_left_s


class OutcomeUnknown(IdempotencyError):
    """An attempt ended before its result was stored: it may have had its effect, or not.

    Neither success nor failure. Look at the effect, or give `on_takeover=`.
    """

    def __init__(self, key: str) -> None:
        super().__init__(
            key, f"an attempt under {key!r} ended before its result was stored: outcome unknown"
        )


class LostOwnership(IdempotencyError):
    """The key belongs to a later attempt: what this one found out is not stored."""

    def __init__(self, key: str) -> None:
        super().__init__(key, f"{key!r} was taken over by a later attempt")


class StoredFailure(IdempotencyError):
    """The permanent failure that the first attempt met, where its class is not at hand."""

    def __init__(self, key: str, kind: str, text: str) -> None:
        super().__init__(key, f"{kind}: {text}")
        self.kind = kind
        self.text = text
