"""The base class of all settings in a recipe, types of values, and error messages for invalid settings."""

import contextlib
import difflib
from collections.abc import Mapping
from typing import Annotated, Any, TypeVar, get_args, get_origin

from pydantic import BaseModel, ConfigDict, Field, ValidationError

Share = Annotated[float, Field(ge=0, le=1)]
Count = Annotated[int, Field(ge=0)]
Positive = Annotated[int, Field(ge=1)]

# The names of types in error messages, in words that the author of a recipe understands.
KINDS: dict[Any, str] = {int: "a whole number", float: "a number", str: "a text", bool: "true or false"}
TYPES = {"int_type": KINDS[int], "float_type": KINDS[float], "string_type": KINDS[str], "bool_type": KINDS[bool],
         "dict_type": "a block of keys", "model_type": "a block of keys", "list_type": "a list"}  # fmt: skip


class Strict(BaseModel):
    """A part of the recipe.

    Unknown keys, wrong types, infinite numbers and NaN are errors. Values are never converted from another type.
    """

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, allow_inf_nan=False)


Part = TypeVar("Part", bound=Strict)


def parse_settings(root: type[Part], plain: Any) -> Part:
    """Validate plain values and return them as an instance of `root`.

    Raises:
        ValueError: a value is invalid; the message describes the first mistake.
    """
    try:
        return root.model_validate(plain)
    except ValidationError as error:
        raise ValueError(explain(error, root)) from error


def explain(error: ValidationError, root: type[BaseModel]) -> str:
    """Return a sentence about the first mistake in a part of the recipe, with the key, its value and allowed values.

    Args:
        error: the error that pydantic raised.
        root: the class whose validation failed.
    """
    # An unknown key is reported before a missing key, because a typing mistake causes both.
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
    if not key:  # The mistake concerns several keys, and the message names them.
        return message
    if len(value) > 60 and first["type"] == "value_error":
        return f"key {key}: {message}"
    return f"key {key} = {value if len(value) <= 60 else value[:57] + '...'}: {message}"


def _expected(mistake: Mapping[str, Any]) -> str:
    """Return a phrase that says which values are allowed. `mistake`: an item of pydantic's `errors()`."""
    kind = mistake["type"]
    if kind == "int_type":
        # YAML reads 1e6 as a string and 1.0e+6 as a float, so suggest the form that it reads as an integer.
        with contextlib.suppress(TypeError, ValueError, OverflowError):
            number = float(mistake["input"])
            if number.is_integer():
                return f"should be a whole number: write {int(number):_}"
    if kind in TYPES:
        return f"should be {TYPES[kind]}"
    return str(mistake["msg"]).removeprefix("Value error, ").replace("Input should", "should")


def _model_at(path: list[str], root: type[BaseModel]) -> type[BaseModel]:
    """Return the class of the settings at a path of keys below `root`."""
    model, named = root, False
    for part in path:
        if named:  # The key of a mapping, such as the name of a source, is no field, even if a field has that name.
            named = False
            continue
        field = model.model_fields.get(part)
        annotations = [field.annotation] if field else []
        while annotations:  # Search inside lists, mappings and unions.
            annotation = annotations.pop(0)
            if isinstance(annotation, type) and issubclass(annotation, BaseModel):
                model = annotation
                break
            named = named or get_origin(annotation) is dict
            annotations += get_args(annotation)
    return model
