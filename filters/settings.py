"""Base class and value types of the settings that a recipe holds. The settings of a rule stand beside the rule."""

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

Share = Annotated[float, Field(ge=0, le=1)]
Count = Annotated[int, Field(ge=0)]
Positive = Annotated[int, Field(ge=1)]


class Strict(BaseModel):
    """A part of the recipe: unknown keys and wrong types are errors, values are never coerced and never change."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)
