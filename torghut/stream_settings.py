"""The `[intakes.NAME]` tables: streams that decisions are taken from, and which of it is secret."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Literal

from pydantic import Field, SecretStr, field_validator

from torghut.sink_settings import SUBJECT, Place, SinkName, check_address, hosts


class _Intake(Place):
    url: SecretStr
    group: str = Field(default="torghut", pattern=r"^[A-Za-z0-9_-]+$", max_length=255)
    redeliver_after_s: float = Field(default=30, ge=0.1, le=3600)


class RedisIntake(_Intake):
    """A consumer group on a stream of Redis, or of what speaks its protocol."""

    kind: Literal["redis"]
    stream: str = Field(default="torghut:decisions", min_length=1, max_length=512)
    reply_stream: str | None = Field(default=None, min_length=1, max_length=512)
    reply_length_max: int | None = Field(default=None, ge=1)

    @field_validator("url")
    @classmethod
    def _url(cls, value: SecretStr) -> SecretStr:
        return check_address(value, ("redis", "rediss"))

    def place(self) -> str:
        return f"{hosts(self.url)} {self.stream}"


class NatsIntake(_Intake):
    """A durable pull consumer on a stream of NATS JetStream."""

    kind: Literal["nats"]
    stream: str = Field(default="TORGHUT_DECISIONS", pattern=r"^[A-Za-z0-9_-]+$", max_length=255)
    subject: str = Field(default="torghut.decisions", pattern=SUBJECT, max_length=255)
    reply_subject: str | None = Field(default=None, pattern=SUBJECT, max_length=255)

    @field_validator("url")
    @classmethod
    def _url(cls, value: SecretStr) -> SecretStr:
        return check_address(value, ("nats", "tls", "ws", "wss"))

    def place(self) -> str:
        return f"{hosts(self.url)} {self.stream}"


IntakeSettings = Annotated[RedisIntake | NatsIntake, Field(discriminator="kind")]
Intakes = Mapping[SinkName, IntakeSettings]
