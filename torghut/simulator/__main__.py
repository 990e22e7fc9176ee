"""`python -m torghut.simulator`: the simulated broker alone."""

from __future__ import annotations

from decimal import Decimal
from pathlib import Path
from typing import Annotated

import typer

from torghut.simulator.server import SimConfig, run_simulator


def serve(
    port: Annotated[int, typer.Option(help="Trading and data port; 0 takes a free one.")] = 8090,
    control_port: Annotated[int | None, typer.Option(help="Default: the port after.")] = None,
    host: str = "127.0.0.1",
    key: Annotated[str | None, typer.Option(help="Accept only this key.")] = None,
    secret: Annotated[str | None, typer.Option(help="Accept only this secret.")] = None,
    seed: int = 1,
    market: Annotated[str, typer.Option(help="open, real or replay.")] = "open",
    bars: Annotated[Path | None, typer.Option(help="CSV of daily bars for replay.")] = None,
    state: Annotated[Path | None, typer.Option(help="File that keeps the book.")] = None,
    cash: float = 100_000,
    partial_fills: Annotated[float, typer.Option(help="Probability.")] = 0.1,
    fill_delay_ms: int = 5,
    fault: Annotated[
        list[str] | None, typer.Option(help="ROUTE:KIND:WHEN, for example submit:slow:0.2")
    ] = None,
    faults: Annotated[str | None, typer.Option(help="all:PROBABILITY")] = None,
    fault_hold_s: float = 15.0,
    rate_limit: Annotated[int | None, typer.Option(help="Requests per minute.")] = None,
) -> None:
    """Run the simulated broker until interrupted."""
    rules = (*(fault or ()), *((faults,) if faults else ()))
    try:
        run_simulator(
            SimConfig(
                host=host,
                port=port,
                control_port=control_port,
                key=key,
                secret=secret,
                seed=seed,
                market=market,
                bars=bars,
                state=state,
                cash=Decimal(str(cash)),
                partial_fill_probability=partial_fills,
                fill_delay_ms=fill_delay_ms,
                faults=rules,
                fault_hold_s=fault_hold_s,
                rate_limit=rate_limit,
            )
        )
    except (ValueError, OSError) as error:
        typer.echo(f"torghut sim: {error}", err=True)
        raise typer.Exit(1) from error


if __name__ == "__main__":
    typer.run(serve)
