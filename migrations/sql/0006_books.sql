-- Schema 0006_books. What the books must hold, so that rows that are gone are missed.

CREATE TABLE book_tallies (
  account      text PRIMARY KEY,
  executions   bigint NOT NULL DEFAULT 0 CHECK (executions >= 0),
  observations bigint NOT NULL DEFAULT 0 CHECK (observations >= 0),
  fills        bigint NOT NULL DEFAULT 0 CHECK (fills >= 0)
);
COMMENT ON TABLE book_tallies IS 'Rows ever inserted into executions, execution_events and fills, counted by triggers in the same transaction. Fewer rows than this: some were deleted, and reconciliation restores them.';

INSERT INTO book_tallies (account, executions, observations, fills)
SELECT e.account, count(*),
  (SELECT count(*) FROM execution_events v JOIN executions x USING (execution_id)
   WHERE x.account = e.account),
  (SELECT count(*) FROM fills f WHERE f.account = e.account)
FROM executions e GROUP BY e.account;

CREATE FUNCTION torghut_tally() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  CASE TG_TABLE_NAME
  WHEN 'executions' THEN
    INSERT INTO book_tallies AS t (account, executions)
    SELECT account, count(*) FROM added GROUP BY account ORDER BY account
    ON CONFLICT (account) DO UPDATE SET executions = t.executions + excluded.executions;
  WHEN 'execution_events' THEN
    INSERT INTO book_tallies AS t (account, observations)
    SELECT e.account, count(*) FROM added JOIN executions e USING (execution_id)
    GROUP BY e.account ORDER BY e.account
    ON CONFLICT (account) DO UPDATE SET observations = t.observations + excluded.observations;
  ELSE
    INSERT INTO book_tallies AS t (account, fills)
    SELECT account, count(*) FROM added GROUP BY account ORDER BY account
    ON CONFLICT (account) DO UPDATE SET fills = t.fills + excluded.fills;
  END CASE;
  RETURN NULL;
END $$;
COMMENT ON FUNCTION torghut_tally() IS 'Counts what is added to the books (book_tallies).';
CREATE TRIGGER execution_tally AFTER INSERT ON executions
  REFERENCING NEW TABLE AS added FOR EACH STATEMENT EXECUTE FUNCTION torghut_tally();
CREATE TRIGGER execution_event_tally AFTER INSERT ON execution_events
  REFERENCING NEW TABLE AS added FOR EACH STATEMENT EXECUTE FUNCTION torghut_tally();
CREATE TRIGGER fill_tally AFTER INSERT ON fills
  REFERENCING NEW TABLE AS added FOR EACH STATEMENT EXECUTE FUNCTION torghut_tally();

CREATE TABLE lost_executions (
  broker_order_id text PRIMARY KEY,
  execution_id    bigint NOT NULL
);
COMMENT ON TABLE lost_executions IS 'Executions that are gone while fills or observations still name them: restored under the same id. Empty but while rows are being restored.';
