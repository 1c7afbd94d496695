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
        UNIQUE (user_id, source)
    )
    """,
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
        chunks      integer,
        batches     integer,
        accepted_at timestamptz NOT NULL,
        updated_at  timestamptz NOT NULL DEFAULT now(),
        has_vectors boolean NOT NULL DEFAULT true  -- false once those of a version that is not active are deleted
    )
    """,
    "CREATE INDEX versions_of_documents ON document_versions (document_id, accepted_at DESC)",
    "CREATE INDEX versions_of_users ON document_versions (user_id, state)",
    "CREATE INDEX versions_of_jobs ON document_versions (job_id)",
    "CREATE INDEX versions_to_sweep ON document_versions (updated_at) WHERE has_vectors AND state <> 'active'",
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
    "ALTER TABLE payloads ALTER COLUMN content DROP NOT NULL, ALTER COLUMN size TYPE bigint",
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
    op.execute("ALTER TABLE payloads ALTER COLUMN content SET NOT NULL, ALTER COLUMN size TYPE integer")
