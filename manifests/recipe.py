"""The recipe: everything a corpus is made by, in one YAML file. Thresholds live here, next to where they come from.

Every key has a default but `name`, `seed`, `goal_tokens`, `sources` and each source's `weight`. A wrong key, type or
range is refused before any work starts, in a sentence that names the key, the value and what is allowed.
"""

import difflib
from collections.abc import Hashable, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Self, get_args

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from manifests.errors import UserError
from manifests.files import sha256_json

SourceKind = Literal["common_crawl", "c4", "github", "wikipedia", "books", "arxiv", "stackexchange"]
TrainerPreset = Literal["demo", "125m", "350m", "1b3", "7b", "13b", "33b", "65b"]

Share = Annotated[float, Field(ge=0, le=1)]
Count = Annotated[int, Field(ge=0)]
Positive = Annotated[int, Field(ge=1)]


class Strict(BaseModel):
    """A part of the recipe: unknown keys and wrong types are errors, nothing is coerced, nothing changes later."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class Limits(Strict):
    """Caps on hostile input, in sizes and never in seconds, so that results do not depend on the machine."""

    record_bytes: Positive = 32 << 20
    """decoded bytes of one record: headers and body"""
    stored_bytes: Positive = 32 << 20
    """stored bytes of a gzip member that holds one record"""
    html_depth: Positive = 2_000
    """nested elements in a page"""
    text_characters: Positive = 20_000_000
    """characters of one document"""


class Language(Strict):
    """fastText language identification (LLaMA section 2.1; CCNet keeps a top-1 score of 0.5)."""

    keep: list[str] = Field(default=["en"], min_length=1)
    threshold: Share = 0.5
    characters: Count = 2_000
    """how much of a document the model sees, from its start; 0 = all of it"""
    model: str | None = None
    """path of a fastText model; none = lid.176.ftz as packaged"""


class C4(Strict):
    """The page rules of C4 (Raffel et al. 2020, section 2.2, with the reference implementation's numbers)."""

    min_words_per_line: Count = 5
    min_sentences: Count = 3
    max_page_characters: Positive = 190_000
    max_word_characters: Positive = 1_000
    bad_words: str | None = None
    """path of a list, one word a line"""


class Lines(Strict):
    """Paragraph de-duplication (CCNet, Wenzek et al. 2020, section 3.1): lines seen more than once within the scope go.

    `scope`: `files` groups of that many `files`, drawn by keyed hash of their names (CCNet's 50 of a dump's 1,600);
    `dump` one crawl; `all` the whole source. `keep`: `none` removes every copy, as CCNet does; `first` leaves the one
    in the document of the smallest id."""

    scope: Literal["files", "dump", "all"] = "dump"
    files: Positive = 50
    keep: Literal["none", "first"] = "none"


class LanguageModelText(Strict):
    """What a language model is trained on, and how (CCNet: SentencePiece unigram of 65,536 pieces, 5-gram modified
    Kneser-Ney)."""

    text: list[str] = Field(min_length=1)
    """paths and globs of Wikipedia dumps (.xml, .xml.bz2) or plain text, gzipped or not"""
    estimator: Literal["own", "lmplz"] = "own"
    """`lmplz` is kenlm's program, built by `make lmplz`"""
    order: Annotated[int, Field(ge=2, le=6)] = 5
    vocabulary: Annotated[int, Field(ge=300, le=1 << 20)] = 65_536
    character_coverage: Annotated[float, Field(gt=0.9, le=1)] = 0.9995
    max_bytes: Positive = 500_000_000
    """UTF-8 bytes of normalised text that are used, drawn by keyed hash of the article; `own` needs some 25 bytes of
    memory for each"""


class Perplexity(Strict):
    """How like Wikipedia a page reads (CCNet, section 3.3): head, middle and tail by perplexity."""

    models: str | None = None
    """folder of LANGUAGE.sp.model with LANGUAGE.arpa.bin or .arpa, as CCNet publishes them"""
    train: dict[str, LanguageModelText] = {}
    """languages whose models this run trains"""
    cutoffs: str | None = None
    """CCNet's cutoff.csv; none = the percentiles of this crawl, by language"""
    head: Annotated[int, Field(ge=1, le=99)] = 30
    tail: Annotated[int, Field(ge=1, le=99)] = 60
    """percentiles: below `head` is head, from `tail` on is tail"""
    keep: list[Literal["head", "middle", "tail", "all"]] = Field(default=["head", "middle"], min_length=1)
    """`all`: languages without a model"""
    unit: Literal["line", "document"] = "line"
    """what the model takes for one sentence; `document` is what CCNet's cut-offs were made with"""

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if (self.models is None) == (not self.train):
            raise ValueError("give either models (a folder) or train (texts by language), and not both")
        if self.head > self.tail:
            raise ValueError(f"head ({self.head}) lies above tail ({self.tail})")
        return self


class References(Strict):
    """How like the pages that Wikipedia cites a page is (LLaMA section 2.1: a linear model)."""

    threshold: Share = 0.5
    """the paper: "discarded pages not classified as references"; RedPajama takes 0.25"""
    model: str | None = None
    """a fastText model with the labels __label__wiki and __label__cc"""
    wiki: list[str] = []
    """Wikipedia dumps whose references are the positives to train on"""
    min_positives: Positive = 1_000
    """fewer cited pages in the crawl than this is an error"""
    min_characters: Count = 1_000
    """of a positive (RedPajama's floor); negatives are drawn to the same lengths"""
    max_pages: Positive = 300_000
    """positives at most, chosen by keyed hash"""
    dimension: Positive = 100
    epochs: Positive = 5
    learning_rate: Annotated[float, Field(gt=0)] = 0.5
    """RedPajama left fastText's 0.1, with which a few hundred pages leave all scores at a half"""
    held_out: Annotated[float, Field(gt=0, lt=1)] = 0.2
    """share of the pages, by domain, that the card is measured on"""

    @model_validator(mode="after")
    def _one_model(self) -> Self:
        if (self.model is None) == (not self.wiki):
            raise ValueError("give either model (a fastText model) or wiki (dumps to train on), and not both")
        return self


class Containment(Strict):
    """Documents that are almost whole in another go (LLaMA section 2.1: books with more than 90 % content overlap),
    which MinHash cannot tell where their lengths differ."""

    threshold: Annotated[float, Field(gt=0, le=1)] = 0.9
    ngram: Positive = 5
    """words a shingle: a changed word takes so many away"""
    scale: Positive = 64
    """one shingle hash in so many is compared at first: 1,500 of a book of 100,000 words"""


class Source(Strict):
    """One source of the mixture. `kind` says how it is read; by default it is the source's own name."""

    weight: Annotated[float, Field(gt=0)]
    max_epochs: Annotated[float, Field(gt=0)] = 4.0
    kind: SourceKind | None = None
    inputs: list[str] = []
    """paths, globs (`**` = any depth) and http(s) URLs"""
    licence: str = ""
    min_characters: Count = 1
    """documents with less text are dropped (CCNet: 300)"""
    http_status: list[int] = [200]
    extractor: Literal["main", "resiliparse", "all", "wet"] = "main"
    """how HTML becomes text: `main` our main content, `resiliparse` its own, `all` every visible text; `wet` reads none
    and takes only the text records of WET files, which the others take as well"""
    blocklists: list[str] = []
    """paths of lists of domains and URLs, one a line, gzipped or not"""
    limits: Limits = Limits()
    lines: Lines | None = None
    language: Language | None = None
    perplexity: Perplexity | None = None
    references: References | None = None
    c4: C4 | None = None
    containment: Containment | None = None


class MinHash(Strict):
    """Near-duplicates: word n-grams, datasketch's scheme, bands x rows permutations. The defaults are FineWeb's
    (14 x 8, 5-grams): half of the pairs at similarity 0.68 become candidates."""

    ngram: Positive = 5
    bands: Positive = 14
    rows: Positive = 8
    seed: Count = 1
    threshold: Share = 0.7
    """a candidate counts only if its similarity reaches this"""
    verify: Literal["signatures", "exact"] = "signatures"
    """how it is measured: estimated from signatures, or of the shingles themselves, for which texts are read again"""
    rounds: Positive = 8
    """how often rejected members of a bucket are compared among themselves"""
    bucket: Positive = 1_000_000
    """documents of one bucket that are held at once; the members of a larger one are compared in such parts, each with
    the bucket's first"""


class Deduplication(Strict):
    """What counts as a duplicate, and which copy stays: `survivor` is a total order, ended by the smallest id."""

    exact: bool = True
    minhash: MinHash | None = MinHash()
    scope: Literal["dump", "source", "all"] = "all"
    """within what duplicates are looked for: one crawl of a source, a source, everything"""
    against: list[str] = []
    """earlier corpora: what they hold stays, and what is also in them is removed here, without reading their text"""
    canaries: Count = 500
    """documents that are copied with edits, to measure what is found; beside the corpus, which does not depend on it"""
    one_worker: Positive = 200_000_000
    """edges up to which clusters are joined on one worker; more are joined in rounds of jobs"""
    survivor: list[Literal["source", "longest", "newest", "oldest", "dump", "score"]] = ["source", "longest", "newest"]
    """`dump`: of the crawl whose name comes first; `score`: most like Wikipedia's references"""
    source_priority: list[str] = []
    """for `source`: earlier ones win, unnamed ones come last"""


class Tokenizer(Strict):
    """SentencePiece BPE as LLaMA's: digits split, byte fallback, no text normalisation (section 2.1)."""

    path: str | None = None
    """a finished tokenizer.model to use instead of training one"""
    vocabulary: Annotated[int, Field(ge=300, le=1 << 20)] = 32_000
    sample_bytes: Positive = 2_000_000_000
    """UTF-8 bytes of text to train on, shared out by the sources' weights"""
    character_coverage: Annotated[float, Field(gt=0.9, le=1)] = 0.99995
    threads: Positive = 1
    """training threads: part of the recipe, so that the model does not depend on the machine"""


class Shards(Strict):
    """Token shards: about `tokens` tokens each; `validation` = share of duplicate clusters held out."""

    tokens: Positive = 1 << 28
    validation: Share = 0.001


class Trainer(Strict):
    """What the corpus is meant to train."""

    model: TrainerPreset = "7b"


PATHS = {
    "language": ("model",),
    "c4": ("bad_words",),
    "perplexity": ("models", "cutoffs"),
    "references": ("model", "wiki"),
}
"""keys of a source that hold paths: what lies there counts by its hash, never by its place"""


class Recipe(Strict):
    """The whole recipe. `goal_tokens`: how many tokens the mixture is to be trained on."""

    name: Annotated[str, Field(min_length=1)]
    seed: Count
    goal_tokens: Positive
    split_bytes: Positive = 1 << 28
    """larger dumps are read in pieces of about so many stored bytes"""
    sources: dict[Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]*$")], Source] = Field(min_length=1)
    deduplication: Deduplication = Deduplication()
    tokenizer: Tokenizer = Tokenizer()
    shards: Shards = Shards()
    trainer: Trainer = Trainer()

    @field_validator("sources")
    @classmethod
    def _kinds(cls, sources: dict[str, Source]) -> dict[str, Source]:
        kinds = get_args(SourceKind)
        for name, source in sources.items():
            if source.kind is None and name not in kinds:
                raise ValueError(f"source {name!r} needs a kind: one of {', '.join(kinds)}")
        return {
            name: source if source.kind else source.model_copy(update={"kind": name})
            for name, source in sorted(sources.items())
        }

    @model_validator(mode="after")
    def _known_priority(self) -> Self:
        unknown = sorted(set(self.deduplication.source_priority) - set(self.sources))
        if unknown:
            raise ValueError(f"deduplication.source_priority names {unknown[0]!r}, which is not one of the sources")
        return self

    def with_inputs(self, inputs: Mapping[str, list[str]]) -> "Recipe":
        """The recipe with the inputs of the named sources replaced. Raises UserError for an unknown source."""
        for name in inputs:
            if name not in self.sources:
                raise UserError(f"--input {name}=…: the recipe has no source {name!r}, only {_listed(self.sources)}")
        sources = {
            name: source.model_copy(update={"inputs": inputs.get(name, source.inputs)})
            for name, source in self.sources.items()
        }
        return self.model_copy(update={"sources": sources})

    def canonical(self, input_names: Mapping[str, list[str]]) -> dict[str, Any]:
        """The recipe as the manifest holds it: defaults filled in, inputs as sorted names, models without paths (they
        are named by hash). Equal for equal corpora, wherever the dumps and models lay."""
        plain = self.model_dump()
        for name, source in plain["sources"].items():
            source["inputs"] = sorted(input_names.get(name, []))
            source["blocklists"] = []
            for part, keys in PATHS.items():
                for key in keys if source[part] is not None else ():
                    source[part][key] = None
            for rules in (source["perplexity"] or {"train": {}})["train"].values():
                rules["text"] = None
        plain["tokenizer"]["path"] = None
        plain["deduplication"] |= {"against": [], "canaries": 0}
        return plain

    def sha(self, input_names: Mapping[str, list[str]]) -> str:
        """SHA-256 of the canonical recipe."""
        return sha256_json(self.canonical(input_names))


def load_recipe(path: Path) -> Recipe:
    """Read and check a recipe. Raises UserError with one sentence for whatever is wrong with it."""
    try:
        plain = yaml.load(path.read_bytes(), Loader=_UniqueKeys)
    except OSError as error:
        raise UserError(f"recipe {path} cannot be read ({error.strerror}): check the path") from error
    except (yaml.YAMLError, UnicodeDecodeError, ValueError) as error:
        raise UserError(f"recipe {path} is not YAML: {_one_line(str(error))}") from error
    return parse_recipe(plain, str(path))


def parse_recipe(plain: Any, name: str) -> Recipe:
    """A recipe from plain values; `name` stands in the messages. Raises UserError."""
    if not isinstance(plain, dict):
        raise UserError(f"recipe {name} holds no keys: start from recipes/demo.yaml")
    try:
        return Recipe.model_validate(plain)
    except ValidationError as error:
        # a mistyped key comes first: it explains the key that is missing
        found = sorted(error.errors(), key=lambda one: one["type"] != "extra_forbidden")
        raise UserError(f"recipe {name}: {_explain(found[0])}") from error


class _UniqueKeys(yaml.SafeLoader):
    """YAML that refuses a key given twice, where YAML itself would silently keep the last."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        keys = [key.value for key, _ in node.value]
        for key in keys:
            if keys.count(key) > 1:
                raise yaml.YAMLError(f"key {key!r} is given twice{node.start_mark}")
        return super().construct_mapping(node, deep)


def _explain(error: Any) -> str:
    """One pydantic error as: key, value, what is allowed."""
    path = [str(part) for part in error["loc"] if part != "[key]"]
    key = ".".join(path) or "recipe"
    if error["type"] == "extra_forbidden":
        allowed = _allowed_keys(path[:-1])
        close = difflib.get_close_matches(path[-1], allowed, n=1)
        hint = f"did you mean {close[0]!r}? " if close else ""
        return f"key {key} (value {error['input']!r}) is not known: {hint}allowed here: {', '.join(allowed)}"
    if error["type"] == "missing":
        return f"key {key} is missing: {_field_help(path)}"
    message = str(error["msg"]).removeprefix("Value error, ").replace("Input should", "should")
    return f"key {key} = {_short(error['input'])}: {message}"


def _model_at(path: list[str]) -> type[BaseModel]:
    """The part of the recipe's schema at a key path."""
    model: type[BaseModel] = Recipe
    for part in path:
        field = model.model_fields.get(part)
        candidates = [field.annotation, *get_args(field.annotation)] if field else [Source]
        model = next((c for c in candidates if isinstance(c, type) and issubclass(c, BaseModel)), model)
    return model


def _allowed_keys(path: list[str]) -> list[str]:
    return list(_model_at(path).model_fields)


def _field_help(path: list[str]) -> str:
    field = _model_at(path[:-1]).model_fields.get(path[-1])
    kind = getattr(field.annotation, "__name__", str(field.annotation)) if field else "a value"
    return f"give a value ({kind})"


def _listed(names: Mapping[str, Any]) -> str:
    return ", ".join(sorted(names))


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."


def _one_line(text: str) -> str:
    return " ".join(text.split())
