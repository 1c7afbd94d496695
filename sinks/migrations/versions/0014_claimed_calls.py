"""Agents' outward calls are claimed before they are made: of two events of one step, one makes the call."""

from alembic import op

revision = "0014"
down_revision = "0013"


def upgrade() -> None:
    """Forwards."""
    op.execute("ALTER TABLE agent_steps ADD COLUMN claimed_until timestamptz")


def downgrade() -> None:
    """Backwards."""
    op.execute("ALTER TABLE agent_steps DROP COLUMN claimed_until")
