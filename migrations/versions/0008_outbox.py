"""Outbox: how far each sink has been given events, and the events that a sink refused."""

from pathlib import Path

from alembic import op

revision = "0008_outbox"
down_revision = "0007_idempotency"


def upgrade() -> None:
    sql = Path(__file__).parent.parent / "sql" / "0008_outbox.sql"
    op.get_bind().connection.driver_connection.execute(sql.read_text(encoding="utf-8"))


def downgrade() -> None:
    raise RuntimeError("schema 0008_outbox knows what was delivered: restore a backup instead.")
