"""Check the recipe, the models and the inputs before a run begins, and return the inputs."""

import importlib.util
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TextIO

from filters.errors import UserError
from filters.rule_list import load_class, name_of
from manifests.files import write_atomic
from manifests.mirror import mirror_of
from manifests.recipe import CODE, Recipe
from pipeline.beam.quarantine import Place
from pipeline.dedup.signatures import Split, earlier_splits
from pipeline.sources import inputs as inputs_module
from pipeline.sources.base import check_readable
from pipeline.sources.inputs import Input
from pipeline.stages.filter import PASSES, order_of_passes
from pipeline.stages.models import hash_models, map_model_paths
from pipeline.stages.split_offsets import is_cut
from pipeline.stages.tokenizer import check as check_tokenizer

LONGEST_NAME = 255  # Bytes of a file name (NAME_MAX of Linux).


@dataclass(frozen=True)
class RunInputs:
    """The inputs of a run.

    Attributes:
        dumps: Dumps of all sources.
        models: Hashes of the models and lists that the recipe gives by path, by `SOURCE.RULE.USE`.
        training: Files that models are trained on: stage -> `SOURCE/USE` -> files.
        earlier: Splits of the earlier corpora with which documents are compared.
        unreadable: Inputs that could not be opened and were skipped, as `SOURCE/NAME`.
        quarantine: Places of records that readers drop without reading them.
    """

    dumps: list[Input]
    models: dict[str, str]
    training: dict[str, dict[str, list[Input]]]
    earlier: list[Split]
    unreadable: list[str]
    quarantine: frozenset[Place] = frozenset()


def preflight(recipe: Recipe, corpus: Path, skip_unreadable: bool = False, terminal: TextIO | None = None) -> RunInputs:
    """Check the readers, models and inputs of a recipe, and return the inputs. Inputs at URLs are downloaded.

    Args:
        recipe: Recipe with absolute paths.
        corpus: Output folder.
        skip_unreadable: True to skip inputs that cannot be opened, instead of raising an error.
        terminal: Stream for the progress of downloads; None for no output.

    Raises:
        UserError: The recipe or an input cannot be used. The message is one sentence.
    """
    used = {name: source for name, source in recipe.sources.items() if source.inputs}
    for name, source in used.items():
        check_readable(name, source)
    if not used:
        names = " or ".join(f"--input {name}=GLOB" for name in recipe.sources)
        raise UserError(f"the recipe has no inputs: give them under sources, or as {names}")
    order_of_passes(recipe)
    hashes = hash_models(recipe)
    check_tokenizer(recipe)
    unreadable: list[str] = []

    def resolve(name: str, patterns: list[str]) -> list[Input]:
        found = inputs_module.resolve(name, patterns, corpus, terminal)
        for item in found:
            _refuse_own(corpus, item)
        broken = [item for item in found if item.problem]
        if broken and not skip_unreadable:
            others = f"; {len(broken) - 1} others cannot be read either" if len(broken) > 1 else ""
            raise UserError(
                f"source {name}: {broken[0].path} cannot be read ({broken[0].problem}){others}: check the disk, mount "
                "or permissions and run again, or give --skip-unreadable to leave them out"
            )
        unreadable.extend(f"{item.source}/{item.name}" for item in broken)
        return [item for item in found if not item.problem]

    dumps: list[Input] = []
    unmatched: list[inputs_module.NoMatchError] = []
    for name, source in used.items():
        try:
            dumps += resolve(name, source.inputs)
        except inputs_module.NoMatchError as error:
            unmatched.append(error)
    if len(unmatched) > 1:
        named = ", ".join(f"{one.source} {one.pattern!r}" for one in unmatched)
        raise UserError(f"no file matches the inputs of {named}: check the paths, or use --only or --without")
    if unmatched:
        raise unmatched[0]
    for item in dumps:
        _check_length(recipe, item)
    training: dict[str, dict[str, list[Input]]] = {stage: {} for stage in PASSES}
    for name, source in used.items():
        for rule in source.filters:
            for use, patterns in rule.training_inputs().items():
                training[rule.needs][f"{name}/{use}"] = resolve(f"{name}.{name_of(rule)}.{use}", patterns)
    return RunInputs(dumps, hashes, training, earlier_splits(recipe), unreadable)


def _refuse_own(corpus: Path, item: Input) -> None:
    """Raise UserError if an input is in the output folder, for example because a glob covers the output folder."""
    mirror = mirror_of(corpus)
    for root in (str(corpus), *((mirror.storage.url,) if mirror is not None else ())):
        if item.path.startswith(f"{root}/") and not item.path.startswith(f"{root}/{inputs_module.DOWNLOADED}/"):
            raise UserError(
                f"source {item.source}: {item.path} lies in the output folder: give another --output, or a glob that "
                "leaves it out"
            )


def _check_length(recipe: Recipe, item: Input) -> None:
    """Raise UserError if the name of an input is too long. Files of the corpus are named after it, with a suffix."""
    most = LONGEST_NAME - len("@000000000000000.parquet" if is_cut(recipe, item) else ".parquet")
    if len(PurePosixPath(item.name).name.encode()) > most:
        raise UserError(
            f"source {item.source}: the name of {item.name!r} has more than {most} bytes, so no file of the corpus can "
            "be named after it: rename it or leave it out"
        )


def with_absolute_paths(recipe: Recipe) -> Recipe:
    """Return a copy of the recipe in which all paths are absolute, so that workers can run in any folder."""
    inputs = {name: list(map(_absolute, source.inputs)) for name, source in recipe.sources.items()}
    against = list(map(_absolute, recipe.deduplication.against))
    deduplication = recipe.deduplication.model_copy(update={"against": against})
    recipe = map_model_paths(recipe.with_inputs(inputs), _absolute)
    return recipe.model_copy(update={"deduplication": deduplication})


def _absolute(path: str) -> str:
    return path if "://" in path else str(inputs_module.expand_user(path).absolute())


def keep_user_code(recipe: Recipe, corpus: Path) -> None:
    """Copy the Python modules of a user's own rules and readers into the corpus.

    Workers on other machines and later commands import them from there. If a class is in a package, all Python files of
    the package are copied.
    """
    classes: list[type] = []
    for source in recipe.sources.values():
        classes += [type(rule) for rule in source.filters if ":" in name_of(rule)]
        classes += [load_class(source.kind, "kind")] if source.kind is not None and ":" in source.kind else []
    for name in sorted({one.__module__.partition(".")[0] for one in classes}):
        spec = importlib.util.find_spec(name)
        assert spec is not None and spec.origin is not None, "the recipe was checked"
        place = Path(spec.origin)
        package = place.name == "__init__.py"
        root = place.parent.parent if package else place.parent
        for path in sorted(place.parent.rglob("*.py")) if package else [place]:
            target, data = corpus / CODE / path.relative_to(root), path.read_bytes()
            if target.resolve() != path.resolve() and not (target.is_file() and target.read_bytes() == data):
                write_atomic(target, data)
