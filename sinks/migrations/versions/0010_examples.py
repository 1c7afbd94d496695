"""Examples to learn from, each content of a user's once."""

from alembic import op

revision = "0010"
down_revision = "0009"

STATEMENTS = (
    """
    CREATE TABLE examples (
        number       bigint GENERATED ALWAYS AS IDENTITY UNIQUE,
        example_id   uuid PRIMARY KEY,
        user_id      text NOT NULL,
        job_id       uuid NOT NULL,
        content_hash bytea NOT NULL,
        instruction  text NOT NULL,
        input        text NOT NULL,
        output       text NOT NULL,
        created_at   timestamptz NOT NULL DEFAULT now(),
        UNIQUE (user_id, content_hash)
    )
    """,
    "CREATE INDEX examples_of_a_user ON examples (user_id, number)",
)


def upgrade() -> None:
    """Make the table."""
    for statement in STATEMENTS:
        op.execute(statement)


def downgrade() -> None:
    """And without it."""
    op.execute("DROP TABLE examples")
