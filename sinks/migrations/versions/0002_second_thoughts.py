"""What is done again or undone: events that are due later, dead letters, idempotency keys, cancelled jobs."""

from alembic import op

revision = "0002"
down_revision = "0001"

STATEMENTS = (
    """
    ALTER TABLE jobs
        ADD COLUMN role text NOT NULL DEFAULT 'user',
        ADD COLUMN outcome_id text,
        ADD COLUMN request jsonb,
        ADD COLUMN cancel_requested_at timestamptz
    """,
    "CREATE INDEX jobs_that_wait ON jobs (expires_at) WHERE status = 'pending'",
    """
    CREATE TABLE due_events (
        due_id       text PRIMARY KEY,
        job_id       uuid NOT NULL,
        run          integer NOT NULL,
        stage        text NOT NULL,
        code         text NOT NULL,
        attempts     jsonb NOT NULL,
        topic        text NOT NULL,
        key          bytea NOT NULL,
        headers      jsonb NOT NULL,
        value        bytea NOT NULL,
        due_at       timestamptz NOT NULL,
        lease_id     uuid,
        leased_until timestamptz,
        created_at   timestamptz NOT NULL DEFAULT now()
    )
    """,
    "CREATE INDEX due_events_by_time ON due_events (due_at)",
    "CREATE INDEX due_events_of_a_job ON due_events (job_id)",
    """
    CREATE TABLE dead_letters (
        partition    integer NOT NULL,
        "offset"     bigint NOT NULL,
        at           timestamptz NOT NULL,
        topic        text NOT NULL,
        stage        text NOT NULL,
        code         text NOT NULL,
        reason       text NOT NULL,
        attempts     integer NOT NULL,
        job_id       uuid,
        run          integer,
        user_id      text,
        outcome_id   text,
        key          bytea,
        headers      json NOT NULL,
        value        bytea,
        redriven_at  timestamptz,
        redriven_run integer,
        republished  boolean NOT NULL DEFAULT false,
        PRIMARY KEY (partition, "offset", at)  -- a topic that was made anew has the same offsets again
    )
    """,
    'CREATE INDEX dead_letters_by_time ON dead_letters (at, partition, "offset")',
    "CREATE INDEX dead_letters_of_a_job ON dead_letters (job_id)",
    """
    CREATE TABLE idempotency_keys (
        user_id      text NOT NULL,
        key          text NOT NULL,
        fingerprint  bytea NOT NULL,
        job_id       uuid NOT NULL,
        accepted_at  timestamptz,
        published_at timestamptz NOT NULL DEFAULT now(),
        publications integer NOT NULL DEFAULT 1,
        created_at   timestamptz NOT NULL DEFAULT now(),
        PRIMARY KEY (user_id, key)
    )
    """,
    "CREATE INDEX idempotency_keys_by_time ON idempotency_keys (created_at)",
    "CREATE INDEX webhooks_of_a_user ON webhooks (user_id, created_at, webhook_id)",
    "CREATE INDEX webhooks_by_time ON webhooks (created_at, webhook_id)",
    "ALTER TABLE webhook_secrets ADD COLUMN rotations timestamptz[] NOT NULL DEFAULT '{}'",
    "UPDATE webhook_secrets SET rotations = ARRAY[rotated_at] WHERE version > 1",
)


def upgrade() -> None:
    """Make the tables and columns."""
    for statement in STATEMENTS:
        op.execute(statement)


def downgrade() -> None:
    """Take them away, with all that is in them."""
    op.execute("ALTER TABLE webhook_secrets DROP COLUMN rotations")
    op.execute("DROP INDEX webhooks_of_a_user, webhooks_by_time")
    for table in ("idempotency_keys", "dead_letters", "due_events"):
        op.execute(f"DROP TABLE {table}")
    op.execute("DROP INDEX jobs_that_wait")
    op.execute(
        "ALTER TABLE jobs DROP COLUMN role, DROP COLUMN outcome_id, DROP COLUMN request, "
        "DROP COLUMN cancel_requested_at"
    )
