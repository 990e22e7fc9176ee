-- Schema 0002: trading states of strategies, the guard's cursor, requests to reload the limits.

ALTER TABLE trading_states DROP CONSTRAINT trading_states_scope_check;
ALTER TABLE trading_states ADD CONSTRAINT trading_states_scope_check
  CHECK (scope = 'global' OR scope LIKE 'account:_%' OR scope LIKE 'strategy:_%');
COMMENT ON TABLE trading_states IS 'What may be traded, global, per account and per strategy (on every account); the strictest of those that apply is in force. Survives restarts, each change has an actor and a reason (P11). No row means active.';

ALTER TABLE broker_cursors DROP CONSTRAINT broker_cursors_name_check;
ALTER TABLE broker_cursors ADD CONSTRAINT broker_cursors_name_check
  CHECK (name IN ('orders', 'fills', 'guard'));

CREATE TABLE limit_reloads (
  reload_id    bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  actor        text NOT NULL,
  requested_at timestamptz NOT NULL
);
COMMENT ON TABLE limit_reloads IS 'Requests to read the risk limits again (torghut limits reload). Every daemon answers each with an event, limits.reloaded or limits.reload_refused, that carries its reload_id.';
