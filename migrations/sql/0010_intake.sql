-- Schema 0010_intake. Decisions from streams: what was refused of them stands in decision_inbox, too.

ALTER TABLE decision_inbox
  ADD COLUMN source           text NOT NULL DEFAULT 'inbox',
  ADD COLUMN message_id       text,
  ADD COLUMN dismissed_at     timestamptz,
  ADD COLUMN dismissed_by     text,
  ADD COLUMN dismissed_reason text;
COMMENT ON COLUMN decision_inbox.source IS 'inbox for a row that was inserted; stream:NAME for a message that was refused, with its message_id.';
COMMENT ON COLUMN decision_inbox.dismissed_at IS 'When a person has looked into what was refused; by whom and why beside it.';

-- a message that comes again is the same row; a stream that was made anew counts from 1 again
CREATE UNIQUE INDEX decision_inbox_message ON decision_inbox (source, message_id, md5(body))
  WHERE message_id IS NOT NULL;
CREATE INDEX decision_inbox_refused ON decision_inbox (account, inbox_id)
  WHERE result IN ('invalid', 'conflict') AND dismissed_at IS NULL;
