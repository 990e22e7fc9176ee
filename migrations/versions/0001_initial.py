"""First schema: decisions, verdicts, attempts, executions, fills, positions, events, control."""

from pathlib import Path

from alembic import op

revision = "0001"
down_revision = None


def upgrade() -> None:
    sql = Path(__file__).parent.parent / "sql" / "0001_initial.sql"
    # straight to the driver: SQLAlchemy would read the % of RAISE as a placeholder
    op.get_bind().connection.driver_connection.execute(sql.read_text(encoding="utf-8"))


def downgrade() -> None:
    raise RuntimeError(
        "schema 0001 is the first one: there is nothing below it but loss of all records. "
        "Restore a backup, or create an empty database."
    )
