"""Decisions from a Redis stream, as a consumer group: XREADGROUP, XAUTOCLAIM, XACK.

An entry's field `decision` is the decision, JSON. The group is made at the stream's beginning where
there is none, and again if Redis lost it: what then comes a second time is answered `replayed`.

All processes are one consumer of the group. Redis gives each new entry to one caller whatever its
name; names only say whose an unacknowledged entry is, and that does not matter here: it is claimed
by whoever comes by once nobody has touched it for `redeliver_after_s`, other consumers' included.
So no names of dead processes pile up in Redis, and none has to be deleted, which would lose what
was delivered to it meanwhile.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from torghut.domain.streams import Delivery, StreamAnswer, StreamUnavailable
from torghut.stream_settings import RedisIntake

CONSUMER = "torghut"
FIELD = b"decision"
WAIT_MS = 1_000

_DELETED = "was deleted from the stream before it was acknowledged"
_NO_FIELD = "has no field 'decision'"


class RedisGroup:
    """One stream, as one consumer group sees it."""

    def __init__(self, settings: RedisIntake) -> None:
        self._settings = settings
        self._wait_ms = min(WAIT_MS, int(settings.timeout_s * 500))
        self._made = False
        self._claim_from: Any = "0-0"
        self._client: Any = redis.Redis.from_url(
            settings.url.get_secret_value(),
            socket_timeout=settings.timeout_s,
            socket_connect_timeout=settings.timeout_s,
            protocol=2,  # one shape of answers, whatever the client's default is
            retry=Retry(NoBackoff(), 0),  # the loop tries again, and counts it
        )

    def fetch(self, limit: int) -> Sequence[Delivery]:
        with self._answering():
            self._make_group()
            left = self._left_by_others(limit)
            new = self._client.xreadgroup(
                self._settings.group,
                CONSUMER,
                {self._settings.stream: ">"},
                count=limit,
                block=None if left else self._wait_ms,
            )
        return [*left, *(_delivery(*entry) for _, entries in new or () for entry in entries)]

    def reply(self, answers: Sequence[StreamAnswer]) -> None:
        if self._settings.reply_stream is None:
            return
        with self._answering(), self._client.pipeline(transaction=False) as pipeline:
            for answer in answers:
                pipeline.xadd(
                    self._settings.reply_stream,
                    {
                        "id": answer.message_id,
                        "result": answer.result,
                        "decision_hash": answer.decision_hash or "",
                        "error": answer.error or "",
                    },
                    maxlen=self._settings.reply_length_max,
                    approximate=True,
                )
            pipeline.execute()

    def acknowledge(self, answers: Sequence[StreamAnswer]) -> None:
        ids = [answer.message_id for answer in answers]
        with self._answering():
            self._client.xack(self._settings.stream, self._settings.group, *ids)

    def close(self) -> None:
        self._client.close()

    def _make_group(self) -> None:
        if self._made:
            return
        try:
            self._client.xgroup_create(
                self._settings.stream, self._settings.group, id="0", mkstream=True
            )
        except redis.ResponseError as error:
            if not str(error).startswith("BUSYGROUP"):  # it is there
                raise
        self._made = True

    def _left_by_others(self, limit: int) -> list[Delivery]:
        claimed = self._client.xautoclaim(
            self._settings.stream,
            self._settings.group,
            CONSUMER,
            min_idle_time=int(self._settings.redeliver_after_s * 1000),
            start_id=self._claim_from,
            count=limit,
        )
        self._claim_from, entries = claimed[0], claimed[1]
        # Redis forgets that these were delivered: what was in them is gone, and that is to be seen
        gone = [(entry_id, None) for entry_id in (claimed[2] if len(claimed) > 2 else ())]
        return [_delivery(*entry) for entry in [*entries, *gone] if entry[0] is not None]

    @contextmanager
    def _answering(self) -> Iterator[None]:
        try:
            yield
        except redis.ResponseError as error:
            self._made = False  # NOGROUP: the stream or the group is gone
            raise StreamUnavailable(f"redis answered {str(error)[:200]}") from error
        except redis.RedisError as error:
            self._made = False  # it may have come back without what it held
            raise StreamUnavailable(f"redis does not answer: {type(error).__name__}") from error


def _delivery(entry_id: bytes, fields: Mapping[bytes, bytes] | None) -> Delivery:
    message_id = entry_id.decode()
    if fields is None:
        return Delivery(message_id, b"", _DELETED)
    if FIELD not in fields:
        shown = {_text(name): _text(value) for name, value in fields.items()}
        return Delivery(message_id, json.dumps(shown).encode(), _NO_FIELD)
    return Delivery(message_id, fields[FIELD])


def _text(value: bytes) -> str:
    return value.decode("utf-8", "backslashreplace")
