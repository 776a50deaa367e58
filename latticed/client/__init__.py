"""The daemon's verbs over HTTP, for latticectl and for anyone's program."""

from latticed.client.verbs import Client

__all__ = ["Client"]
