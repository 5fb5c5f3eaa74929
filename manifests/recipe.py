"""The recipe: all settings of a corpus, in one YAML file.

The keys `name`, `seed`, `goal_tokens`, `sources` and the `weight` of each source are required; all other keys have
defaults. A wrong key, type or range is rejected before any work starts. The error message names the key, the value and
the allowed values.

A corpus contains the recipe of its run, and copies of the Python modules with the user's own rules and readers.
"""

import re
import sys
from collections.abc import Collection, Hashable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Self

from pydantic import AfterValidator, Field, ValidationError, field_validator, model_validator

from filters.dedup.settings import Comparison, Deduplication
from filters.errors import UserError
from filters.rule_list import name_of
from filters.settings import Count, Positive, Share, Strict, explain
from manifests.files import sha256_json
from manifests.mirror import fetch, fetch_files
from manifests.sizes import PRESETS
from manifests.source import Source

if TYPE_CHECKING:
    import yaml

RECIPE_FILE = "recipe.yaml"  # The recipe as the user gave it, with absolute paths.
CODE = "code"  # The folder with copies of the modules of the user's own rules and readers.


def _check_name(name: str) -> str:
    if not re.fullmatch("[a-z][a-z0-9_]*", name):
        raise ValueError("should be lower-case letters, digits and underscores, with a letter first")
    return name


SourceName = Annotated[str, AfterValidator(_check_name)]


class Tokenizer(Strict):
    """The tokenizer: SentencePiece BPE like LLaMA's, split digits, byte fallback, no normalisation (section 2.1).

    Attributes:
        path: an existing tokenizer.model to use; if it is None, a tokenizer is trained.
        vocabulary: number of pieces.
        sample_bytes: UTF-8 bytes of the text to train on, divided among the sources in proportion to their weights.
        character_coverage: the option of SentencePiece of this name.
        threads: number of threads for training. It is part of the recipe because the model depends on it.
    """

    path: str | None = None
    vocabulary: Annotated[int, Field(ge=300, le=1 << 20)] = 32_000
    sample_bytes: Positive = 2_000_000_000
    character_coverage: Annotated[float, Field(gt=0.9, le=1)] = 0.99995
    threads: Positive = 1


class Shards(Strict):
    """Settings of the token shards.

    Attributes:
        tokens: approximate number of tokens per shard.
        validation: the share of duplicate clusters that goes to the validation side.
    """

    tokens: Positive = 1 << 28
    validation: Share = 0.001


class Trainer(Strict):
    """The model for which the corpus is built; `model` is a key of `PRESETS`."""

    model: str = "7b"

    @field_validator("model")
    @classmethod
    def _is_known(cls, model: str) -> str:
        if model not in PRESETS:
            raise ValueError(f"should be one of {', '.join(PRESETS)}")
        return model


class Recipe(Strict):
    """The whole recipe.

    Attributes:
        goal_tokens: number of tokens of the planned training.
        split_bytes: approximate size, in stored bytes, of the splits into which larger dumps are divided.
    """

    name: Annotated[str, Field(min_length=1)]
    seed: Count
    goal_tokens: Positive
    split_bytes: Positive = 1 << 28
    sources: dict[SourceName, Source] = Field(min_length=1)
    deduplication: Deduplication = Deduplication()
    tokenizer: Tokenizer = Tokenizer()
    shards: Shards = Shards()
    trainer: Trainer = Trainer()

    @field_validator("sources")
    @classmethod
    def _kinds(cls, sources: dict[str, Source]) -> dict[str, Source]:
        return {name: source.with_kind(name) for name, source in sorted(sources.items())}

    @model_validator(mode="after")
    def _known_priority(self) -> Self:
        unknown = sorted(set(self.deduplication.source_priority) - set(self.sources))
        if unknown:
            raise ValueError(f"deduplication.source_priority names {unknown[0]!r}, which is not one of the sources")
        return self

    def comparison_of(self, source: str) -> Comparison:
        """Return the comparison settings of a source: its own, completed by the settings of the recipe.

        For a source that is not in the recipe, the settings of the recipe are returned.
        """
        own = self.sources[source].deduplication if source in self.sources else None
        return (own or Comparison()).complete(self.deduplication)

    def with_sources(self, only: Collection[str] = (), without: Collection[str] = ()) -> "Recipe":
        """Return the recipe with a subset of its sources.

        Args:
            only: names of the sources to keep; if it is empty, all sources are kept.
            without: names of the sources to remove.

        Raises:
            UserError: both arguments are given, a name is unknown, or no source remains.
        """
        if only and without:
            raise UserError("--only and --without are both given: give one of them")
        option, named = ("--only", only) if only else ("--without", without)
        unknown = sorted(set(named) - set(self.sources))
        if unknown:
            known = ", ".join(self.sources)
            raise UserError(f"{option} {unknown[0]}: the recipe has no source {unknown[0]!r}, only {known}")
        left = {name: source for name, source in self.sources.items() if (name in named if only else name not in named)}
        if not left:
            raise UserError("--without leaves no source: leave out fewer")
        priority = [name for name in self.deduplication.source_priority if name in left]
        rules = self.deduplication.model_copy(update={"source_priority": priority})
        return self.model_copy(update={"sources": left, "deduplication": rules})

    def with_inputs(self, inputs: Mapping[str, list[str]]) -> "Recipe":
        """Return the recipe with the inputs of the named sources replaced. Raises UserError for an unknown source."""
        for name in inputs:
            if name not in self.sources:
                raise UserError(
                    f"--input {name}=…: the recipe has no source {name!r}, only {', '.join(sorted(self.sources))}"
                )
        sources = {
            name: source.model_copy(update={"inputs": inputs.get(name, source.inputs)})
            for name, source in self.sources.items()
        }
        return self.model_copy(update={"sources": sources})

    def canonical(self, input_names: Mapping[str, list[str]]) -> dict[str, Any]:
        """Return the canonical form of the recipe for the manifest, which does not depend on the paths of files.

        Defaults are filled in, inputs are replaced by sorted names, and paths of models are removed, because the
        manifest identifies models by hash.

        Args:
            input_names: names of the inputs by source.
        """
        plain = self.filled_in()
        for name, source in plain["sources"].items():
            source["inputs"] = sorted(input_names.get(name, []))
            source["filters"] = [{name_of(rule): rule.key()} for rule in self.sources[name].filters]
        plain["tokenizer"]["path"] = None
        plain["deduplication"] |= {"against": [], "canaries": 0}
        return plain

    def filled_in(self) -> dict[str, Any]:
        """Return the recipe as plain values with all defaults.

        The `deduplication` of a source is None if it equals the settings of the recipe.
        """
        plain, default = self.model_dump(), Comparison().complete(self.deduplication).model_dump()
        for name, source in plain["sources"].items():
            own = self.comparison_of(name).model_dump()
            source["deduplication"] = own if own != default else None
        return plain

    def as_yaml(self) -> bytes:
        """Return the content of `recipe.yaml` as a run writes it, with all defaults and with paths."""
        import yaml

        return yaml.safe_dump(self.filled_in(), sort_keys=False).encode()

    def sha(self, input_names: Mapping[str, list[str]]) -> str:
        """Return the SHA-256 of the canonical recipe."""
        return sha256_json(self.canonical(input_names))


