"""Intake by stream: what was refused is kept in the inbox until it is dismissed."""

from pathlib import Path

from alembic import op

revision = "0010_intake"
down_revision = "0009_plans"


def upgrade() -> None:
    sql = Path(__file__).parent.parent / "sql" / "0010_intake.sql"
    op.get_bind().connection.driver_connection.execute(sql.read_text(encoding="utf-8"))


def downgrade() -> None:
    raise RuntimeError("schema 0010_intake knows what was refused: restore a backup instead.")
