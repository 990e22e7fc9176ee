"""Books: how many rows there should be, and which ids lost executions had."""

from pathlib import Path

from alembic import op

from torghut.storage.online import build_indexes

revision = "0006_books"
down_revision = "0005_tie_out"

# what a pass asks for: orders not terminal in turn, orders whose fills are still to come
INDEXES = {
    "executions_unfinished": "executions (account, execution_id) WHERE NOT terminal",
    "executions_unledgered_since": "executions (account, broker_created_at)"
    " WHERE cum_qty > ledger_qty",
}


def upgrade() -> None:
    build_indexes(op.get_context(), INDEXES)
    sql = Path(__file__).parent.parent / "sql" / "0006_books.sql"
    op.get_bind().connection.driver_connection.execute(sql.read_text(encoding="utf-8"))


def downgrade() -> None:
    raise RuntimeError("schema 0006_books counts rows from now on: restore a backup instead.")