def load_recipe(path: Path) -> Recipe:
    """Read and validate a recipe. Raises UserError for the first error found."""
    try:
        plain = read_yaml(path.read_bytes(), _make_loader())
    except OSError as error:
        raise UserError(f"recipe {path} cannot be read ({error.strerror}): check the path") from error
    except ValueError as error:
        raise UserError(f"recipe {path} is not YAML, {error}: correct it there") from error
    return parse_recipe(plain, str(path))


def parse_recipe(plain: Any, name: str) -> Recipe:
    """Validate plain values and return the recipe.

    Args:
        plain: the values of the YAML file.
        name: the name of the file for error messages.

    Raises:
        UserError: the values are not a recipe.
    """
    if not isinstance(plain, dict):
        raise UserError(f"recipe {name} holds no keys: start from recipes/demo.yaml")
    try:
        return Recipe.model_validate(plain)
    except ValidationError as error:
        raise UserError(f"recipe {name}: {explain(error, Recipe)}") from error


def read_yaml(stored: bytes, loader: Any = None) -> Any:
    """Parse YAML and return plain values.

    Args:
        stored: the bytes of the file.
        loader: a loader class; if it is None, libyaml is used if available, which takes a fifth of the time.

    Raises:
        ValueError: the bytes are not YAML. The message contains the position and the cause.
    """
    import yaml

    try:
        return yaml.load(stored, Loader=loader or getattr(yaml, "CSafeLoader", yaml.SafeLoader))
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        place = "" if mark is None else f"line {mark.line + 1}, column {mark.column + 1} "
        raise ValueError(f"{place}({error.problem})") from error
    except (yaml.YAMLError, ValueError, IndexError, AttributeError, RecursionError) as error:  # `!!int ""`, `[[[[…`
        raise ValueError(" ".join(str(error).split())) from error


def load_run_recipe(folder: Path) -> Recipe:
    """Return the recipe that a run wrote into its folder, after making the user's own modules importable.

    Raises:
        UserError: the recipe cannot be read.
    """
    path = fetch(folder, RECIPE_FILE)
    add_user_code_path(folder)
    try:
        return parse_recipe(read_yaml(path.read_bytes()), str(path))
    except (OSError, ValueError) as error:
        raise UserError(f"{path} cannot be read: the corpus must keep the recipe that the run wrote") from error


def add_user_code_path(corpus: Path) -> None:
    """Append the `code` folder of a corpus to `sys.path`, so that its copies of the user's modules can be imported."""
    folder = str(corpus / CODE)
    if folder not in sys.path and fetch_files(corpus, CODE):
        sys.path.append(folder)


def _make_loader() -> type["yaml.SafeLoader"]:
    """Return a YAML loader class that rejects duplicate keys. PyYAML would silently use the last value."""
    import yaml

    class UniqueKeys(yaml.SafeLoader):
        def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
            keys = [key.value for key, _ in node.value]
            for key in keys:
                if keys.count(key) > 1:
                    problem = f"key {key!r} is given twice"
                    raise yaml.constructor.ConstructorError(problem=problem, problem_mark=node.start_mark)
            return super().construct_mapping(node, deep)

    return UniqueKeys
