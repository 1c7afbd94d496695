"""What comes before what, of documents: by a sequence and by outcomes as they are stored, not by clocks."""

from alembic import op

revision = "0011"
down_revision = "0010"

STATEMENTS = (
    # One for files and deletions: of a file and a deletion, the one with the higher number came later.
    "CREATE SEQUENCE document_order",
    "ALTER TABLE payloads ADD COLUMN order_number bigint",  # of a file: when it was complete, or claimed by its job
    "ALTER TABLE documents ADD COLUMN deleted_number bigint",
    """
    ALTER TABLE document_versions
        ADD COLUMN chunking text,  -- how it is cut; none is known of those before
        ADD COLUMN is_settled boolean NOT NULL DEFAULT false  -- of an active one: no outcome of its job can undo it
    """,
    "UPDATE document_versions SET is_settled = true WHERE state = 'active'",
    "CREATE INDEX versions_to_settle ON document_versions (updated_at) WHERE state = 'active' AND NOT is_settled",
)


def upgrade() -> None:
    """Add them."""
    for statement in STATEMENTS:
        op.execute(statement)


def downgrade() -> None:
    """And without them."""
    op.execute("ALTER TABLE document_versions DROP COLUMN chunking, DROP COLUMN is_settled")
    op.execute("ALTER TABLE documents DROP COLUMN deleted_number")
    op.execute("ALTER TABLE payloads DROP COLUMN order_number")
    op.execute("DROP SEQUENCE document_order")
