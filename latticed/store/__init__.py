"""The store: what is true. `open_store` is the only way in."""

from latticed.store.opening import Store, open_store, upgrade

__all__ = ["Store", "open_store", "upgrade"]
