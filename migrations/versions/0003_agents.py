"""What runs on a model show beside their row; what exactly an approval is about.

Frozen once released: imports nothing from latticed.
"""

from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

STATEMENTS = (
    """
    CREATE TABLE run_details (
        run_id TEXT NOT NULL,
        workspace TEXT NOT NULL,
        role TEXT,
        usage TEXT,
        story TEXT,
        output TEXT,
        PRIMARY KEY (run_id)
    )
    """,
    "ALTER TABLE approvals ADD COLUMN subject TEXT",
    "CREATE INDEX run_details_listed ON run_details (workspace, run_id)",
)


def upgrade() -> None:
    for statement in STATEMENTS:
        op.execute(statement)
