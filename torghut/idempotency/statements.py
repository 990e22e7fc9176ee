"""The SQL of the store. What it is for is said there.

`clock_timestamp()`, not `now()`: an attempt that commits its effect together with its result may
have begun long before, and a claim may have waited for a row.
"""

from __future__ import annotations

_SHOWN = """k.state, k.digest, k.token, k.owner, k.attempts, k.head, k.body,
  k.in_doubt OR (k.state = 'in_progress' AND NOT k.atomic
    AND k.leased_until <= clock_timestamp()) AS doubt,
  coalesce(extract(epoch FROM k.leased_until - clock_timestamp()), 0) AS lease_left_s"""

# What an update leaves alone it writes as it is, so that the answer comes from the row as it
# stands, locked: a second look, with this statement's snapshot, could be a stale one.
CLAIM = f"""
INSERT INTO idempotency_keys AS k (scope, key, digest, state, in_doubt, atomic, attempts, token,
  owner, leased_until, created_at, updated_at, expires_at)
SELECT :scope, :key, :digest, 'in_progress', false, :atomic, 1, nextval('idempotency_tokens'),
  :owner, now + make_interval(secs => :lease_s), now, now, now + make_interval(secs => :ttl_s)
FROM (SELECT clock_timestamp() AS now) AS clock
ON CONFLICT (scope, key) DO UPDATE SET (digest, state, in_doubt, atomic, attempts, token, owner,
  leased_until, head, body, created_at, updated_at, expires_at) = (
  SELECT
    CASE WHEN expired THEN excluded.digest ELSE k.digest END,
    CASE WHEN taken THEN 'in_progress' ELSE k.state END,
    CASE WHEN expired THEN false WHEN taken THEN doubt ELSE k.in_doubt END,
    CASE WHEN taken THEN excluded.atomic ELSE k.atomic END,
    CASE WHEN expired THEN 1 WHEN taken THEN k.attempts + 1 ELSE k.attempts END,
    CASE WHEN taken THEN nextval('idempotency_tokens') ELSE k.token END,
    CASE WHEN taken THEN excluded.owner ELSE k.owner END,
    CASE WHEN taken THEN now + make_interval(secs => :lease_s) ELSE k.leased_until END,
    CASE WHEN taken THEN NULL ELSE k.head END,
    CASE WHEN taken THEN NULL ELSE k.body END,
    CASE WHEN expired THEN now ELSE k.created_at END,
    CASE WHEN taken THEN now ELSE k.updated_at END,
    CASE WHEN taken THEN now + make_interval(secs => :ttl_s) ELSE k.expires_at END
  FROM (SELECT clock_timestamp() AS now) AS clock
  CROSS JOIN LATERAL (SELECT
    k.state = 'in_progress' AND k.leased_until > now AS busy,
    k.state = 'in_progress' AND k.leased_until <= now AS lapsed) AS lease
  CROSS JOIN LATERAL (SELECT
    k.expires_at <= now AND NOT busy AS expired,
    k.in_doubt OR (lapsed AND NOT k.atomic) AS doubt) AS standing
  CROSS JOIN LATERAL (SELECT
    expired OR ((k.state = 'pending' OR lapsed) AND k.digest = excluded.digest
      AND (NOT doubt OR :resolving)) AS taken) AS verdict)
RETURNING {_SHOWN}"""

FINISH = """
UPDATE idempotency_keys SET state = :state, in_doubt = false, leased_until = NULL,
  head = CAST(:head AS jsonb), body = :body, updated_at = clock_timestamp(),
  expires_at = clock_timestamp() + make_interval(secs => :ttl_s)
WHERE scope = :scope AND key = :key AND token = :token AND state = 'in_progress'
RETURNING 1"""

RELEASE = """
UPDATE idempotency_keys SET state = 'pending', in_doubt = :in_doubt, leased_until = NULL,
  updated_at = clock_timestamp()
WHERE scope = :scope AND key = :key AND token = :token AND state = 'in_progress'
RETURNING 1"""

STANDS = """
SELECT state FROM idempotency_keys WHERE scope = :scope AND key = :key AND token = :token"""

LOOK = f"""
SELECT {_SHOWN} FROM idempotency_keys k
WHERE k.scope = :scope AND k.key = :key
  AND (k.expires_at > clock_timestamp()
    OR (k.state = 'in_progress' AND k.leased_until > clock_timestamp()))"""

BEAT = """
UPDATE idempotency_keys k SET leased_until = clock_timestamp() + make_interval(secs => :lease_s)
FROM (
  SELECT scope, key FROM idempotency_keys
  JOIN unnest(CAST(:scopes AS text[]), CAST(:keys AS text[]), CAST(:tokens AS bigint[]))
    AS held (scope, key, token) USING (scope, key, token)
  WHERE state = 'in_progress' FOR UPDATE OF idempotency_keys SKIP LOCKED) AS mine
WHERE k.scope = mine.scope AND k.key = mine.key"""

PURGE = """
DELETE FROM idempotency_keys k USING (
  SELECT scope, key FROM idempotency_keys
  WHERE expires_at <= clock_timestamp()
    AND NOT (state = 'in_progress' AND leased_until > clock_timestamp())
  ORDER BY expires_at LIMIT :batch FOR UPDATE SKIP LOCKED) AS old
WHERE k.scope = old.scope AND k.key = old.key"""

STATISTICS = """
SELECT count(*) FILTER (WHERE live AND state = 'pending') AS pending,
  count(*) FILTER (WHERE live AND state = 'in_progress') AS in_progress,
  count(*) FILTER (WHERE live AND state = 'completed') AS completed,
  count(*) FILTER (WHERE live AND state = 'failed') AS failed,
  count(*) FILTER (WHERE live AND (in_doubt OR (NOT atomic AND leased_until <= at))) AS in_doubt,
  count(*) FILTER (WHERE NOT live) AS expired
FROM (SELECT *, expires_at > at OR coalesce(leased_until > at, false) AS live
  FROM idempotency_keys CROSS JOIN (SELECT clock_timestamp() AS at) AS clock) AS keys"""
