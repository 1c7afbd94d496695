"""Users' documents, their versions, which of their batches are embedded; and files that are too large for one row."""

from alembic import op

revision = "0008"
down_revision = "0007"

STATEMENTS = (
    """
    CREATE TABLE documents (
        document_id    uuid PRIMARY KEY,
        user_id        text NOT NULL,
        source         text NOT NULL,
        active_version uuid,
        created_at     timestamptz NOT NULL DEFAULT now(),
        deleted_at     timestamptz,  -- what was asked for before then is not made any more
        UNIQUE (user_id, source)
    )
    """,
    "CREATE INDEX documents_of_users ON documents (user_id, created_at DESC, document_id DESC)",
    "CREATE INDEX documents_by_age ON documents (created_at DESC, document_id DESC)",
    """
    CREATE TABLE document_versions (
        version_id  uuid PRIMARY KEY,
        document_id uuid NOT NULL REFERENCES documents ON DELETE CASCADE,
        user_id     text NOT NULL,
        job_id      uuid NOT NULL,
        run         integer NOT NULL,
        payload_id  uuid,
        state       text NOT NULL,  -- ingesting, active, replaced, deleted, failed
        sha256      text NOT NULL,
        size        bigint NOT NULL,
        media_type  text NOT NULL,
        provider    text NOT NULL,
        model       text NOT NULL,
        dimensions  integer,
        pages       integer,
        pages_read  integer NOT NULL DEFAULT 0,
        chunks      integer,
        batches     integer,
        error_code  text,  -- of a failed one
        accepted_at timestamptz NOT NULL,
        created_at  timestamptz NOT NULL DEFAULT now(),
        updated_at  timestamptz NOT NULL DEFAULT now(),
        has_vectors boolean NOT NULL DEFAULT true  -- false once those of a version that is not active are deleted
    )
    """,
    "CREATE INDEX versions_of_documents ON document_versions (document_id, accepted_at DESC)",
    "CREATE INDEX versions_of_users ON document_versions (user_id, state)",
    "CREATE INDEX versions_under_way ON document_versions (job_id) WHERE state = 'ingesting'",
    "CREATE INDEX versions_to_sweep ON document_versions (updated_at) WHERE has_vectors AND state <> 'active'",
    "CREATE INDEX versions_to_forget ON document_versions (updated_at) WHERE NOT has_vectors",
    """
    CREATE TABLE document_batches (
        version_id uuid NOT NULL REFERENCES document_versions ON DELETE CASCADE,
        batch      integer NOT NULL,
        chunks     integer NOT NULL,
        PRIMARY KEY (version_id, batch)
    )
    """,
    """
    CREATE TABLE payload_parts (
        payload_id uuid NOT NULL REFERENCES payloads ON DELETE CASCADE,
        part       integer NOT NULL,
        content    bytea NOT NULL,
        PRIMARY KEY (payload_id, part)
    )
    """,
    """
    ALTER TABLE payloads
        ALTER COLUMN content DROP NOT NULL,  -- of a file, which is in parts
        ALTER COLUMN size TYPE bigint,
        ADD COLUMN is_complete boolean NOT NULL DEFAULT true
    """,
    "ALTER TABLE payload_parts ALTER COLUMN content SET STORAGE EXTERNAL",  # files are compressed as they are
)


def upgrade() -> None:
    """Make the tables."""
    for statement in STATEMENTS:
        op.execute(statement)


def downgrade() -> None:
    """Take them away, with all that is in them."""
    op.execute("DROP TABLE payload_parts, document_batches, document_versions, documents")
    op.execute("DELETE FROM payloads WHERE content IS NULL")
    op.execute(
        "ALTER TABLE payloads ALTER COLUMN content SET NOT NULL, ALTER COLUMN size TYPE integer, "
        "DROP COLUMN is_complete"
    )
