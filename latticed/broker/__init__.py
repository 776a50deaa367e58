"""The broker: what carries wake-ups. It only delivers; the store is the truth."""

from latticed.broker.memory import Channel, MemoryBroker

__all__ = ["Channel", "MemoryBroker", "open_broker"]


def open_broker(url: str) -> MemoryBroker:
    """The broker at `url`; `memory:` is this process's own.

    Raises:
        ValueError: there is no such broker.
    """
    if url != "memory:":
        raise ValueError(f"there is no broker for {url!r}; use 'memory:'")
    return MemoryBroker()
