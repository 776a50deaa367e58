"""The table of a role pipeline, `[agents.NAME]` with `use = "pipeline"`, and of its roles."""

from typing import Annotated, Any, Literal, Self

from pydantic import Field, field_validator, model_validator

from latticed.config.agents import unknown_role
from latticed.config.fields import Name, Table
from latticed.config.modelled import ModelledBase, ScriptedCall
from latticed.models.fields import STEP_ROLES
from latticed.models.pipeline import STEP_LIMIT
from latticed.models.planning import BadPlan, steps_of
from latticed.models.redaction import redact
from latticed.models.runs import Submission


class RoleConfig(Table):
    """One role. What is not set is as for the agent; what is no built-in role is one of your own, with a prompt."""

    system_prompt: str | None = None
    model: Annotated[str, Field(min_length=1)] | None = None
    temperature: Annotated[float, Field(ge=0, le=2)] | None = None
    max_tokens: Annotated[int, Field(ge=1)] | None = None
    tools: list[Name] | None = None
    simulation: list[str | list[str | ScriptedCall]] = []


class PipelineConfig(ModelledBase):
    """Roles on a model, one after the other. `max_retries` is how often a reviewer can have the work done again."""

    use: Literal["pipeline"]
    max_retries: Annotated[int, Field(ge=0, le=5)] = 2
    default_roles: Annotated[list[Name], Field(min_length=1, max_length=16)] = ["planner", "executor", "reviewer"]
    roles: dict[Name, RoleConfig] = {}

    @field_validator("roles")
    @classmethod
    def _own_roles_say_what_they_do(cls, roles: dict[str, RoleConfig]) -> dict[str, RoleConfig]:
        for name, role in roles.items():
            if name not in STEP_ROLES and not (role.system_prompt or "").strip():
                raise ValueError(f"the role {name!r} is none that every pipeline has: give it a system_prompt")
        return roles

    @model_validator(mode="after")
    def _runs_can_begin(self) -> Self:
        if (objection := self._objection_to_roles(self.default_roles)) is not None:
            raise ValueError(f"default_roles: {objection[1]}")
        return self

    def models(self) -> dict[str, str]:
        """As ModelledBase.models, those of its roles too."""
        own = {f"roles.{name}.model": role.model for name, role in self.roles.items() if role.model is not None}
        return super().models() | own

    def models_used(self) -> list[str]:
        """As ModelledBase.models_used: those of the roles that it takes by itself."""
        models = (self.model_of(role) for role in self.default_roles)
        return list(dict.fromkeys(model for model in models if model is not None))

    def tool_names(self) -> list[tuple[str, str]]:
        """As ModelledBase.tool_names, those of its roles too."""
        own = [(f"roles.{name}.tools", tool) for name, role in self.roles.items() for tool in role.tools or ()]
        return super().tool_names() + own

    @property
    def known_roles(self) -> list[str]:
        """The names that a run may ask for."""
        return list(dict.fromkeys((*STEP_ROLES, *self.roles)))

    def model_of(self, role: str) -> str | None:
        """The model that a role works on; None if none is configured."""
        own = self.roles.get(role)
        return (own.model if own is not None else None) or self.model

    def tools_of(self, role: str) -> list[str]:
        """The tools that a role has: its own list, else the agent's, but for those roles that only judge or tell."""
        own = self.roles.get(role)
        if own is not None and own.tools is not None:
            return own.tools
        return [] if role in ("planner", "reviewer", "release") else self.tools

    def lacks_model(self) -> str | None:
        """What the roles that it takes by itself lack; None if each has a model."""
        lacking = [role for role in self.default_roles if self.model_of(role) is None]
        return f"a model for {', '.join(lacking)}: set model to the name of a table [models.…]" if lacking else None

    def objection(self, asked: Submission) -> tuple[str, str] | None:
        """What keeps this agent from a run as it was asked for: the field, and what is to be done about it."""
        roles = asked.roles or self.default_roles
        if (objection := self._objection_to_roles(roles)) is not None:
            return objection
        if asked.mode == "live" and (lacking := [role for role in roles if self.model_of(role) is None]):
            return "mode", (
                f'no model is configured for {", ".join(lacking)}: set model = "NAME" in its table [agents.…], NAME '
                "being a table [models.NAME]; or use mode 'simulation'"
            )
        return _objection_to_steps(asked.inputs)

    def _objection_to_roles(self, roles: list[str]) -> tuple[str, str] | None:
        if twice := sorted({role for role in roles if roles.count(role) > 1}):
            return "roles", f"{', '.join(twice)}: a role can be named once"
        return unknown_role(roles, self.known_roles)

    def kept_inputs(self, inputs: dict[str, Any]) -> dict[str, Any]:
        """A run's inputs without secrets: neither a model nor a reader is to see one, and nothing else uses them."""
        kept: dict[str, Any] = redact(inputs)
        return kept


def _objection_to_steps(inputs: dict[str, Any]) -> tuple[str, str] | None:
    if inputs.get("steps") is None:
        return None
    try:
        steps = steps_of(inputs["steps"])
    except BadPlan as error:
        return "inputs", f"inputs.steps: {error}"
    if not 1 <= len(steps) <= STEP_LIMIT:
        return "inputs", f"inputs.steps has {len(steps)} steps; a plan has 1 to {STEP_LIMIT}"
    return None
