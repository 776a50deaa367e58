"""What is written with each step is in fewer trees: the journal in that of its key, and the log counts by itself.

Frozen once released: imports nothing from latticed.
"""

from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

STATEMENTS = (
    """
    CREATE TABLE floors (
        name TEXT NOT NULL,
        value INTEGER NOT NULL,
        PRIMARY KEY (name)
    ) WITHOUT ROWID
    """,
    "INSERT INTO floors SELECT 'events.position', seq FROM sqlite_sequence WHERE name = 'events'",
    """
    CREATE TABLE steps_0004 (
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
    ) WITHOUT ROWID
    """,
    """
    INSERT INTO steps_0004 SELECT run_id, n, kind, branch, name, occurrence, status, attempt, epoch, started_at,
        finished_at, ref, outcome, error FROM steps ORDER BY run_id, n
    """,
    "DROP TABLE steps",
    "ALTER TABLE steps_0004 RENAME TO steps",
    """
    CREATE TABLE events_0004 (
        position INTEGER NOT NULL,
        run_id TEXT NOT NULL,
        seq INTEGER NOT NULL,
        type TEXT NOT NULL,
        at INTEGER NOT NULL,
        workspace TEXT NOT NULL,
        kind TEXT NOT NULL,
        data TEXT NOT NULL,
        PRIMARY KEY (position),
        CONSTRAINT events_run_seq UNIQUE (run_id, seq)
    )
    """,
    """
    INSERT INTO events_0004 SELECT position, run_id, seq, type, at, workspace, kind, data FROM events ORDER BY position
    """,
    "DROP TABLE events",
    "ALTER TABLE events_0004 RENAME TO events",
    "CREATE INDEX events_feed ON events (workspace, position)",
)


def upgrade() -> None:
    for statement in STATEMENTS:
        op.execute(statement)
