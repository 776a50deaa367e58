"""Receivers and senders for the tests of webhooks."""

from tests.unit.hooks.sending import receiver, sender, webhooks

__all__ = ["receiver", "sender", "webhooks"]
