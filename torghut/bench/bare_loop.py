"""What alpaca-py can do alone: `python -m torghut.bench.bare_loop URL COUNT THREADS`.

Prints orders a second: `submit_order` in threads, each with its client, nothing kept.
"""

from __future__ import annotations

import itertools
import sys
import threading
import time

from alpaca.trading.client import TradingClient
from alpaca.trading.enums import OrderSide, TimeInForce
from alpaca.trading.requests import LimitOrderRequest

from torghut.bench.grounds import SYMBOLS


def main(url: str, count: int, threads: int) -> None:
    """Send and print."""
    numbers = iter(range(count))
    turn = threading.Lock()
    run = str(time.time_ns())

    def send() -> None:
        client = TradingClient("bare", "secret", url_override=url)
        while True:
            with turn:
                number = next(numbers, None)
            if number is None:
                return
            client.submit_order(
                LimitOrderRequest(
                    symbol=SYMBOLS[number % len(SYMBOLS)],
                    qty=1,
                    side=OrderSide.BUY,
                    time_in_force=TimeInForce.DAY,
                    limit_price=1,
                    client_order_id=f"{run}-{number}",
                )
            )

    senders = [threading.Thread(target=send) for _ in itertools.repeat(None, threads)]
    began = time.perf_counter()
    for sender in senders:
        sender.start()
    for sender in senders:
        sender.join()
    print(count / (time.perf_counter() - began))


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))
