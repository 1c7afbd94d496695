"""Adapters that users have trained, what of them is still to be deleted, and whose the servers have that have one."""

from alembic import op

revision = "0012"
down_revision = "0011"

STATEMENTS = (
    """
    CREATE TABLE adapters (
        user_id              text NOT NULL,
        name                 text NOT NULL,
        adapter_id           uuid NOT NULL UNIQUE,
        attempt              integer NOT NULL,
        provider             text NOT NULL,
        status               text NOT NULL,  -- training, ready, replaced, failed
        job_id               uuid NOT NULL,
        run                  integer NOT NULL,
        epochs               integer NOT NULL,
        lr                   double precision NOT NULL,
        batch_size           integer NOT NULL,
        examples             integer NOT NULL DEFAULT 0,
        held_out             integer NOT NULL DEFAULT 0,
        losses               jsonb NOT NULL DEFAULT '[]',
        held_out_loss_before double precision,
        held_out_loss_after  double precision,
        answers              jsonb NOT NULL DEFAULT '[]',
        error                jsonb,
        created_at           timestamptz NOT NULL DEFAULT now(),
        beat_at              timestamptz NOT NULL DEFAULT now(),
        finished_at          timestamptz,
        PRIMARY KEY (user_id, name)
    )
    """,
    "CREATE INDEX adapters_of_a_provider ON adapters (provider, status)",
    """
    CREATE TABLE forgotten_adapters (
        adapter_id   uuid PRIMARY KEY,
        provider     text NOT NULL,
        forgotten_at timestamptz NOT NULL DEFAULT now()
    )
    """,
    """
    CREATE TABLE shared_adapters (
        provider   text PRIMARY KEY,
        user_id    text NOT NULL,
        adapter_id uuid NOT NULL
    )
    """,
)


def upgrade() -> None:
    """Make the tables."""
    for statement in STATEMENTS:
        op.execute(statement)


def downgrade() -> None:
    """And without them."""
    for table in ("shared_adapters", "forgotten_adapters", "adapters"):
        op.execute(f"DROP TABLE {table}")
