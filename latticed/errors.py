"""Every error latticed raises on purpose.

    LatticedError                 what a caller of the facade, the API or the CLI can see
    ├── Invalid                   422  the request cannot be understood or breaks a rule
    │   └── Unreadable            400  the body is not JSON
    ├── Unauthenticated           401
    ├── Forbidden                 403
    ├── NotFound                  404
    ├── Conflict                  409  somebody else won, or the state does not allow it
    ├── TooLarge                  413
    ├── Busy                      429  a limit; `retry_after` says when to come again
    ├── Unavailable               503  draining, or the store is away
    └── Internal                  500

    RunError                      what user code can catch (or let pass, which ends the run)
    ├── StepFailed                a step used up its attempts
    ├── StepInterrupted           a step declared retry_on_crash=False was under way at a crash
    ├── Denied                    a person said no
    ├── ApprovalExpired           nobody answered in time
    ├── SignalTimeout             no signal came in time
    ├── ChildFailed               a child run did not end well
    ├── Final             nothing would be gained by another attempt
    ├── JournalConflict           user code asked for its steps in another order than recorded
    └── Misuse                    the context was used in a way it does not allow

    Unwind (BaseException)        leaves user code, not to be caught by it
    ├── Cancelled                 the run has a cancel on record
    └── Suspended                 the run waits, or the daemon drains, and gives its slot back

A class's docstring is its default message.
"""

from typing import Any, ClassVar


class LatticedError(Exception):
    """Something went wrong."""

    code: ClassVar[str] = "internal"
    status: ClassVar[int] = 500
    exit_code: ClassVar[int] = 70
    title: ClassVar[str] = "Internal error"

    def __init__(self, detail: str | None = None, **extra: Any) -> None:
        self.detail = detail or (type(self).__doc__ or self.title).strip()
        self.extra = extra
        super().__init__(self.detail)


class Invalid(LatticedError):
    """The request is not valid."""

    code, status, exit_code, title = "invalid", 422, 2, "Invalid request"

    def __init__(self, detail: str | None = None, errors: list[dict[str, Any]] | None = None) -> None:
        super().__init__(detail, **({"errors": errors} if errors else {}))


class Unreadable(Invalid):
    """The body is not readable JSON."""

    status, title = 400, "Unreadable request"


class Unauthenticated(LatticedError):
    """A valid token is needed: send it as `Authorization: Bearer <token>`."""

    code, status, exit_code, title = "unauthenticated", 401, 77, "Not signed in"


class Forbidden(LatticedError):
    """This token may not do that."""

    code, status, exit_code, title = "forbidden", 403, 77, "Not allowed"


class NotFound(LatticedError):
    """There is no such thing."""

    code, status, exit_code, title = "not_found", 404, 4, "Not found"


class Conflict(LatticedError):
    """The current state does not allow it."""

    code, status, exit_code, title = "conflict", 409, 5, "Conflict"


class TooLarge(LatticedError):
    """The body is larger than allowed."""

    code, status, exit_code, title = "too_large", 413, 2, "Too large"


class Busy(LatticedError):
    """A limit is reached; try again later."""

    code, status, exit_code, title = "busy", 429, 75, "Busy"

    def __init__(self, detail: str | None = None, retry_after: int = 1) -> None:
        super().__init__(detail)
        self.retry_after = retry_after


class Unavailable(LatticedError):
    """The daemon cannot take this now; nothing was written."""

    code, status, exit_code, title = "unavailable", 503, 75, "Unavailable"


class Internal(LatticedError):
    """An unexpected error; the daemon's log has the details."""


ERRORS: dict[str, type[LatticedError]] = {
    cls.code: cls
    for cls in (Invalid, Unauthenticated, Forbidden, NotFound, Conflict, TooLarge, Busy, Unavailable, Internal)
}
"""Code → class; what the API sends and the client raises again."""


class RunError(Exception):
    """A run's own error; `code` is what the run ends with if it is not caught."""

    code: str = "error"

    def __init__(self, message: str | None = None, detail: Any = None) -> None:
        self.message = message or (type(self).__doc__ or "").strip()
        self.detail = detail
        super().__init__(self.message)


class StepFailed(RunError):
    """A step used up its attempts."""

    def __init__(self, name: str, code: str, message: str) -> None:
        super().__init__(f"step {name!r} failed: {message}")
        self.name, self.code, self.reason = name, code, message

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.name, self.code, self.reason)


class StepInterrupted(RunError):
    """A step that must not run twice was under way when the daemon died."""

    code = "step_interrupted"


class Denied(RunError):
    """The approval was denied."""

    code = "denied"


class ApprovalExpired(RunError):
    """Nobody answered the approval in time."""

    code = "approval_expired"


class SignalTimeout(RunError):
    """The signal did not come in time."""

    code = "signal_timeout"


class ChildFailed(RunError):
    """A child run did not end well."""

    code = "child_failed"

    def __init__(self, run_id: str, status: str, error: dict[str, Any] | None = None) -> None:
        reason = (error or {}).get("message") or "no error recorded"
        super().__init__(f"child {run_id} ended {status}: {reason}", {"run_id": run_id, "status": status})
        self.run_id, self.status, self.error = run_id, status, error


class Final(RunError):
    """The run has failed, and another attempt would not help: it has used up its own, or is not to be repeated."""

    def __init__(self, code: str, message: str, detail: Any = None) -> None:
        super().__init__(message, detail)
        self.code = code


class JournalConflict(RunError):
    """The run asked for its steps in another order than it did the first time."""

    code = "conflict"


class Misuse(RunError):
    """The context was used in a way it does not allow."""

    code = "misuse"


class OutcomeTooLarge(RunError):
    """An outcome is larger than may be recorded; store it elsewhere and return a reference."""

    code = "too_large"


class NotJson(RunError):
    """An outcome must be JSON: str, int, float, bool, None, and lists and dicts of those."""

    code = "not_json"


class Unwind(BaseException):
    """Leaves user code; a BaseException so that `except Exception` does not stop it."""


class Cancelled(Unwind):
    """The run has a cancel on record."""


class Suspended(Unwind):
    """The run gives its slot back and is entered again from the top later."""
