"""What somebody tried that a rule is against, and who is in quarantine for it."""

from alembic import op

revision = "0007"
down_revision = "0006"

STATEMENTS = (
    """
    CREATE TABLE incidents (
        incident_id text PRIMARY KEY,
        at          timestamptz NOT NULL,
        user_id     text NOT NULL,
        reason      text NOT NULL,
        stage       text NOT NULL,
        job_id      uuid,
        source      text,
        address     text,
        score       double precision NOT NULL,
        excerpt     text NOT NULL,
        counts      boolean NOT NULL  -- towards a quarantine of the user
    )
    """,
    "CREATE INDEX incidents_by_time ON incidents (at, incident_id)",
    "CREATE INDEX incidents_of_a_user ON incidents (user_id, at, incident_id)",
    "CREATE INDEX incidents_of_jobs ON incidents (job_id) WHERE job_id IS NOT NULL",
    "ALTER TABLE users ADD COLUMN quarantined_until timestamptz, ADD COLUMN incidents_count_from timestamptz",
)


def upgrade() -> None:
    """Make the table and the columns."""
    for statement in STATEMENTS:
        op.execute(statement)


def downgrade() -> None:
    """Take them away, with all that is in them."""
    op.execute("ALTER TABLE users DROP COLUMN quarantined_until, DROP COLUMN incidents_count_from")
    op.execute("DROP TABLE incidents")
