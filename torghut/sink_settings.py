"""The `[sinks.NAME]` tables: what each kind of sink can be told, and which of it is secret.

A table is checked when the settings are, so that a wrong one stops the start. Addresses are
secrets, too: they may hold a password, or be one (the path of a webhook).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Annotated, Literal
from urllib.parse import unquote, urlsplit

from pydantic import BaseModel, ConfigDict, Field, SecretStr, field_validator

NAME = r"^[a-z0-9][a-z0-9_-]{0,62}$"
SUBJECT = r"^[A-Za-z0-9_-]+(\.[A-Za-z0-9_-]+)*$"


class Place(BaseModel):
    """Something outside that this process connects to."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    timeout_s: float = Field(default=5, gt=0, le=30)

    def secrets(self) -> Iterator[str]:
        """Texts that must not be shown: secrets, whole addresses and the passwords in them."""
        for value in dict(self).values():
            if isinstance(value, SecretStr):
                text = value.get_secret_value()
                yield text
                for address in text.split(","):
                    yield from _secret_parts(address)

    def place(self) -> str:
        """Where it is, without what is secret."""
        return ""


class _Sink(Place):
    start: Literal["beginning", "now"] = "beginning"


def _secret_parts(address: str) -> Iterator[str]:
    parts = urlsplit(address)
    if not parts.hostname:
        return
    if parts.password:
        yield from (parts.password, unquote(parts.password))
    # a token of a NATS server stands where a user would
    if parts.username and not parts.password:
        yield parts.username
    if parts.scheme.startswith("http") and parts.path.strip("/"):
        yield parts.path
    if parts.query:
        yield parts.query


def hosts(addresses: SecretStr) -> str:
    """Hosts and ports of addresses, without users and passwords."""
    found = []
    for address in addresses.get_secret_value().split(","):
        parts = urlsplit(address)
        found.append(f"{parts.hostname}:{parts.port}" if parts.port else str(parts.hostname))
    return ",".join(found)


def check_address(value: SecretStr, schemes: Iterable[str]) -> SecretStr:
    """Raises ValueError for what is no address with one of the schemes."""
    allowed = tuple(schemes)
    for address in value.get_secret_value().split(","):
        try:
            parts = urlsplit(address)
            usable = parts.scheme in allowed and bool(parts.hostname) and parts.port != 0
        except ValueError:
            usable = False
        if not usable:
            raise ValueError(f"must be an address that begins with {'://, '.join(allowed)}://")
    return value


class LogSink(_Sink):
    """JSON lines on standard output or standard error."""

    kind: Literal["log"]
    stream: Literal["stdout", "stderr"] = "stdout"

    def place(self) -> str:
        return self.stream


class NotifySink(_Sink):
    """NOTIFY on a channel of the database."""

    kind: Literal["notify"]
    channel: str = Field(default="torghut_events", pattern=r"^[a-z_][a-z0-9_]{0,62}$")

    def place(self) -> str:
        return self.channel


class WebhookSink(_Sink):
    """POST to an address, signed with a secret that both sides know."""

    kind: Literal["webhook"]
    url: SecretStr
    secret: SecretStr = Field(min_length=16)

    @field_validator("url")
    @classmethod
    def _url(cls, value: SecretStr) -> SecretStr:
        if "," in (urlsplit(value.get_secret_value()).netloc):
            raise ValueError("must be one address")
        return check_address(value, ("https", "http"))

    def place(self) -> str:
        return hosts(self.url)


class RedisSink(_Sink):
    """XADD to a stream of Redis, or of what speaks its protocol."""

    kind: Literal["redis"]
    url: SecretStr
    stream: str = Field(default="torghut:events", min_length=1, max_length=512)
    length_max: int | None = Field(default=None, ge=1)

    @field_validator("url")
    @classmethod
    def _url(cls, value: SecretStr) -> SecretStr:
        return check_address(value, ("redis", "rediss"))

    def place(self) -> str:
        return f"{hosts(self.url)} {self.stream}"


class NatsSink(_Sink):
    """A stream of NATS JetStream, which drops repetitions by the event's id."""

    kind: Literal["nats"]
    url: SecretStr
    stream: str = Field(default="TORGHUT", pattern=r"^[A-Za-z0-9_-]+$", max_length=255)
    subject: str = Field(default="torghut.events", pattern=SUBJECT, max_length=255)
    duplicate_window_s: float = Field(default=3600, ge=1, le=86_400 * 30)

    @field_validator("url")
    @classmethod
    def _url(cls, value: SecretStr) -> SecretStr:
        return check_address(value, ("nats", "tls", "ws", "wss"))

    def place(self) -> str:
        return f"{hosts(self.url)} {self.stream}"


class RabbitSink(_Sink):
    """A durable exchange of RabbitMQ, by confirmed messages."""

    kind: Literal["rabbitmq"]
    url: SecretStr
    exchange: str = Field(default="torghut.events", min_length=1, max_length=127)

    @field_validator("url")
    @classmethod
    def _url(cls, value: SecretStr) -> SecretStr:
        return check_address(value, ("amqp", "amqps"))

    def place(self) -> str:
        return f"{hosts(self.url)} {self.exchange}"


SinkSettings = Annotated[
    LogSink | NotifySink | WebhookSink | RedisSink | NatsSink | RabbitSink,
    Field(discriminator="kind"),
]
SinkName = Annotated[str, Field(pattern=NAME)]
Sinks = Mapping[SinkName, SinkSettings]
