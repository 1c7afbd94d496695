"""Steps of agents: each written once, with what came of it, and whether its user has approved the call."""

from alembic import op

revision = "0009"
down_revision = "0008"

STATEMENTS = (
    """
    CREATE TABLE agent_steps (
        job_id            uuid NOT NULL,
        run               integer NOT NULL,
        step              integer NOT NULL,
        user_id           text NOT NULL,
        agent_id          text NOT NULL,
        goal              text NOT NULL,
        thought           text NOT NULL,
        action            text NOT NULL,
        action_input      jsonb NOT NULL,
        model             text NOT NULL,
        prompt_tokens     integer NOT NULL,
        completion_tokens integer NOT NULL,
        calls             integer NOT NULL,
        planned_at        timestamptz NOT NULL DEFAULT now(),
        observation       text,
        risk              double precision,
        is_untrusted      boolean,
        observed_at       timestamptz,
        approval          text,  -- requested, approved, rejected; NULL where nobody need be asked
        decided_by        text,
        decided_at        timestamptz,
        is_forgotten      boolean NOT NULL DEFAULT false,  -- by its user: no run is told of it any more
        has_vectors       boolean NOT NULL DEFAULT false,
        PRIMARY KEY (job_id, run, step)
    )
    """,
    """
    CREATE INDEX steps_of_agents ON agent_steps (user_id, agent_id, observed_at DESC)
        WHERE NOT is_forgotten AND observation IS NOT NULL
    """,
    "CREATE INDEX steps_to_sweep ON agent_steps (planned_at)",
    "CREATE INDEX steps_with_vectors_to_sweep ON agent_steps (job_id) WHERE has_vectors AND is_forgotten",
)


def upgrade() -> None:
    """Make the table."""
    for statement in STATEMENTS:
        op.execute(statement)


def downgrade() -> None:
    """Take it away, with all that is in it."""
    op.execute("DROP TABLE agent_steps")
