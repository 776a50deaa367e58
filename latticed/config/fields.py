"""What every table of the configuration is made of."""

from typing import Annotated, ClassVar

from pydantic import BaseModel, ConfigDict, Field
from pydantic_core import PydanticCustomError

from latticed.errors import LatticedError


class ConfigError(LatticedError):
    """The configuration cannot be used."""

    exit_code: ClassVar[int] = 78
    title: ClassVar[str] = "Unusable configuration"


def wrong(key: str, reason: str) -> PydanticCustomError:
    """An error that names its key itself, for a rule that looks at more than one."""
    return PydanticCustomError("rule", "{reason}", {"key": key, "reason": reason})


Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9_.-]{1,64}$")]
Count = Annotated[int, Field(ge=1, le=1_000_000)]
Bytes = Annotated[int, Field(ge=1024, le=1 << 30)]
Seconds = Annotated[float, Field(gt=0, le=86_400 * 365, allow_inf_nan=False)]
SecondsOrZero = Annotated[float, Field(ge=0, le=86_400 * 365, allow_inf_nan=False)]
Days = Annotated[float, Field(gt=0, allow_inf_nan=False)]


class Table(BaseModel):
    """One table of the file."""

    # Tables are read as parts of the whole, whose validator knows them; one that is asked alone gets its own then.
    model_config = ConfigDict(extra="forbid", frozen=True, defer_build=True)
