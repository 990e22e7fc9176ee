"""Tie-out: entries besides fills, what looks at the broker's answers left open, entry prices."""

from pathlib import Path

from alembic import op

from torghut.storage.online import build_indexes

revision = "0005_tie_out"
down_revision = "0004_risk"

# fills about the time of an answer
INDEXES = {"fills_recorded": "fills (account, recorded_at)"}


def upgrade() -> None:
    build_indexes(op.get_context(), INDEXES)
    sql = Path(__file__).parent.parent / "sql" / "0005_tie_out.sql"
    op.get_bind().connection.driver_connection.execute(sql.read_text(encoding="utf-8"))


def downgrade() -> None:
    raise RuntimeError("schema 0005_tie_out holds entries of the ledger: restore a backup instead.")
