"""Jobs that their users have deleted: what is left of one says that nothing brings it back."""

from alembic import op

revision = "0013"
down_revision = "0012"


def upgrade() -> None:
    """Forwards."""
    op.execute("ALTER TABLE jobs ADD COLUMN deleted_at timestamptz")
    op.execute("CREATE INDEX jobs_deleted ON jobs (deleted_at) WHERE deleted_at IS NOT NULL")


def downgrade() -> None:
    """Backwards: a row of nothing would be shown as a job."""
    op.execute("DELETE FROM jobs WHERE deleted_at IS NOT NULL")
    op.execute("ALTER TABLE jobs DROP COLUMN deleted_at")
