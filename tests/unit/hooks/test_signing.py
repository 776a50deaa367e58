"""Signatures: checked by the public library, keys of every spelling, the daemon's own key."""

import base64
import os
import stat
from collections.abc import Mapping
from pathlib import Path

import pytest
from standardwebhooks.webhooks import Webhook, WebhookVerificationError

from latticed.clock import SystemClock
from latticed.hooks.signing import BadSecret, Keys, key_of, signature
from latticed.models.hooks import HookSpec, WebhookHook
from latticed.secrets import NoSecret, Secrets

BODY = b'{"a": "\xc3\xbc"}'
WHSEC = "whsec_" + base64.b64encode(b"k" * 32).decode()


def hook(secret: str | None = None, name: str = "notify") -> HookSpec:
    return HookSpec(name, WebhookHook(use="webhook", point="post_run", url="https://example.org/", secret=secret))


def keys(tmp_path: Path, environ: Mapping[str, str] | None = None) -> Keys:
    return Keys(tmp_path / "webhook.key", Secrets(None, environ or {}))


def headers(key: bytes, delivery_id: str = "dlv_1") -> dict[str, str]:
    now = SystemClock().now() // 1_000_000
    return {
        "webhook-id": delivery_id,
        "webhook-timestamp": str(now),
        "webhook-signature": signature(key, delivery_id, now, BODY),
    }


@pytest.mark.parametrize("secret", [WHSEC, WHSEC.rstrip("="), "a plain text", "ü", "x"])
def test_a_receiver_that_has_the_secret_can_check_the_signature(secret: str) -> None:
    known = secret if secret.startswith("whsec_") else base64.b64encode(secret.encode()).decode()
    assert Webhook(known).verify(BODY, headers(key_of(secret))) == {"a": "ü"}
    for forged in (headers(b"another key"), headers(key_of(secret)) | {"webhook-id": "dlv_2"}):
        with pytest.raises(WebhookVerificationError):
            Webhook(known).verify(BODY, forged)


@pytest.mark.parametrize("secret", ["", "whsec_", "whsec_$$$", "whsec_abcde"])
def test_a_secret_that_cannot_sign_is_refused_and_not_told(secret: str) -> None:
    with pytest.raises(BadSecret) as refused:
        key_of(secret)
    assert secret.removeprefix("whsec_") == "" or secret.removeprefix("whsec_") not in refused.value.detail


def test_a_reference_is_looked_up_at_each_use(tmp_path: Path) -> None:
    environ = {"LATTICED_SECRET_NOTIFY": WHSEC}
    of = keys(tmp_path, environ)
    assert of.find(hook("secret:notify")) == b"k" * 32
    environ["LATTICED_SECRET_NOTIFY"] = "renewed"
    assert of.find(hook("secret:notify")) == b"renewed"
    del environ["LATTICED_SECRET_NOTIFY"]
    with pytest.raises(NoSecret):
        of.find(hook("secret:notify"))
    assert of.text(hook("secret:notify")) is None
    assert not (tmp_path / "webhook.key").exists(), "made at its first use only"


def test_each_hook_has_a_key_of_its_own_that_outlives_the_daemon(tmp_path: Path) -> None:
    os.umask(0o022)
    first = keys(tmp_path)
    shown = first.text(hook())
    assert shown is not None
    file = tmp_path / "webhook.key"
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert keys(tmp_path).find(hook()) == key_of(shown)
    assert len(key_of(shown)) == 32
    assert first.find(hook(name="another")) != key_of(shown)
    assert key_of(shown) not in file.read_bytes()
    assert list(tmp_path.iterdir()) == [file]


def test_a_key_whose_making_was_cut_short_is_made_anew(tmp_path: Path) -> None:
    (tmp_path / "webhook.key.part").write_bytes(b"half")
    assert len(keys(tmp_path).find(hook())) == 32
    assert not (tmp_path / "webhook.key.part").exists()
