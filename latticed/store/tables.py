"""The schema, as the code sees it. `migrations/` makes it; a test compares the two.

Times are microseconds since the epoch, UTC. Columns of type `JSON_TEXT` hold JSON as text and are never SQL NULL
where the value may be any JSON: the text `null` stands for nothing.
"""

from sqlalchemy import (
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    Float,
    Index,
    Integer,
    MetaData,
    PrimaryKeyConstraint,
    Table,
    Text,
    UniqueConstraint,
    text,
)

from latticed.states import ACTIVE, CLAIMABLE, Status

BIG = BigInteger().with_variant(Integer, "sqlite")
JSON_TEXT = Text()

metadata = MetaData()


def one_of(column: str, values: frozenset[Status] | tuple[str, ...]) -> str:
    """An SQL condition: the column is one of these values."""
    return f"{column} IN ({', '.join(repr(str(v)) for v in sorted(values))})"


workspaces = Table(
    "workspaces",
    metadata,
    Column("name", Text, primary_key=True),
    Column("created_at", BIG, nullable=False),
    Column("removed_at", BIG),
)
"""`removed_at`: from then on it is not there for anybody, and what it holds is being removed."""

tokens = Table(
    "tokens",
    metadata,
    Column("id", Text, primary_key=True),
    Column("digest", Text, nullable=False, unique=True),
    Column("name", Text, nullable=False),
    Column("role", Text, nullable=False),
    Column("workspace", Text, nullable=False),
    Column("lanes", JSON_TEXT),
    Column("created_at", BIG, nullable=False),
    Column("expires_at", BIG),
    Column("revoked_at", BIG),
    Column("used_at", BIG),
    CheckConstraint(one_of("role", ("viewer", "operator", "admin")), name="tokens_role"),
)

runs = Table(
    "runs",
    metadata,
    Column("id", Text, primary_key=True),
    Column("workspace", Text, nullable=False),
    Column("kind", Text, nullable=False),
    Column("target", Text, nullable=False),
    Column("version", BIG),
    Column("name", Text, nullable=False),
    Column("status", Text, nullable=False),
    Column("mode", Text, nullable=False),
    Column("queue", Text, nullable=False),
    Column("priority", Integer, nullable=False),
    Column("max_retries", Integer, nullable=False),
    Column("recovery", Text, nullable=False),
    Column("recoveries", Integer, nullable=False),
    Column("attempt", Integer, nullable=False),
    Column("epoch", Integer, nullable=False),
    Column("owner", Text),
    Column("last_seq", Integer, nullable=False),
    Column("facts", Integer, nullable=False),
    Column("awaits", JSON_TEXT),
    Column("due_at", BIG),
    Column("run_at", BIG),
    Column("deadline_seconds", Float),
    Column("deadline_at", BIG),
    Column("parent_run_id", Text),
    Column("detached", Boolean, nullable=False),
    Column("rerun_of", Text),
    Column("tags", JSON_TEXT, nullable=False),
    Column("created_by", Text),
    Column("created_at", BIG, nullable=False),
    Column("started_at", BIG),
    Column("updated_at", BIG, nullable=False),
    Column("finished_at", BIG),
    Column("cancel", JSON_TEXT),
    Column("cancel_rank", Integer, nullable=False),
    Column("abandoned", Text),
    Column("output", JSON_TEXT),
    Column("error", JSON_TEXT),
    CheckConstraint(one_of("status", frozenset(Status)), name="runs_status"),
    Index(
        "runs_ready",
        "queue",
        "workspace",
        text("priority DESC"),
        "id",
        sqlite_where=text(f"due_at IS NULL AND {one_of('status', CLAIMABLE)}"),
    ),
    Index("runs_due", "due_at", sqlite_where=text("due_at IS NOT NULL")),
    Index(
        "runs_deadline",
        "deadline_at",
        sqlite_where=text(f"deadline_at IS NOT NULL AND {one_of('status', ACTIVE)}"),
    ),
    Index("runs_status", "workspace", "status", "id"),
    Index("runs_listed", "workspace", "id"),
    Index(
        "runs_children",
        "parent_run_id",
        sqlite_where=text("parent_run_id IS NOT NULL"),
    ),
)
"""The hot row of a run. `due_at`: not to be claimed, or to be woken, at that time; `facts` counts what was delivered
to it; `awaits` lists what would wake it; `cancel_rank` is 0 without a cancel, then 1 to 3 by mode."""

