"""The table in a database of somebody else's is the one of our own migrations."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

from sqlalchemy import create_engine, text

from torghut.idempotency import create_schema

CATALOG = """
SELECT 'column', attname, format_type(atttypid, atttypmod), attnotnull::text,
  coalesce(pg_get_expr(adbin, adrelid), '')
FROM pg_attribute LEFT JOIN pg_attrdef ON adrelid = attrelid AND adnum = attnum
WHERE attrelid = 'idempotency_keys'::regclass AND attnum > 0
UNION ALL SELECT 'order', string_agg(attname, ',' ORDER BY attnum), '', '', '' FROM pg_attribute
WHERE attrelid = 'idempotency_keys'::regclass AND attnum > 0
UNION ALL SELECT 'constraint', conname, pg_get_constraintdef(oid), '', ''
FROM pg_constraint WHERE conrelid = 'idempotency_keys'::regclass
UNION ALL SELECT 'index', indexname, indexdef, '', ''
FROM pg_indexes WHERE tablename = 'idempotency_keys'
UNION ALL SELECT 'trigger', tgname, pg_get_triggerdef(oid), tgenabled::text, ''
FROM pg_trigger WHERE tgrelid = 'idempotency_keys'::regclass AND NOT tgisinternal
UNION ALL SELECT 'function', proname, pg_get_functiondef(oid),
  coalesce(obj_description(oid, 'pg_proc'), ''), ''
FROM pg_proc WHERE proname = 'idempotency_guard'
UNION ALL SELECT 'relation', relname, relkind::text, coalesce(obj_description(oid, 'pg_class'), ''),
  coalesce((SELECT seqtypid::regtype::text || seqincrement FROM pg_sequence
    WHERE seqrelid = c.oid), '')
FROM pg_class c WHERE relname LIKE 'idempotency%'
ORDER BY 1, 2"""


def catalog(url: str) -> list[tuple[object, ...]]:
    """All that Postgres knows of our objects."""
    engine = create_engine(url)
    with engine.connect() as connection:
        rows = [tuple(row) for row in connection.execute(text(CATALOG))]
    engine.dispose()
    return rows


def test_the_library_and_the_migrations_make_the_same(
    database_url: str, empty_database_url: str
) -> None:
    engine = create_engine(empty_database_url)
    with ThreadPoolExecutor(4) as pool:
        made = list(pool.map(create_schema, [engine] * 4))
    assert sorted(made) == [False, False, False, True]
    ours = catalog(database_url)
    assert len(ours) > 25
    assert catalog(empty_database_url) == ours
    with engine.begin() as tx:
        tx.execute(text("ALTER TABLE idempotency_keys ALTER body SET NOT NULL"))
    assert catalog(empty_database_url) != ours
    engine.dispose()
