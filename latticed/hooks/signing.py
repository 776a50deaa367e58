"""Signatures after Standard Webhooks 1.0.0: HMAC-SHA256 over `id.timestamp.body`, with a key of each hook's own."""

import binascii
import hmac
import os
import secrets
from base64 import b64decode, b64encode
from pathlib import Path

from latticed.errors import LatticedError
from latticed.models.hooks import HookSpec, WebhookHook
from latticed.secrets import Secrets

PREFIX = "whsec_"
KEY_BYTES = 32


class BadSecret(LatticedError):
    """A secret that cannot sign."""

    exit_code = 78
    title = "Unusable secret"


def key_of(secret: str) -> bytes:
    """A secret's text → the key: base64 behind `whsec_`, as Standard Webhooks spells it, padded or not, as its
    libraries read it; any other text as its UTF-8.

    Raises:
        BadSecret: it is empty, or what follows `whsec_` is not base64. Nothing of it is told.
    """
    if not secret.startswith(PREFIX):
        key = secret.encode()
    else:
        try:
            text = secret.removeprefix(PREFIX)
            key = b64decode(text + "=" * (-len(text) % 4), validate=True)
        except (binascii.Error, ValueError):
            raise BadSecret(f"what follows {PREFIX} in a webhook's secret must be base64") from None
    if not key:
        raise BadSecret("a webhook's secret is empty")
    return key


def signature(key: bytes, delivery_id: str, timestamp: int, body: bytes) -> str:
    """The value of `webhook-signature`."""
    signed = b"%b.%d.%b" % (delivery_id.encode(), timestamp, body)
    return "v1," + b64encode(hmac.digest(key, signed, "sha256")).decode()


class Keys:
    """The keys of all webhooks: a secret that is referred to, or one derived from a master key that the daemon makes
    for itself in a file of its state directory, readable by its owner alone."""

    def __init__(self, file: Path, resolver: Secrets) -> None:
        self._file = file
        self.secrets = resolver
        """Where secrets are; a reload may put another in its place."""
        self._master: bytes | None = None
        self._derived: dict[str, bytes] = {}

    def find(self, hook: HookSpec) -> bytes:
        """The key that a hook's deliveries are signed with, as it is now.

        Raises:
            NoSecret: what it refers to is not there.
            BadSecret: what is there cannot sign.
        """
        assert isinstance(hook.table, WebhookHook)
        if hook.table.secret is not None:
            return key_of(self.secrets.resolve(hook.table.secret))
        if (key := self._derived.get(hook.key)) is None:
            key = self._derived[hook.key] = hmac.digest(self._master_key(), hook.key.encode(), "sha256")
        return key

    def text(self, hook: HookSpec) -> str | None:
        """The derived key of a hook as its receiver needs it; None if it has a secret of its own."""
        assert isinstance(hook.table, WebhookHook)
        return None if hook.table.secret is not None else PREFIX + b64encode(self.find(hook)).decode()

    def _master_key(self) -> bytes:
        if self._master is None:
            try:
                self._master = self._file.read_bytes()
            except FileNotFoundError:
                self._master = self._make()
        return self._master

    def _make(self) -> bytes:
        """Makes the file, which is either not there or whole."""
        key = secrets.token_bytes(KEY_BYTES)
        part = self._file.with_name(self._file.name + ".part")
        part.unlink(missing_ok=True)
        with os.fdopen(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600), "wb") as file:
            file.write(key)
            file.flush()
            os.fsync(file.fileno())
        part.replace(self._file)
        folder = os.open(self._file.parent, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(folder)  # A key that was shown must be there after a power cut.
        finally:
            os.close(folder)
        return key
