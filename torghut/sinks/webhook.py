"""Events as signed POST requests.

    POST url                       body: the envelope, JSON
    Torghut-Event-Id: <id>         what the receiver tells repetitions by
    Torghut-Timestamp: <seconds>   when this request was signed, Unix time
    Torghut-Signature: v1=<hex>    HMAC-SHA256 of "<timestamp>.<body>" under the secret

The receiver computes the same, compares in constant time and refuses what is old, so that a request
that somebody kept cannot be played again. A new signature is made for each try.

| answer | |
|---|---|
| 2xx | taken |
| 3xx | not followed: the secret's work must not end at another host; again later |
| 401 403 404 405 407 408 421 425 429, 5xx, none | about the receiver: again later (`Retry-After`) |
| other 4xx | refused for good |
"""

from __future__ import annotations

import hashlib
import hmac

import requests

from torghut.clock import Clock
from torghut.domain.outbox import EventRefused, Message, SinkUnavailable
from torghut.sink_settings import WebhookSink

NOT_ABOUT_THE_EVENT = frozenset({401, 403, 404, 405, 407, 408, 421, 425, 429})


def signature(secret: str, timestamp: str, body: bytes) -> str:
    """The value of `Torghut-Signature`."""
    signed = timestamp.encode() + b"." + body
    return "v1=" + hmac.new(secret.encode(), signed, hashlib.sha256).hexdigest()


class Webhook:
    """One request for each event, over a connection that stays open."""

    def __init__(self, settings: WebhookSink, clock: Clock) -> None:
        self._url = settings.url.get_secret_value()
        self._secret = settings.secret.get_secret_value()
        self._timeout_s = settings.timeout_s
        self._clock = clock
        self._session = requests.Session()
        self._session.auth = _unchanged  # else a .netrc file would add its own

    def publish(self, message: Message) -> None:
        timestamp = str(int(self._clock().timestamp()))
        headers = {
            "Content-Type": "application/json",
            "User-Agent": "torghut",
            "Torghut-Event-Id": message.event.event_id,
            "Torghut-Timestamp": timestamp,
            "Torghut-Signature": signature(self._secret, timestamp, message.body),
        }
        try:
            with self._session.post(
                self._url,
                data=message.body,
                headers=headers,
                timeout=self._timeout_s,
                allow_redirects=False,
                stream=True,  # what it says in its body is not read
            ) as answer:
                status, wait = answer.status_code, answer.headers.get("Retry-After", "")
        except requests.RequestException as error:
            # the text of the error has the address in it
            raise SinkUnavailable(f"no answer: {type(error).__name__}") from error
        _judge(status, wait)

    def close(self) -> None:
        self._session.close()


def _judge(status: int, retry_after: str) -> None:
    if 200 <= status < 300:
        return
    if 400 <= status < 500 and status not in NOT_ABOUT_THE_EVENT:
        raise EventRefused(f"answered {status}")
    moved = "; redirects are not followed" if 300 <= status < 400 else ""
    wait_s = float(retry_after) if retry_after.isascii() and retry_after.isdigit() else 0.0
    raise SinkUnavailable(f"answered {status}{moved}", wait_s=wait_s)


def _unchanged(request: requests.PreparedRequest) -> requests.PreparedRequest:
    return request
