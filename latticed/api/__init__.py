"""The HTTP door: every route, its authorisation and its description come from one table."""

from latticed.api.app import create_app
from latticed.api.exchange import Settings
from latticed.api.server import protocol

__all__ = ["Settings", "create_app", "protocol"]
