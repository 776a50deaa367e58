"""JSON Schema: is it one, and does a value fit."""

from typing import Any

from latticed.errors import Misuse


class Schema:
    """A schema that was checked; `None` fits everything."""

    def __init__(self, validator: Any) -> None:
        self._validator = validator

    @classmethod
    def of(cls, schema: dict[str, Any] | None, where: str) -> "Schema":
        """Checks a schema.

        Raises:
            Misuse: it is none.
        """
        if schema is None:
            return cls(None)
        import jsonschema_rs  # late: most runs ask nobody anything

        try:
            return cls(jsonschema_rs.validator_for(schema))
        except (jsonschema_rs.ValidationError, ValueError, TypeError) as error:
            raise Misuse(f"{where}: this is not a JSON Schema: {str(error).splitlines()[0]}") from None

    def problems(self, value: Any) -> list[dict[str, Any]]:
        """Where a value does not fit, as `{loc, msg}`; empty if it does."""
        if self._validator is None:
            return []
        return [
            {"loc": [*error.instance_path], "msg": error.message} for error in self._validator.iter_errors(value)
        ]  # fmt: skip

    def problem(self, value: Any) -> str | None:
        """The first place where a value does not fit, in words."""
        for found in self.problems(value):
            place = ".".join(str(part) for part in found["loc"])
            return f"{place}: {found['msg']}" if place else str(found["msg"])
        return None
