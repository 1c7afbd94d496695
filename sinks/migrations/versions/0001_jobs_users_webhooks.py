"""Jobs, users, webhooks."""

from alembic import op

revision = "0001"
down_revision = None

STATEMENTS = (
    """
    CREATE TABLE jobs (
        job_id       uuid PRIMARY KEY,
        run          integer NOT NULL DEFAULT 1,
        user_id      text NOT NULL,
        kind         text NOT NULL,
        status       text NOT NULL CHECK (status IN ('pending', 'completed', 'error')),
        result       jsonb,
        error        jsonb,
        attempts     jsonb,
        timings      jsonb,
        metadata     jsonb,
        callback_url text,
        accepted_at  timestamptz NOT NULL,
        expires_at   timestamptz NOT NULL,
        finished_at  timestamptz
    )
    """,
    "CREATE INDEX jobs_of_a_user ON jobs (user_id, accepted_at DESC, job_id DESC)",
    "CREATE INDEX jobs_by_time ON jobs (accepted_at DESC, job_id DESC)",
    """
    CREATE TABLE users (
        user_id             text PRIMARY KEY,
        password_hash       text NOT NULL,
        role                text NOT NULL CHECK (role IN ('admin', 'user')),
        disabled            boolean NOT NULL DEFAULT false,
        token_epoch         integer NOT NULL DEFAULT 0,
        rate_limit_requests integer,
        announced           boolean NOT NULL DEFAULT false,
        created_at          timestamptz NOT NULL DEFAULT now()
    )
    """,
    """
    CREATE TABLE webhooks (
        webhook_id   text PRIMARY KEY,
        job_id       uuid NOT NULL,
        user_id      text NOT NULL,
        url          text NOT NULL,
        body         text NOT NULL,
        state        text NOT NULL DEFAULT 'due' CHECK (state IN ('due', 'delivered', 'given-up')),
        attempt      integer NOT NULL DEFAULT 0,
        due_at       timestamptz NOT NULL DEFAULT now(),
        lease_id     uuid,
        leased_until timestamptz,
        created_at   timestamptz NOT NULL DEFAULT now()
    )
    """,
    "CREATE INDEX webhooks_due ON webhooks (due_at) WHERE state = 'due'",
    "CREATE INDEX webhooks_of_a_job ON webhooks (job_id)",
    """
    CREATE TABLE webhook_attempts (
        webhook_id  text NOT NULL REFERENCES webhooks ON DELETE CASCADE,
        attempt     integer NOT NULL,
        at          timestamptz NOT NULL,
        status_code integer,
        error       text,
        next_at     timestamptz,
        PRIMARY KEY (webhook_id, attempt)
    )
    """,
    """
    CREATE TABLE webhook_secrets (
        user_id    text PRIMARY KEY,
        version    integer NOT NULL,
        rotated_at timestamptz NOT NULL DEFAULT now()
    )
    """,
)


def upgrade() -> None:
    """Make the tables."""
    for statement in STATEMENTS:
        op.execute(statement)


def downgrade() -> None:
    """Take them away, with all that is in them."""
    for table in ("webhook_secrets", "webhook_attempts", "webhooks", "users", "jobs"):
        op.execute(f"DROP TABLE {table}")
