"""Something that could not be read, in its place among what could."""

from dataclasses import dataclass

from filters.reasons import Reason


@dataclass(frozen=True, slots=True)
class Damage:
    """Why, by the catalogue, and what exactly was wrong."""

    problem: Reason
    detail: str
