"""What went wrong with a request to a model: a stable code, and whether to ask again.

model_rate_limited     again   429; after Retry-After where that was said
model_unavailable      again   5xx
model_unreachable      again   no connection, or one that was cut
model_timeout          again   no answer in time, or 408
model_nonsense         again   an answer that is none: not JSON, or not what was agreed upon
model_unauthorized     never   401 or 403
model_quota_exceeded   never   the account has nothing left
model_not_found        never   no such model there
context_too_long       never   the conversation is longer than the model can read
model_rejected         never   any other 4xx
"""

from dataclasses import dataclass

from pydantic_ai.exceptions import (
    ModelAPIError,
    ModelAuthenticationError,
    ModelConnectionError,
    ModelContextWindowExceededError,
    ModelHTTPError,
    ModelNotFoundError,
    ModelQuotaExceededError,
    ModelRateLimitError,
    ModelRequestRejectedError,
    ModelRequestTimeout,
    ModelServerError,
    ModelTimeoutError,
    ModelUnavailableError,
    UserError,
)

_AGAIN = (
    (ModelRateLimitError, "model_rate_limited"),
    (ModelUnavailableError, "model_unavailable"),
    (ModelServerError, "model_unavailable"),
    (ModelTimeoutError, "model_timeout"),
    (ModelRequestTimeout, "model_timeout"),
    (TimeoutError, "model_timeout"),
    (ModelConnectionError, "model_unreachable"),
)
_NEVER = (
    (ModelQuotaExceededError, "model_quota_exceeded"),
    (ModelAuthenticationError, "model_unauthorized"),
    (ModelNotFoundError, "model_not_found"),
    (ModelContextWindowExceededError, "context_too_long"),
    (ModelRequestRejectedError, "model_rejected"),
    (UserError, "model_misconfigured"),
)
_TEXT_LIMIT = 1000


@dataclass(frozen=True, slots=True)
class Fault:
    """A failed request. `after_seconds` is what the model's server asked for."""

    code: str
    message: str
    again: bool
    after_seconds: float | None = None


def fault(error: Exception, model: str) -> Fault:
    """What an error that a request raised amounts to; `model` is the name to be told."""
    said = _said(error)
    if isinstance(error, ModelHTTPError) and error.status_code == 408:
        return Fault("model_timeout", f"model {model}: {said}", again=True, after_seconds=error.retry_after)
    for kinds, again in ((_NEVER, False), (_AGAIN, True)):
        for kind, code in kinds:
            if isinstance(error, kind):
                message = f"model {model}: {said or _MEANS.get(code, code)}"
                return Fault(code, message, again, getattr(error, "retry_after", None))
    if isinstance(error, ModelHTTPError):
        return Fault("model_rejected", f"model {model}: {said}", again=False)
    return Fault("model_nonsense", f"model {model} gave an answer that is none: {said}", again=True)


_MEANS = {"model_timeout": "no answer in time"}


def _said(error: Exception) -> str:
    if isinstance(error, ModelHTTPError):
        text = f"HTTP {error.status_code}"
        body = error.body
        if isinstance(body, dict):
            inner = body.get("error", body)
            body = inner.get("message", inner) if isinstance(inner, dict) else inner
        return f"{text}: {body}"[:_TEXT_LIMIT] if body else text
    if isinstance(error, ModelAPIError):
        return error.message[:_TEXT_LIMIT]
    text = str(error)
    return (f"{type(error).__name__}: {text}" if text else type(error).__name__)[:_TEXT_LIMIT]