bodies = Table(
    "run_bodies",
    metadata,
    Column("run_id", Text, primary_key=True),
    Column("goal", JSON_TEXT, nullable=False),
    Column("inputs", JSON_TEXT, nullable=False),
    Column("roles", JSON_TEXT, nullable=False),
)
"""What a run was given. Apart from `runs`, so that moving a run does not write a large input again."""

details = Table(
    "run_details",
    metadata,
    Column("run_id", Text, primary_key=True),
    Column("workspace", Text, nullable=False),
    Column("role", Text),
    Column("usage", JSON_TEXT),
    Column("story", JSON_TEXT),
    Column("output", JSON_TEXT),
    Index("run_details_listed", "workspace", "run_id"),
)
"""What a run on a model shows beside its hot row, which has only those: `story` as models.pipeline.Story, `output` as
far as there is one before the run has ended well. Nothing is decided by it: the journal has all of it."""

events = Table(
    "events",
    metadata,
    Column("position", BIG, primary_key=True, autoincrement=False),
    Column("run_id", Text, nullable=False),
    Column("seq", Integer, nullable=False),
    Column("type", Text, nullable=False),
    Column("at", BIG, nullable=False),
    Column("workspace", Text, nullable=False),
    Column("kind", Text, nullable=False),
    Column("data", JSON_TEXT, nullable=False),
    UniqueConstraint("run_id", "seq", name="events_run_seq"),
    Index("events_feed", "workspace", "position"),
)
"""The log. The writer gives the positions; `floors` knows the highest that was ever given."""

steps = Table(
    "steps",
    metadata,
    Column("run_id", Text, nullable=False),
    Column("n", Integer, nullable=False),
    Column("kind", Text, nullable=False),
    Column("branch", Text, nullable=False),
    Column("name", Text, nullable=False),
    Column("occurrence", Integer, nullable=False),
    Column("status", Text, nullable=False),
    Column("attempt", Integer, nullable=False),
    Column("epoch", Integer, nullable=False),
    Column("started_at", BIG, nullable=False),
    Column("finished_at", BIG),
    Column("ref", Text),
    Column("outcome", JSON_TEXT, nullable=False),
    Column("error", JSON_TEXT, nullable=False),
    PrimaryKeyConstraint("run_id", "n"),
    CheckConstraint(one_of("status", ("started", "ok", "failed", "waiting")), name="steps_status"),
    # A record is looked for by its key alone: a tree of its own for the key would be written with each step.
    sqlite_with_rowid=False,
)
"""The journal. `n` counts the records of a run from 1; `ref` is a wake time, a child, an approval or a signal."""

floors = Table(
    "floors",
    metadata,
    Column("name", Text, primary_key=True),
    Column("value", BIG, nullable=False),
    sqlite_with_rowid=False,
)
"""The highest number ever given where the row that had it may be deleted: none is given twice."""

signals = Table(
    "signals",
    metadata,
    Column("id", Text, primary_key=True),
    Column("run_id", Text, nullable=False),
    Column("name", Text, nullable=False),
    Column("data", JSON_TEXT, nullable=False),
    Column("sent_at", BIG, nullable=False),
    Column("sent_by", Text),
    Column("consumed_by", Integer),
    Index("signals_run", "run_id", "name", "id"),
)

