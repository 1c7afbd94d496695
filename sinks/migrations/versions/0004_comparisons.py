"""Comparisons: prompts times variants, each cell of the grid a job."""

from alembic import op

revision = "0004"
down_revision = "0003"

STATEMENTS = (
    """
    CREATE TABLE comparisons (
        comparison_id       uuid PRIMARY KEY,
        user_id             text NOT NULL,
        state               text NOT NULL DEFAULT 'running' CHECK (state IN ('running', 'completed', 'cancelled')),
        prompts             jsonb NOT NULL,
        variants            jsonb NOT NULL,
        shared              jsonb NOT NULL,
        idempotency_key     text,
        fingerprint         bytea,
        not_before          timestamptz,
        waits_for           text,
        cancel_requested_at timestamptz,
        lease_id            uuid,
        leased_until        timestamptz,
        created_at          timestamptz NOT NULL DEFAULT now(),
        expires_at          timestamptz NOT NULL,
        finished_at         timestamptz,
        UNIQUE (user_id, idempotency_key)
    )
    """,
    "CREATE INDEX comparisons_under_way ON comparisons (created_at) WHERE state = 'running'",
    # A cell's number is that of its prompt times the number of variants, plus that of its variant.
    """
    CREATE TABLE comparison_cells (
        comparison_id uuid NOT NULL REFERENCES comparisons ON DELETE CASCADE,
        cell          integer NOT NULL,
        state         text NOT NULL DEFAULT 'waiting' CHECK (state IN ('waiting', 'published', 'accepted', 'ended')),
        job_id        uuid,
        publications  integer NOT NULL DEFAULT 0,
        published_at  timestamptz,
        rate_limited  integer NOT NULL DEFAULT 0,
        error         jsonb,
        PRIMARY KEY (comparison_id, cell)
    )
    """,
    """
    CREATE INDEX comparison_cells_at_work ON comparison_cells (comparison_id)
        WHERE state IN ('published', 'accepted')
    """,
)


def upgrade() -> None:
    """Make the tables."""
    for statement in STATEMENTS:
        op.execute(statement)


def downgrade() -> None:
    """Take them away, with all that is in them; the cells' jobs stay."""
    for table in ("comparison_cells", "comparisons"):
        op.execute(f"DROP TABLE {table}")
