"""Risk: policies that verdicts name, counts of orders, the peak of the equity, marks."""

from pathlib import Path

from alembic import op

revision = "0004_risk"
down_revision = "0003_orders"


def upgrade() -> None:
    sql = Path(__file__).parent.parent / "sql" / "0004_risk.sql"
    op.get_bind().connection.driver_connection.execute(sql.read_text(encoding="utf-8"))


def downgrade() -> None:
    raise RuntimeError("schema 0004_risk holds policies and counts: restore a backup instead.")
