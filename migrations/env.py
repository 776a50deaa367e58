"""Alembic's way in: the connection is handed over by latticed, which holds the lock."""

from alembic import context

context.configure(
    connection=context.config.attributes["connection"], target_metadata=None, transaction_per_migration=False
)
context.run_migrations()
