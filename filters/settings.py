"""Base class and value types of the settings that a recipe holds. The settings of a rule stand beside the rule."""

import contextlib
import difflib
from collections.abc import Mapping
from typing import Annotated, Any, TypeVar, get_args, get_origin

from pydantic import BaseModel, ConfigDict, Field, ValidationError

Share = Annotated[float, Field(ge=0, le=1)]
Count = Annotated[int, Field(ge=0)]
Positive = Annotated[int, Field(ge=1)]

# what a value should be, in words of a recipe's author
KINDS: dict[Any, str] = {int: "a whole number", float: "a number", str: "a text", bool: "true or false"}
TYPES = {"int_type": KINDS[int], "float_type": KINDS[float], "string_type": KINDS[str], "bool_type": KINDS[bool],
         "dict_type": "a block of keys", "model_type": "a block of keys", "list_type": "a list"}  # fmt: skip


class Strict(BaseModel):
    """A part of the recipe: numbers are finite, wrong keys and types are errors, values are never coerced."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, allow_inf_nan=False)


Part = TypeVar("Part", bound=Strict)


def parse_settings(root: type[Part], plain: Any) -> Part:
    """Return settings from plain values. Raises ValueError with the first mistake as a sentence."""
    try:
        return root.model_validate(plain)
    except ValidationError as error:
        raise ValueError(explain(error, root)) from error


def explain(error: ValidationError, root: type[BaseModel]) -> str:
    """Return the first mistake in a part of the recipe as a sentence: key, value, allowed values.

    Args:
        error: the error that pydantic raised.
        root: the class that was to be made.
    """
    # a mistyped key comes first: it explains the key that is missing
    first: Any = min(error.errors(), key=lambda one: one["type"] != "extra_forbidden")
    path = [str(part) for part in first["loc"] if part != "[key]"]
    key = ".".join(path)
    if first["type"] == "extra_forbidden":
        allowed = list(_model_at(path[:-1], root).model_fields)
        close = difflib.get_close_matches(path[-1], allowed, n=1)
        hint = f"did you mean {close[0]!r}? " if close else ""
        return f"key {key} (value {first['input']!r}) is not known: {hint}allowed here: {', '.join(allowed)}"
    if first["type"] == "missing":
        beside = [one for one in error.errors() if one["type"] == "missing" and one["loc"][:-1] == first["loc"][:-1]]
        if len(beside) > 1:
            keys = [".".join([*path[:-1], str(one["loc"][-1])]) for one in beside]
            return f"keys {', '.join(keys)} are missing: give each a value"
        field = _model_at(path[:-1], root).model_fields.get(path[-1])
        kind = KINDS.get(field.annotation if field else None, "a value")
        return f"key {key} is missing: give {kind}"
    if first["type"] == "list_type" and isinstance(first["input"], str):
        return f"key {key} = {first['input']!r}: should be a list, such as [{first['input']!r}]"
    message = _expected(first)
    value = repr(first["input"])
    if not key:  # about several keys, which the message names
        return message
    if len(value) > 60 and first["type"] == "value_error":
        return f"key {key}: {message}"
    return f"key {key} = {value if len(value) <= 60 else value[:57] + '...'}: {message}"


def _expected(mistake: Mapping[str, Any]) -> str:
    """Return what a value should be. `mistake`: of pydantic."""
    kind = mistake["type"]
    if kind == "int_type":
        with contextlib.suppress(
            TypeError, ValueError, OverflowError
        ):  # YAML reads 1e6 as text, and 1.0e+6 as a fraction
            number = float(mistake["input"])
            if number.is_integer():
                return f"should be a whole number: write {int(number):_}"
    if kind in TYPES:
        return f"should be {TYPES[kind]}"
    return str(mistake["msg"]).removeprefix("Value error, ").replace("Input should", "should")


def _model_at(path: list[str], root: type[BaseModel]) -> type[BaseModel]:
    """Return the part of a schema at a key path."""
    model, named = root, False
    for part in path:
        if named:  # a key of a mapping, such as a source's name, which may be a field's name as well
            named = False
            continue
        field = model.model_fields.get(part)
        annotations = [field.annotation] if field else []
        while annotations:  # through lists, mappings by name and alternatives
            annotation = annotations.pop(0)
            if isinstance(annotation, type) and issubclass(annotation, BaseModel):
                model = annotation
                break
            named = named or get_origin(annotation) is dict
            annotations += get_args(annotation)
    return model
