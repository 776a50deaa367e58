"""What may become a run: known target, known queue; and what it gets where nothing was said."""

from typing import Any, Protocol

import orjson
from pydantic import ValidationError

from latticed import ids
from latticed.clock import Clock, from_datetime
from latticed.errors import Invalid, RunError, TooLarge
from latticed.models.records import Birth
from latticed.models.runs import Submission, finite


class Defaults(Protocol):
    """What an agent's configuration says of its runs."""

    max_retries: int
    recovery: Any
    queue: str

    def objection(self, asked: Submission) -> tuple[str, str] | None:
        """What keeps the agent from a run as it was asked for: the field, and what is to be done about it."""
        ...

    def kept_inputs(self, inputs: dict[str, Any]) -> dict[str, Any]:
        """The inputs as they are put on disk, and shown."""
        ...


class Catalog(Protocol):
    """The configured agents and queues."""

    def defaults(self, kind: str, target: str) -> Defaults | None:
        """What holds for runs of this target; None if there is none of that name."""
        ...

    def lacks(self, kind: str, target: str, mode: str) -> str | None:
        """What keeps this target from running in this mode, and how that is had; None if nothing."""
        ...

    def names(self) -> list[str]:
        """The names of all agents."""
        ...

    def queues(self) -> dict[str, int]:
        """The queues and their limits."""
        ...


class Admission:
    """Makes the row of a run from what was asked."""

    def __init__(self, catalog: Catalog, clock: Clock) -> None:
        self._catalog = catalog
        self._clock = clock

    def admit(
        self, submission: Submission, workspace: str, created_by: str, **lineage: Any
    ) -> Birth:  # fmt: skip
        """A run to be put on disk. `lineage` are its parent, whether it is detached, what it is a rerun of.

        Raises:
            Invalid: there is no such target or queue, or the target cannot do what is asked.
        """
        defaults = self._catalog.defaults(submission.kind, submission.target)
        if defaults is None:
            raise _refused("target", self._unknown_target(submission))
        queue = submission.queue or defaults.queue
        queues = self._catalog.queues()
        if queue not in queues:
            raise _refused("queue", f"there is no queue {queue!r}; there are {', '.join(sorted(queues))}")
        if (lack := self._catalog.lacks(submission.kind, submission.target, submission.mode)) is not None:
            raise _refused("target", f"agent {submission.target!r} cannot run: it lacks {lack}")
        if (objection := defaults.objection(submission)) is not None:
            field, message = objection
            raise _refused(field, f"agent {submission.target!r}: {message}")
        try:
            inputs = orjson.dumps(defaults.kept_inputs(submission.inputs))
        except (TypeError, ValueError) as error:
            raise _refused("inputs", f"not JSON that can be stored: {error}") from None
        return Birth(
            id=ids.new(ids.RUN),
            workspace=workspace,
            kind=submission.kind,
            target=submission.target,
            name=submission.name or submission.target,
            mode=submission.mode,
            goal=submission.goal,
            inputs=inputs,
            roles=submission.roles or [],
            queue=queue,
            priority=submission.priority,
            max_retries=defaults.max_retries if submission.max_retries is None else submission.max_retries,
            recovery=submission.recovery or defaults.recovery,
            run_at=None if submission.run_at is None else from_datetime(submission.run_at),
            deadline_seconds=submission.deadline_seconds,
            tags=submission.tags,
            created_by=created_by,
            created_at=self._clock.now(),
            **lineage,
        )

    def admit_child(self, asked: dict[str, Any], workspace: str, created_by: str, **lineage: Any) -> Birth:
        """As `admit`, for a run that another run asks for; its errors are that run's to catch.

        Raises:
            RunError: code `invalid`.
        """
        try:
            submission = Submission.model_validate(asked)
            finite(submission.inputs)  # What comes over HTTP cannot be otherwise.
            return self.admit(submission, workspace, created_by, **lineage)
        except ValidationError as error:
            first = error.errors()[0]
            place = ".".join(str(part) for part in first["loc"])
            raise _child_refused(f"{place}: {first['msg']}") from None
        except ValueError as error:
            raise _child_refused(f"inputs: {error}") from None
        except (Invalid, TooLarge) as error:
            raise _child_refused(error.detail) from None

    def _unknown_target(self, submission: Submission) -> str:
        if submission.kind != "agent":
            return f"there is no {submission.kind} {submission.target!r}"
        names = self._catalog.names()
        there = f"there are {', '.join(names)}" if names else "none is configured"
        return f"there is no agent {submission.target!r}; {there}"


def _refused(field: str, message: str) -> Invalid:
    return Invalid(message, [{"loc": ["body", field], "msg": message}])


def _child_refused(message: str) -> RunError:
    error = RunError(f"the child cannot be started: {message}")
    error.code = "invalid"
    return error
