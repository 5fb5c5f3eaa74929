"""The inputs of a run, and everything that can be wrong before it begins."""

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

LONGEST_NAME = 255  # bytes of a file's name (Linux, NAME_MAX)


@dataclass(frozen=True)
class RunInputs:
    """The inputs of a run.

    Attributes:
        dumps: of all sources.
        models: hashes of the models and lists that the recipe gives by path, by source and use.
        training: files that a stage trains on for a source's rule, by stage and then by `SOURCE/USE`.
        earlier: the splits of earlier corpora to compare with.
        unreadable: inputs that could not be opened and were skipped, as `SOURCE/NAME`.
        quarantine: records that readers drop unread.
    """

    dumps: list[Input]
    models: dict[str, str]
    training: dict[str, dict[str, list[Input]]]
    earlier: list[Split]
    unreadable: list[str]
    quarantine: frozenset[Place] = frozenset()


def preflight(recipe: Recipe, corpus: Path, skip_unreadable: bool = False, terminal: TextIO | None = None) -> RunInputs:
    """Check readers, models and the inputs.

    Args:
        recipe: with absolute paths.
        corpus: the output folder.
        skip_unreadable: skip inputs that cannot be opened, instead of refusing them.
        terminal: receives the progress of downloads; None for no output.

    Raises:
        UserError: something is wrong, in one sentence.
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
            others = f", nor can {len(broken) - 1} others" if len(broken) > 1 else ""
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
    """Raise UserError for an input that the run itself writes, as where the output folder lies below a glob."""
    mirror = mirror_of(corpus)
    for root in (str(corpus), *((mirror.storage.url,) if mirror is not None else ())):
        if item.path.startswith(f"{root}/") and not item.path.startswith(f"{root}/{inputs_module.DOWNLOADED}/"):
            raise UserError(
                f"source {item.source}: {item.path} lies in the output folder: give another --output, or a glob that "
                "leaves it out"
            )


def _check_length(recipe: Recipe, item: Input) -> None:
    """Raise UserError for an input of which no file of the corpus can have the name, as each of its splits does."""
    most = LONGEST_NAME - len("@000000000000000.parquet" if is_cut(recipe, item) else ".parquet")
    if len(PurePosixPath(item.name).name.encode()) > most:
        raise UserError(
            f"source {item.source}: the name of {item.name!r} has more than {most} bytes, so no file of the corpus can "
            "be named after it: rename it or leave it out"
        )


def with_absolute_paths(recipe: Recipe) -> Recipe:
    """Return the recipe with all paths absolute, so that workers may run in any folder."""
    inputs = {name: list(map(_absolute, source.inputs)) for name, source in recipe.sources.items()}
    against = list(map(_absolute, recipe.deduplication.against))
    deduplication = recipe.deduplication.model_copy(update={"against": against})
    recipe = map_model_paths(recipe.with_inputs(inputs), _absolute)
    return recipe.model_copy(update={"deduplication": deduplication})


def _absolute(path: str) -> str:
    return path if "://" in path else str(inputs_module.expand_user(path).absolute())


def keep_user_code(recipe: Recipe, corpus: Path) -> None:
    """Copy the modules of a user's own classes into the corpus, for workers elsewhere and for later commands.

    Of a class in a package, all Python files of the package are copied.
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
