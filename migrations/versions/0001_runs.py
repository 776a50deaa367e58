"""Workspaces, tokens, runs, their journal, events, signals and approvals.

Frozen once released: imports nothing from latticed.
"""

from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

STATEMENTS = (
    """
    CREATE TABLE approvals (
        id TEXT NOT NULL,
        workspace TEXT NOT NULL,
        run_id TEXT NOT NULL,
        node TEXT,
        status TEXT NOT NULL,
        prompt TEXT NOT NULL,
        schema TEXT NOT NULL,
        lanes TEXT NOT NULL,
        created_at INTEGER NOT NULL,
        expires_at INTEGER,
        answered_at INTEGER,
        answered_by TEXT,
        answer TEXT NOT NULL,
        comment TEXT NOT NULL,
        PRIMARY KEY (id),
        CONSTRAINT approvals_status CHECK (status IN ('approved', 'closed', 'denied', 'expired', 'pending'))
    )
    """,
    """
    CREATE INDEX approvals_expiry ON approvals (expires_at) WHERE status = 'pending' AND expires_at IS NOT NULL
    """,
    """
    CREATE INDEX approvals_listed ON approvals (workspace, status, id)
    """,
    """
    CREATE INDEX approvals_run ON approvals (run_id)
    """,
    """
    CREATE TABLE audit (
        id INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT,
        at INTEGER NOT NULL,
        workspace TEXT NOT NULL,
        principal TEXT NOT NULL,
        action TEXT NOT NULL,
        subject TEXT NOT NULL,
        detail TEXT NOT NULL
    )
    """,
    """
    CREATE INDEX audit_listed ON audit (workspace, id)
    """,
    """
    CREATE TABLE events (
        position INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT,
        run_id TEXT NOT NULL,
        seq INTEGER NOT NULL,
        type TEXT NOT NULL,
        at INTEGER NOT NULL,
        workspace TEXT NOT NULL,
        kind TEXT NOT NULL,
        data TEXT NOT NULL,
        CONSTRAINT events_run_seq UNIQUE (run_id, seq)
    )
    """,
    """
    CREATE INDEX events_feed ON events (workspace, position)
    """,
    """
    CREATE TABLE idempotency_keys (
        workspace TEXT NOT NULL,
        route TEXT NOT NULL,
        "key" TEXT NOT NULL,
        fingerprint TEXT NOT NULL,
        run_id TEXT NOT NULL,
        created_at INTEGER NOT NULL,
        PRIMARY KEY (workspace, route, "key")
    )
    """,
    """
    CREATE INDEX idempotency_keys_age ON idempotency_keys (created_at)
    """,
    """
    CREATE TABLE run_bodies (
        run_id TEXT NOT NULL,
        goal TEXT NOT NULL,
        inputs TEXT NOT NULL,
        roles TEXT NOT NULL,
        PRIMARY KEY (run_id)
    )
    """,
    """
    CREATE TABLE runs (
        id TEXT NOT NULL,
        workspace TEXT NOT NULL,
        kind TEXT NOT NULL,
        target TEXT NOT NULL,
        version INTEGER,
        name TEXT NOT NULL,
        status TEXT NOT NULL,
        mode TEXT NOT NULL,
        queue TEXT NOT NULL,
        priority INTEGER NOT NULL,
        max_retries INTEGER NOT NULL,
        recovery TEXT NOT NULL,
        recoveries INTEGER NOT NULL,
        attempt INTEGER NOT NULL,
        epoch INTEGER NOT NULL,
        owner TEXT,
        last_seq INTEGER NOT NULL,
        facts INTEGER NOT NULL,
        awaits TEXT,
        due_at INTEGER,
        run_at INTEGER,
        deadline_seconds FLOAT,
        deadline_at INTEGER,
        parent_run_id TEXT,
        detached BOOLEAN NOT NULL,
        rerun_of TEXT,
        tags TEXT NOT NULL,
        created_by TEXT,
        created_at INTEGER NOT NULL,
        started_at INTEGER,
        updated_at INTEGER NOT NULL,
        finished_at INTEGER,
        cancel TEXT,
        cancel_rank INTEGER NOT NULL,
        abandoned TEXT,
        output TEXT,
        error TEXT,
        PRIMARY KEY (id),
        CONSTRAINT runs_status CHECK (status IN ('awaiting_approval', 'cancelled', 'cancelling', 'failed', 'interrupted', 'ok', 'partial', 'queued', 'rejected', 'retried_ok', 'retrying', 'running', 'waiting'))
    )
    """,
    """
    CREATE INDEX runs_children ON runs (parent_run_id) WHERE parent_run_id IS NOT NULL
    """,
    """
    CREATE INDEX runs_deadline ON runs (deadline_at) WHERE deadline_at IS NOT NULL AND status IN ('awaiting_approval', 'cancelling', 'queued', 'retrying', 'running', 'waiting')
    """,
    """
    CREATE INDEX runs_due ON runs (due_at) WHERE due_at IS NOT NULL
    """,
    """
    CREATE INDEX runs_listed ON runs (workspace, id)
    """,
    """
    CREATE INDEX runs_ready ON runs (queue, workspace, priority DESC, id) WHERE due_at IS NULL AND status IN ('queued', 'retrying')
    """,
    """
    CREATE INDEX runs_status ON runs (workspace, status, id)
    """,
    """
    CREATE TABLE signals (
        id TEXT NOT NULL,
        run_id TEXT NOT NULL,
        name TEXT NOT NULL,
        data TEXT NOT NULL,
        sent_at INTEGER NOT NULL,
        sent_by TEXT,
        consumed_by INTEGER,
        PRIMARY KEY (id)
    )
    """,
    """
    CREATE INDEX signals_run ON signals (run_id, name, id)
    """,
    """
    CREATE TABLE steps (
        run_id TEXT NOT NULL,
        n INTEGER NOT NULL,
        kind TEXT NOT NULL,
        branch TEXT NOT NULL,
        name TEXT NOT NULL,
        occurrence INTEGER NOT NULL,
        status TEXT NOT NULL,
        attempt INTEGER NOT NULL,
        epoch INTEGER NOT NULL,
        started_at INTEGER NOT NULL,
        finished_at INTEGER,
        ref TEXT,
        outcome TEXT NOT NULL,
        error TEXT NOT NULL,
        PRIMARY KEY (run_id, n),
        CONSTRAINT steps_status CHECK (status IN ('failed', 'ok', 'started', 'waiting'))
    )
    """,
    """
    CREATE TABLE tokens (
        id TEXT NOT NULL,
        digest TEXT NOT NULL,
        name TEXT NOT NULL,
        role TEXT NOT NULL,
        workspace TEXT NOT NULL,
        lanes TEXT,
        created_at INTEGER NOT NULL,
        expires_at INTEGER,
        revoked_at INTEGER,
        PRIMARY KEY (id),
        CONSTRAINT tokens_role CHECK (role IN ('admin', 'operator', 'viewer')),
        UNIQUE (digest)
    )
    """,
    """
    CREATE TABLE workspaces (
        name TEXT NOT NULL,
        created_at INTEGER NOT NULL,
        PRIMARY KEY (name)
    )
    """,
)


def upgrade() -> None:
    for statement in STATEMENTS:
        op.execute(statement)
