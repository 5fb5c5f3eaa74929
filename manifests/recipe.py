"""The recipe: all settings of a corpus, in one YAML file.

Every key has a default but `name`, `seed`, `goal_tokens`, `sources` and each source's `weight`. A wrong key, type or
range is refused before any work starts, in a sentence that names the key, the value and what is allowed.

A corpus keeps the recipe of its run, and the modules of the user's own rules and readers that it names.
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

RECIPE_FILE = "recipe.yaml"  # the recipe as the run was given it, with absolute paths
CODE = "code"  # copies of the modules that hold a user's own rules and readers


def _check_name(name: str) -> str:
    if not re.fullmatch("[a-z][a-z0-9_]*", name):
        raise ValueError("should be lower-case letters, digits and underscores, with a letter first")
    return name


SourceName = Annotated[str, AfterValidator(_check_name)]


class Tokenizer(Strict):
    """SentencePiece BPE as LLaMA's: digits split, byte fallback, no text normalisation (section 2.1)."""

    path: str | None = None  # a finished tokenizer.model to use instead of training one
    vocabulary: Annotated[int, Field(ge=300, le=1 << 20)] = 32_000
    sample_bytes: Positive = 2_000_000_000  # UTF-8 bytes of text to train on, shared out by the sources' weights
    character_coverage: Annotated[float, Field(gt=0.9, le=1)] = 0.99995
    threads: Positive = 1  # of training: part of the recipe, so that the model does not depend on the machine


class Shards(Strict):
    """Token shards of about `tokens` tokens each; `validation` is the share of duplicate clusters held out."""

    tokens: Positive = 1 << 28
    validation: Share = 0.001


class Trainer(Strict):
    """The model that the corpus is meant for."""

    model: str = "7b"  # a name of `PRESETS`

    @field_validator("model")
    @classmethod
    def _is_known(cls, model: str) -> str:
        if model not in PRESETS:
            raise ValueError(f"should be one of {', '.join(PRESETS)}")
        return model


class Recipe(Strict):
    """The whole recipe. `goal_tokens`: tokens that the mixture is to be trained on."""

    name: Annotated[str, Field(min_length=1)]
    seed: Count
    goal_tokens: Positive
    split_bytes: Positive = 1 << 28  # larger dumps are read in splits of about this many stored bytes
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
        """Return the settings under which a source's documents are compared; the recipe's for one that it has not."""
        own = self.sources[source].deduplication if source in self.sources else None
        return (own or Comparison()).complete(self.deduplication)

    def with_sources(self, only: Collection[str] = (), without: Collection[str] = ()) -> "Recipe":
        """Return the recipe of some of its sources.

        Args:
            only: names of the sources that stay; all if it is empty.
            without: names of sources to leave out.

        Raises:
            UserError: both are given, a name is not a source's, or no source is left.
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
        """Return the recipe as the manifest holds it, equal for equal corpora wherever the dumps and models were.

        Defaults are filled in, inputs are sorted names, and models, which are named by hash, have no paths.
        """
        plain = self.filled_in()
        for name, source in plain["sources"].items():
            source["inputs"] = sorted(input_names.get(name, []))
            source["filters"] = [{name_of(rule): rule.key()} for rule in self.sources[name].filters]
        plain["tokenizer"]["path"] = None
        plain["deduplication"] |= {"against": [], "canaries": 0}
        return plain

    def filled_in(self) -> dict[str, Any]:
        """Return plain values with defaults filled in, without a source's `deduplication` if it equals the recipe's."""
        plain, default = self.model_dump(), Comparison().complete(self.deduplication).model_dump()
        for name, source in plain["sources"].items():
            own = self.comparison_of(name).model_dump()
            source["deduplication"] = own if own != default else None
        return plain

    def as_yaml(self) -> bytes:
        """Return `recipe.yaml` as a run writes it: defaults filled in, paths included."""
        import yaml

        return yaml.safe_dump(self.filled_in(), sort_keys=False).encode()

    def sha(self, input_names: Mapping[str, list[str]]) -> str:
        """Return the SHA-256 of the canonical recipe."""
        return sha256_json(self.canonical(input_names))


def load_recipe(path: Path) -> Recipe:
    """Read and check a recipe. Raises UserError with one sentence about the first mistake."""
    try:
        plain = read_yaml(path.read_bytes(), _make_loader())
    except OSError as error:
        raise UserError(f"recipe {path} cannot be read ({error.strerror}): check the path") from error
    except ValueError as error:
        raise UserError(f"recipe {path} is not YAML, {error}: correct it there") from error
    return parse_recipe(plain, str(path))


def parse_recipe(plain: Any, name: str) -> Recipe:
    """Check plain values and return the recipe; `name` is used in error messages. Raises UserError."""
    if not isinstance(plain, dict):
        raise UserError(f"recipe {name} holds no keys: start from recipes/demo.yaml")
    try:
        return Recipe.model_validate(plain)
    except ValidationError as error:
        raise UserError(f"recipe {name}: {explain(error, Recipe)}") from error


def read_yaml(stored: bytes, loader: Any = None) -> Any:
    """Return plain values; without a loader by libyaml, in a fifth of the time, where it is there.

    Raises:
        ValueError: it is not YAML; it says where, and why.
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
    """Return the recipe that a run wrote into its folder, and let imports find the user's modules. Raises UserError."""
    path = fetch(folder, RECIPE_FILE)
    find_user_code(folder)
    try:
        return parse_recipe(read_yaml(path.read_bytes()), str(path))
    except (OSError, ValueError) as error:
        raise UserError(f"{path} cannot be read: the corpus must keep the recipe that the run wrote") from error


def find_user_code(corpus: Path) -> None:
    """Let imports find the modules of a user's own rules and readers that a corpus keeps, after all others."""
    folder = str(corpus / CODE)
    if folder not in sys.path and fetch_files(corpus, CODE):
        sys.path.append(folder)


def _make_loader() -> type["yaml.SafeLoader"]:
    """Return a YAML loader that refuses a key given twice, where YAML itself would silently keep the last."""
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
