"""Users that an admin changes and deletes, their API keys, and logins that have failed."""

from alembic import op

revision = "0006"
down_revision = "0005"

STATEMENTS = (
    """
    ALTER TABLE users
        ADD COLUMN tokens_per_minute integer,
        ADD COLUMN max_in_flight     integer,
        ADD COLUMN max_pending       integer,
        ADD COLUMN deleted_at        timestamptz
    """,
    # Looked at every other second by each ingress; nearly always empty.
    "CREATE INDEX users_to_announce ON users (user_id) WHERE NOT announced",
    """
    CREATE TABLE api_keys (
        key_id       uuid PRIMARY KEY,
        user_id      text NOT NULL,
        name         text NOT NULL,
        digest       bytea NOT NULL,
        scopes       text[] NOT NULL,
        created_at   timestamptz NOT NULL DEFAULT now(),
        expires_at   timestamptz,
        last_used_at timestamptz
    )
    """,
    "CREATE INDEX api_keys_of_a_user ON api_keys (user_id)",
    """
    CREATE TABLE login_failures (
        id      bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
        at      timestamptz NOT NULL DEFAULT now(),
        user_id text NOT NULL,
        address text NOT NULL,
        reason  text NOT NULL
    )
    """,
    "CREATE INDEX login_failures_by_time ON login_failures (at)",
    "CREATE INDEX login_failures_of_a_user ON login_failures (user_id, id)",
)


def upgrade() -> None:
    """Make the tables."""
    for statement in STATEMENTS:
        op.execute(statement)


def downgrade() -> None:
    """Take them away, with all that is in them; users that were deleted stay disabled."""
    for table in ("login_failures", "api_keys"):
        op.execute(f"DROP TABLE {table}")
    op.execute("DROP INDEX users_to_announce")
    op.execute(
        "ALTER TABLE users DROP COLUMN tokens_per_minute, DROP COLUMN max_in_flight, DROP COLUMN max_pending, "
        "DROP COLUMN deleted_at"
    )
