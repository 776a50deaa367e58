"""Hooks and their deliveries, browser sessions, when a token was last used, the removal of workspaces.

Frozen once released: imports nothing from latticed.
"""

from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

STATEMENTS = (
    """
    CREATE TABLE hook_deliveries (
        id TEXT NOT NULL,
        workspace TEXT NOT NULL,
        hook TEXT NOT NULL,
        point TEXT NOT NULL,
        sort TEXT NOT NULL,
        run_id TEXT NOT NULL,
        position INTEGER,
        status TEXT NOT NULL,
        attempts INTEGER NOT NULL,
        created_at INTEGER NOT NULL,
        due_at INTEGER,
        finished_at INTEGER,
        duration_ms FLOAT,
        detail TEXT NOT NULL,
        output TEXT NOT NULL,
        PRIMARY KEY (id),
        CONSTRAINT hook_deliveries_status CHECK (status IN ('blocked', 'dead', 'error', 'ok', 'pending', 'skipped', 'timeout'))
    )
    """,
    "CREATE INDEX hook_deliveries_due ON hook_deliveries (hook, due_at) WHERE due_at IS NOT NULL",
    "CREATE INDEX hook_deliveries_listed ON hook_deliveries (workspace, id)",
    "CREATE INDEX hook_deliveries_run ON hook_deliveries (run_id)",
    """
    CREATE TABLE hooks (
        id TEXT NOT NULL,
        workspace TEXT NOT NULL,
        name TEXT NOT NULL,
        point TEXT NOT NULL,
        spec TEXT NOT NULL,
        enabled BOOLEAN NOT NULL,
        created_by TEXT NOT NULL,
        created_at INTEGER NOT NULL,
        updated_at INTEGER NOT NULL,
        PRIMARY KEY (id),
        CONSTRAINT hooks_name UNIQUE (workspace, name)
    )
    """,
    """
    CREATE TABLE sessions (
        digest TEXT NOT NULL,
        token_id TEXT NOT NULL,
        created_at INTEGER NOT NULL,
        expires_at INTEGER NOT NULL,
        PRIMARY KEY (digest)
    )
    """,
    "CREATE INDEX sessions_token ON sessions (token_id)",
    "ALTER TABLE tokens ADD COLUMN used_at INTEGER",
    "ALTER TABLE workspaces ADD COLUMN removed_at INTEGER",
)


def upgrade() -> None:
    for statement in STATEMENTS:
        op.execute(statement)
