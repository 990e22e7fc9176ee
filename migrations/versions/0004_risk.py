"""Risk: policies that verdicts name, counts of orders, the peak of the equity, marks."""

from pathlib import Path

from alembic import op

from torghut.storage.online import build_indexes

revision = "0004_risk"
down_revision = "0003_orders"

# what was denied for the rate of orders
INDEXES = {
    "risk_verdicts_order_rate": "risk_verdicts (judged_at) WHERE deny_reason = 'order_rate'",
}


def upgrade() -> None:
    build_indexes(op.get_context(), INDEXES)
    sql = Path(__file__).parent.parent / "sql" / "0004_risk.sql"
    op.get_bind().connection.driver_connection.execute(sql.read_text(encoding="utf-8"))


def downgrade() -> None:
    raise RuntimeError("schema 0004_risk holds policies and counts: restore a backup instead.")
