"""Is the account that the keys reach the one that may be traded? Asked before the first claim."""

from __future__ import annotations

import structlog

from torghut.config import Settings, check_live_keys
from torghut.domain.errors import BrokerRefused, BrokerUnavailable, ConfigError
from torghut.ports import Broker

log = structlog.get_logger(__name__)


def verify_account(settings: Settings, broker: Broker) -> None:
    """The keys work, and in live mode they reach the account that was named (P10).

    Raises ConfigError; in live mode also BrokerUnavailable: unknown is not the right account.
    """
    try:
        number = broker.account().account_number
    except BrokerRefused as error:
        raise ConfigError(
            settings.named("APCA_API_KEY_ID"),
            f"is refused by the broker at {settings.base_url}: {error}",
            "check key, secret and base URL (paper keys do not open the live host)",
        ) from error
    except BrokerUnavailable as error:
        if settings.trading_mode == "live":
            raise
        log.warning("broker does not answer; decisions wait for it", error=str(error))
        return
    check_live_keys(settings, number)
