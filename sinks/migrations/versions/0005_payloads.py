"""What is too large for an event: images, until their jobs have ended."""

from alembic import op

revision = "0005"
down_revision = "0004"

STATEMENTS = (
    """
    CREATE TABLE payloads (
        payload_id uuid PRIMARY KEY,
        user_id    text NOT NULL,
        job_id     uuid,
        media_type text NOT NULL,
        size       integer NOT NULL,
        sha256     text NOT NULL,
        content    bytea NOT NULL,
        created_at timestamptz NOT NULL DEFAULT now(),
        expires_at timestamptz NOT NULL
    )
    """,
    # Images are packed already: to try it once more costs time and gains nothing.
    "ALTER TABLE payloads ALTER content SET STORAGE EXTERNAL",
    "CREATE INDEX payloads_of_a_user ON payloads (user_id) INCLUDE (size)",
    "CREATE INDEX payloads_by_end ON payloads (expires_at)",
    "CREATE INDEX payloads_of_jobs ON payloads (job_id) WHERE job_id IS NOT NULL",
)


def upgrade() -> None:
    """Make the table."""
    for statement in STATEMENTS:
        op.execute(statement)


def downgrade() -> None:
    """Take it away, with all that is in it."""
    op.execute("DROP TABLE payloads")