approvals = Table(
    "approvals",
    metadata,
    Column("id", Text, primary_key=True),
    Column("workspace", Text, nullable=False),
    Column("run_id", Text, nullable=False),
    Column("node", Text),
    Column("status", Text, nullable=False),
    Column("prompt", JSON_TEXT, nullable=False),
    Column("schema", JSON_TEXT, nullable=False),
    Column("lanes", JSON_TEXT, nullable=False),
    Column("created_at", BIG, nullable=False),
    Column("expires_at", BIG),
    Column("answered_at", BIG),
    Column("answered_by", Text),
    Column("answer", JSON_TEXT, nullable=False),
    Column("comment", JSON_TEXT, nullable=False),
    Column("subject", JSON_TEXT),
    CheckConstraint(one_of("status", ("pending", "approved", "denied", "expired", "closed")), name="approvals_status"),
    Index("approvals_listed", "workspace", "status", "id"),
    Index("approvals_run", "run_id"),
    Index(
        "approvals_expiry",
        "expires_at",
        sqlite_where=text("status = 'pending' AND expires_at IS NOT NULL"),
    ),
)

idempotency_keys = Table(
    "idempotency_keys",
    metadata,
    Column("workspace", Text, nullable=False),
    Column("route", Text, nullable=False),
    Column("key", Text, nullable=False),
    Column("fingerprint", Text, nullable=False),
    Column("run_id", Text, nullable=False),
    Column("created_at", BIG, nullable=False),
    PrimaryKeyConstraint("workspace", "route", "key"),
    Index("idempotency_keys_age", "created_at"),
)

audit = Table(
    "audit",
    metadata,
    Column("id", BIG, primary_key=True, autoincrement=True),
    Column("at", BIG, nullable=False),
    Column("workspace", Text, nullable=False),
    Column("principal", Text, nullable=False),
    Column("action", Text, nullable=False),
    Column("subject", Text, nullable=False),
    Column("detail", JSON_TEXT, nullable=False),
    Index("audit_listed", "workspace", "id"),
    sqlite_autoincrement=True,
)

sessions = Table(
    "sessions",
    metadata,
    Column("digest", Text, primary_key=True),
    Column("token_id", Text, nullable=False),
    Column("created_at", BIG, nullable=False),
    Column("expires_at", BIG, nullable=False),
    Index("sessions_token", "token_id"),
)
"""Browsers that have signed in. `digest` is the sha256 of the cookie; a session is worth what its token is."""

hooks = Table(
    "hooks",
    metadata,
    Column("id", Text, primary_key=True),
    Column("workspace", Text, nullable=False),
    Column("name", Text, nullable=False),
    Column("point", Text, nullable=False),
    Column("spec", JSON_TEXT, nullable=False),
    Column("enabled", Boolean, nullable=False),
    Column("created_by", Text, nullable=False),
    Column("created_at", BIG, nullable=False),
    Column("updated_at", BIG, nullable=False),
    UniqueConstraint("workspace", "name", name="hooks_name"),
)
"""Webhooks that were registered over HTTP. `spec` holds what models.hooks says of one; those of the configuration file
are not here."""

hook_deliveries = Table(
    "hook_deliveries",
    metadata,
    Column("id", Text, primary_key=True),
    Column("workspace", Text, nullable=False),
    Column("hook", Text, nullable=False),
    Column("point", Text, nullable=False),
    Column("sort", Text, nullable=False),
    Column("run_id", Text, nullable=False),
    Column("position", BIG),
    Column("status", Text, nullable=False),
    Column("attempts", Integer, nullable=False),
    Column("created_at", BIG, nullable=False),
    Column("due_at", BIG),
    Column("finished_at", BIG),
    Column("duration_ms", Float),
    Column("detail", JSON_TEXT, nullable=False),
    Column("output", JSON_TEXT, nullable=False),
    CheckConstraint(
        one_of("status", ("pending", "ok", "blocked", "error", "skipped", "timeout", "dead")),
        name="hook_deliveries_status",
    ),
    Index("hook_deliveries_listed", "workspace", "id"),
    Index("hook_deliveries_run", "run_id"),
    Index(
        "hook_deliveries_due",
        "hook",
        "due_at",
        sqlite_where=text("due_at IS NOT NULL"),
    ),
)
"""Every execution of a hook. One of `post_run` or `on_event` is written with what it is about, in one transaction, and
is the outbox of its own sending: it is `pending`, with `due_at`, until it was answered or is given up. `position` is
the event that an `on_event` is about."""
