"""The store: what is true. `open_store` is the only way in."""

from latticed.store.looking import Found, holder, look
from latticed.store.opening import Store, database_path, open_store, upgrade

__all__ = ["Found", "Store", "database_path", "holder", "look", "open_store", "upgrade"]
