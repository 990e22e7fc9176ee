"""An Alpaca-compatible simulated broker, for tests and for trying Torghut without an account.

    alpaca-py ──HTTP──> gateway ──> api_* ──> broker ──> book ──> journal (state file)
                          │ faults              │          ├────> ledger (second books)
                          │                     │          └────> stream (websocket)
    tests ─────HTTP──> control                matching <── market (prices, clock)

Where does X happen:

- an order body is validated: `tickets`; by trading rules: `rules`; for account reasons: `checks`
- an order fills: `matching`; what that means for its bracket: `groups`; money moves: `account`
- an order is replaced by another: `replacing`; what lists do not show yet: `visibility`
- a request goes wrong on purpose: `faults` (when), `misbehaviour` (how), `wire` (on the socket)
- a disputed point of Alpaca's behaviour is chosen: `switches`
- it is started and stopped: `server`

Where it departs from Alpaca is listed in docs/divergences.md. This package imports nothing else
of Torghut.
"""

from torghut.simulator.server import SimConfig, Simulator, run_simulator

__all__ = ["SimConfig", "Simulator", "run_simulator"]
