"""Where an answer was told piece by piece, for those who listen later."""

from alembic import op

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    """Forwards."""
    op.execute("ALTER TABLE jobs ADD COLUMN stream jsonb")


def downgrade() -> None:
    """Backwards."""
    op.execute("ALTER TABLE jobs DROP COLUMN stream")
