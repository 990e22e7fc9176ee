"""Outbox: how far each sink has been given events, and the events that a sink refused."""

from pathlib import Path

from alembic import op

from torghut.storage.online import build_indexes

revision = "0008_outbox"
down_revision = "0007_idempotency"

# what is new since a snapshot is found by the transaction that wrote it
INDEXES = {"events_xact": "events (xact_id, event_seq)"}


def upgrade() -> None:
    build_indexes(op.get_context(), INDEXES)
    sql = Path(__file__).parent.parent / "sql" / "0008_outbox.sql"
    op.get_bind().connection.driver_connection.execute(sql.read_text(encoding="utf-8"))


def downgrade() -> None:
    raise RuntimeError("schema 0008_outbox knows what was delivered: restore a backup instead.")
