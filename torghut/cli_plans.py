"""The commands about plans and sagas: `plan`, `plans`, `order`, `sagas`.

`plan` and `order` store what is to be done; the daemon does it. The same again is answered with
what became of it. Exit 0: stored, or stored before; 1: invalid, in conflict, or no such plan.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from torghut.cli_control import actor
from torghut.cli_reads import LIMIT_MAX, fail, show

if TYPE_CHECKING:
    from rich.console import RenderableType

    from torghut.config import Settings
    from torghut.storage.database import Database

EXIT_USAGE = 2
BYTES_MAX = 1024 * 1024
ID_MAX = 2**63 - 1

Load = Callable[..., "Settings"]
Connect = Callable[[], AbstractContextManager["Database"]]
AsJson = Annotated[bool, typer.Option("--json", help="JSON for scripts.")]
File = Annotated[str, typer.Argument(metavar="FILE|-", help="One JSON object.")]
Id = Annotated[int | None, typer.Argument(metavar="[ID]", min=1, max=ID_MAX, help="One of them.")]
Status = Annotated[str | None, typer.Option("--status", help="Only this status.")]
Limit = Annotated[int, typer.Option("--limit", min=1, max=LIMIT_MAX, help="Rows at most.")]


def register(app: typer.Typer, load: Load, connect: Connect) -> None:
    """Add the commands to `app`."""

    @app.command()
    def plan(file: File, as_json: AsJson = False) -> None:
        """Store a rebalance plan: sells first, then buys by what they brought (docs/plans.md)."""
        _plan(load, file, as_json=as_json)

    @app.command()
    def plans(
        plan_id: Id = None, status: Status = None, limit: Limit = 50, as_json: AsJson = False
    ) -> None:
        """Plans, newest first; with an ID its items, its statistics and its steps."""
        from torghut.domain.plans import PlanStatus

        _known(status, tuple(PlanStatus))
        _list(connect, "plan", plan_id, status, limit, as_json=as_json)

    @app.command()
    def order(
        file: File,
        undo: Annotated[
            bool, typer.Option("--undo", help="If it fails, undo what was filled.")
        ] = False,
        as_json: AsJson = False,
    ) -> None:
        """Start one decision as a saga: validate, check risk, execute, update records."""
        _order(load, file, undo, as_json=as_json)

    @app.command()
    def sagas(
        saga_id: Id = None, status: Status = None, limit: Limit = 50, as_json: AsJson = False
    ) -> None:
        """Sagas, newest first (status also: open); with an ID its steps."""
        from torghut.domain.sagas import SagaStatus

        _known(status, ("open", *SagaStatus))
        _list(connect, "saga", saga_id, status, limit, as_json=as_json)


def _plan(load: Load, file: str, *, as_json: bool) -> None:
    from torghut import places
    from torghut.clock import utc_now
    from torghut.domain.errors import InvalidDecision
    from torghut.domain.plans import InvalidPlan, parse_plan
    from torghut.services import plans
    from torghut.storage.rows import IntakeResult

    settings = load(log_level="warning")
    places.arm_recovery_point(settings)
    try:
        request = parse_plan(
            _read(file), accounts=settings.labels, default=settings.default_account
        )
        with places.open_database(settings) as database:
            answer = plans.accept(
                database,
                request,
                source=actor(),
                ttl=places.decision_ttl(settings),
                now=utc_now(),
            )
    except (InvalidDecision, InvalidPlan) as error:
        fail(str(error))
    conflict = answer.result is IntakeResult.CONFLICT
    if as_json:
        document: dict[str, Any] = {
            "plan_id": answer.plan_id,
            "correlation_id": answer.correlation_id,
            "result": answer.result.value,
            "differing": list(answer.differing),
            "plan": None if conflict else answer.plan,
        }
        typer.echo(json.dumps(document))
    elif conflict:
        fail(
            f"plan {answer.plan_id} has this correlation_id with other content "
            f"({', '.join(answer.differing)}); a new plan needs a new correlation_id"
        )
    else:
        typer.echo(f"{answer.result.value}: plan {answer.plan_id} is {answer.plan['status']}")
        typer.echo(f"follow it: torghut plans {answer.plan_id}")
    raise typer.Exit(1 if conflict else 0)


def _order(load: Load, file: str, undo: bool, *, as_json: bool) -> None:
    from torghut import places
    from torghut.clock import utc_now
    from torghut.domain.decisions import parse_decision
    from torghut.domain.errors import InvalidDecision
    from torghut.services.batch import Accounts
    from torghut.services.order_saga import start_order
    from torghut.services.sagas import SagaConflict

    settings = load(log_level="warning")
    places.arm_recovery_point(settings)
    try:
        accounts = Accounts(settings.labels, settings.default_account)
        decision = parse_decision(
            _read(file), account=accounts.default, ttl=places.decision_ttl(settings)
        )
        accounts.check(decision)
        with places.open_database(settings) as database:
            id_, created = start_order(
                database, decision, undo_fills=undo, actor=actor(), now=utc_now()
            )
    except (InvalidDecision, SagaConflict) as error:
        fail(str(error))
    result = "created" if created else "replayed"
    hash_ = decision.decision_hash
    if as_json:
        typer.echo(json.dumps({"saga_id": id_, "decision_hash": hash_, "result": result}))
    else:
        typer.echo(f"{result}: saga {id_} of decision {hash_}")
        typer.echo(f"follow it: torghut sagas {id_}")


def _read(file: str) -> object:
    """One JSON document. Raises InvalidDecision; ends the command if there is no such file."""
    from torghut.domain.decisions import load_json

    try:
        with sys.stdin.buffer if file == "-" else Path(file).open("rb") as source:
            text = source.read(BYTES_MAX + 1)
    except OSError as error:
        fail(f"{file}: {error.strerror}", EXIT_USAGE)
    if len(text) > BYTES_MAX:
        fail(f"{file}: more than {BYTES_MAX} bytes")
    return load_json(text)


def _known(status: str | None, allowed: tuple[str, ...]) -> None:
    if status is not None and status not in allowed:
        raise typer.BadParameter("must be one of " + ", ".join(allowed), param_hint="--status")


def _list(
    connect: Connect,
    what: str,
    id_: int | None,
    status: str | None,
    limit: int,
    *,
    as_json: bool,
) -> None:
    from torghut.cli_text import line
    from torghut.storage import plan_reads, queries

    lists, one = {
        "plan": (plan_reads.plans, plan_reads.plan),
        "saga": (plan_reads.sagas, plan_reads.saga),
    }[what]
    with connect() as database, database.transaction() as tx:
        queries.begin(tx)
        if id_ is not None:
            found = one(tx, id_)
            rows = [] if found is None else [found]
        else:
            rows = lists(tx, queries.Filters(status=status, limit=limit))
    if id_ is not None and not rows:
        fail(f"no {what} {id_}; list them: torghut {what}s")
    if as_json:
        for row in rows:
            typer.echo(json.dumps(row))
    elif id_ is not None:
        show(*(_whole_plan(rows[0]) if what == "plan" else _steps(rows[0])))
    elif not rows:
        show(line(f"no {what}s{' of this status' if status else ''}; see torghut {what}s --help"))
    else:
        show(_table(what, rows))


def _table(what: str, rows: list[dict[str, Any]]) -> RenderableType:
    from torghut.cli_output import Column, table
    from torghut.cli_text import moment

    created = Column("created (UTC)", lambda row: moment(row["created_at"]), fixed=True)
    number = Column("id", lambda row: str(row["id"]), fixed=True)
    status = Column("status", lambda row: row["status"], fixed=True)
    if what == "plan":
        return table(
            rows,
            (
                number,
                created,
                Column("correlation id", lambda row: row["correlation_id"]),
                Column("strategy", lambda row: row["strategy"]),
                status,
                Column("why", lambda row: row["status_detail"] or ""),
            ),
        )
    return table(
        rows,
        (
            number,
            created,
            Column("kind", lambda row: row["kind"]),
            Column("key", lambda row: row["saga_key"][:20]),
            status,
            Column("at", lambda row: row["at"] or row["failure"] or ""),
        ),
    )


def _whole_plan(plan: Mapping[str, Any]) -> list[RenderableType]:
    from torghut.cli_output import Column, table
    from torghut.cli_text import Row, grid, line, moment, printable, section, standing
    from torghut.cli_words import ITEM_REASON_WORDS, PLAN_WORDS, in_words, reason_in_words

    def why(item: Mapping[str, Any]) -> str:
        reason = item["reason"] or ""
        return ITEM_REASON_WORDS.get(reason) or reason_in_words(reason)

    said: list[Row] = [
        ("plan", f"{plan['id']} ({printable(plan['correlation_id'])})"),
        ("status", line(standing(plan["status"]), f": {in_words(PLAN_WORDS, plan['status'])}")),
        ("budget", "not known yet" if plan["budget"] is None else f"{plan['budget']}, of which "
         f"the sells brought {plan['proceeds']}"),
        ("ends at", f"{moment(plan['expires_at'])} UTC at the latest"),
    ]  # fmt: skip
    if plan["status_detail"]:
        said.append(("why", printable(plan["status_detail"])))
    counted: list[Row] = [
        (phase, ", ".join(f"{value} {name.replace('_', ' ')}" for name, value in numbers.items()))
        for phase, numbers in plan["statistics"].items()
    ]
    columns = (
        Column("item", lambda i: f"{i['action']} {i['trade_amount']} of {i['symbol']}"),
        Column("shares", lambda i: i["qty"] or "", right=True),
        Column("filled", lambda i: i["filled_value"], right=True),
        Column("status", lambda i: i["status"]),
        Column("why", why),
        Column("decision", lambda i: (i["decision_hash"] or "")[:12], fixed=True),
    )
    return [
        grid(said),
        section("Statistics", grid(counted)),
        section("Items", table(plan["items"], columns)),
        *(_steps(plan["saga"]) if plan["saga"] else ()),
    ]


def _steps(saga: Mapping[str, Any]) -> list[RenderableType]:
    from torghut.cli_output import Column, table
    from torghut.cli_text import moment, printable, section

    columns = (
        Column("step", lambda s: s["name"], fixed=True),
        Column("status", lambda s: s["status"], fixed=True),
        Column("ended (UTC)", lambda s: moment(s["undone_at"] or s["ended_at"]), fixed=True),
        Column("failures", lambda s: str(s["failures"] + s["undo_failures"]), right=True),
        Column("says", lambda s: s["error"] or s["waits_for"] or ""),
    )
    why = f": {printable(saga['failure'])}" if saga["failure"] else ""
    title = f"Saga {saga['id']}, {saga['kind']}, is {saga['status']}{why}"
    return [section(title, table(saga["steps"], columns))]
