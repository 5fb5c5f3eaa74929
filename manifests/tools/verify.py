"""`verify`: whether a corpus is what its manifest says, to the byte. Every finding names the file."""

import concurrent.futures
import json
import multiprocessing
from collections import Counter
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import sentencepiece
import yaml

from filters.errors import UserError
from filters.reasons import Reason
from manifests.cores import usable_cores
from manifests.files import canonical_json, relative_files, sha256_json
from manifests.index import FOLDER
from manifests.ledger import imbalances, tally_from
from manifests.manifest import FILE, HISTORY, SHA_FILE, Manifest, is_unfinished, load_manifest
from manifests.recipe import Recipe, parse_recipe
from manifests.shard import token_dtype
from manifests.tools import check_index
from manifests.tools.check_shard import Checked, Sum, check_shard, sha256_mapped

LEDGER, RECIPE, TOKENIZER = "ledger.json", "recipe.yaml", "models/tokenizer.model"
LARGE_BYTES = 1 << 30
"""of shards and index, from which the work goes to processes: what is asked of documents holds Python's lock, hashing
does not; below it the processes take longer to start"""


def verify(corpus: Path, fast: bool = False, progress: Callable[[int], None] = lambda size: None) -> list[str]:
    """What is wrong with a corpus, one sentence each; empty when nothing is. `fast` leaves out the hashes of shards and
    index, most of the documents, the token ids and whether the index fits the shards. `progress` is told the bytes of
    each file that is done. Raises UserError where there is no manifest to check against."""
    manifest = load_manifest(corpus)
    problems = [*_manifest(corpus, manifest), *_recipe(corpus, manifest)]
    problems += _guarded(f"{FILE}: its ledger is none", lambda: _ledger(corpus, manifest))
    problems += _guarded(f"{FILE}: its ledger is none", lambda: _descent(corpus, manifest))
    problems += [*_extras(corpus, manifest), *check_index.check_names(manifest), *_tokenizer(corpus, manifest)]
    entries, recipes = manifest.shards(), manifest.recipe_shas()
    known = {entry.path for entry in entries}
    work: list[tuple[int, Callable[[], Checked]]] = [
        *((0, partial(_model, corpus, *model)) for model in _models(manifest)),
        *((entry.bytes, partial(check_shard, corpus, manifest, recipes, entry, fast)) for entry in entries),
        *((entry.bytes, partial(check_index.check_part, corpus, known, entry, fast)) for entry in manifest.index),
    ]
    done = _in_parallel(work, progress)
    problems += [problem for checked in done for problem in checked.problems]
    if manifest.index and not fast and not any(checked.problems for checked in done):
        shards, parts = done[-len(entries) - len(manifest.index) : -len(manifest.index)], done[-len(manifest.index) :]
        wanted: dict[tuple[str, str], Sum] = {}
        for checked in shards:
            wanted |= checked.sums
        problems += check_index.compare(corpus, manifest, wanted, parts)
    return problems


def checked_bytes(manifest: Manifest) -> int:
    """The bytes of all that `progress` is told of."""
    return sum(entry.bytes for entry in manifest.shards()) + sum(entry.bytes for entry in manifest.index)


def _in_parallel(work: list[tuple[int, Callable[[], Checked]]], progress: Callable[[int], None]) -> list[Checked]:
    """The results of all calls, in order; the largest begin first."""
    large = sum(size for size, _ in work) >= LARGE_BYTES
    workers = usable_cores()
    pool: concurrent.futures.Executor
    if large:
        pool = concurrent.futures.ProcessPoolExecutor(workers, multiprocessing.get_context("spawn"))
    else:
        pool = concurrent.futures.ThreadPoolExecutor(workers)
    with pool:
        order = sorted(range(len(work)), key=lambda number: -work[number][0])
        futures = {pool.submit(work[number][1]): number for number in order}
        results = [Checked()] * len(work)
        for future in concurrent.futures.as_completed(futures):
            number = futures[future]
            results[number] = future.result()
            progress(work[number][0])
    return results


def _guarded(sentence: str, check: Callable[[], list[str]]) -> list[str]:
    """A check of plain values that may be of any shape."""
    try:
        return check()
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        return [f"{sentence} ({type(error).__name__}: {error})"]


def _manifest(corpus: Path, manifest: Manifest) -> list[str]:
    problems = []
    if (corpus / FILE).read_bytes() != canonical_json(manifest.model_dump()):
        problems.append(f"{FILE}: not the canonical bytes of what it says")
    if manifest.manifest_sha != manifest.sha():
        problems.append(f"{FILE}: its manifest_sha does not match its content")
    beside = corpus / SHA_FILE
    if not beside.is_file():
        problems.append(f"{SHA_FILE}: missing")
    elif beside.read_bytes() != f"{manifest.manifest_sha}\n".encode():
        problems.append(f"{SHA_FILE}: another hash than {FILE} holds")
    paths = Counter([*(entry.path for entry in manifest.shards()), *(entry.path for entry in manifest.index)])
    problems += [f"{FILE}: {path} stands in it twice" for path, times in sorted(paths.items()) if times > 1]
    return problems


def _recipe(corpus: Path, manifest: Manifest) -> list[str]:
    """The recipe in the manifest against its hash and the manifest's own numbers, and `recipe.yaml` against both. Where
    dumps and models lay is in neither."""
    problems = []
    if sha256_json(manifest.recipe) != manifest.recipe_sha:
        problems.append(f"{FILE}: its recipe_sha does not match its recipe")
    for generation in manifest.generations:
        if sha256_json(generation.recipe) != generation.recipe_sha:
            problems.append(f"{FILE}: the recipe_sha of generation {generation.number} does not match its recipe")
    problems += _guarded(f"{FILE}: its recipe is none", lambda: _mixture(manifest))
    path = corpus / RECIPE
    try:
        data = path.read_bytes()
        recipe = parse_recipe(yaml.safe_load(data), RECIPE)
    except OSError:
        return [*problems, f"{RECIPE}: missing or unreadable"]
    except (yaml.YAMLError, UnicodeDecodeError, ValueError, UserError) as error:
        return [*problems, f"{RECIPE}: not a recipe ({' '.join(str(error).split())})"]
    if data != recipe.as_yaml():
        problems.append(f"{RECIPE}: not the bytes that a run writes")
    return problems + _guarded(f"{FILE}: its recipe is none", lambda: _same_recipe(recipe, manifest))


def _same_recipe(recipe: Recipe, manifest: Manifest) -> list[str]:
    names = {name: source["inputs"] for name, source in manifest.recipe["sources"].items()}
    return [] if recipe.canonical(names) == manifest.recipe else [f"{RECIPE}: another recipe than {FILE} holds"]


def _mixture(manifest: Manifest) -> list[str]:
    """What the manifest says twice: in its recipe, and beside it."""
    recipe = manifest.recipe
    pairs = {"seed": (manifest.seed, recipe["seed"]), "goal_tokens": (manifest.goal_tokens, recipe["goal_tokens"])}
    for name, source in manifest.sources.items():
        said = recipe["sources"][name]
        pairs |= {f"sources.{name}.{key}": (getattr(source, key), said[key]) for key in ("weight", "max_epochs")}
    return [
        f"{FILE}: {key} is {beside}, its recipe says {said}" for key, (beside, said) in pairs.items() if beside != said
    ]


def _ledger(corpus: Path, manifest: Manifest) -> list[str]:
    problems = [f"{LEDGER}: {problem}" for problem in imbalances(manifest.ledger)]
    try:
        data = (corpus / LEDGER).read_bytes()
        if json.loads(data) != manifest.ledger:
            problems.append(f"{LEDGER}: differs from the manifest's ledger")
        elif data != canonical_json(manifest.ledger):
            problems.append(f"{LEDGER}: not the canonical bytes of what it says")
    except (OSError, ValueError):
        problems.append(f"{LEDGER}: missing or unreadable")
    counted = {name: tally_from(tally) for name, tally in manifest.ledger["tokenize"].items()}
    if set(counted) != set(manifest.sources):
        problems.append(f"{FILE}: its sources are not the ledger's")
    for name, source in manifest.sources.items():
        shards = [*source.train, *source.validation]
        units = {"tokens": sum(s.tokens for s in shards), "records": sum(s.documents for s in shards)}
        for unit, held in units.items():
            if counted[name].out[unit] != held:
                said = counted[name].out[unit]
                problems.append(f"{FILE}: source {name}: the ledger counts {said} {unit}, the shards hold {held}")
        if source.documents != units["records"]:
            problems.append(f"{FILE}: source {name}: documents is not the sum of its shards")
        if source.unique_tokens != sum(shard.tokens for shard in source.train):
            problems.append(f"{FILE}: source {name}: unique_tokens is not the sum of its train shards")
        for side in ("train", "validation"):
            wrong = [s.path for s in getattr(source, side) if not s.path.startswith(f"{name}/{side}-")]
            problems += [f"{FILE}: {path} stands under {side} of {name}" for path in wrong]
    return problems


def _descent(corpus: Path, manifest: Manifest) -> list[str]:
    """The manifests before this one, as far as it names them: each what its hash says, and all that was removed on the
    way what the ledger has removed."""
    problems: list[str] = []
    removals, known, parent = [manifest.removal], {manifest.manifest_sha}, manifest.parent
    while parent and parent not in known:
        known.add(parent)
        name = f"{HISTORY}/{parent}.json"
        try:
            earlier = Manifest.model_validate(json.loads((corpus / name).read_bytes()))
        except (OSError, ValueError):
            return [*problems, f"{name}: missing or unreadable, though {FILE} descends from it"]
        if not earlier.manifest_sha == earlier.sha() == parent:
            problems.append(f"{name}: not the manifest that its name says")
        removals.append(earlier.removal)
        parent = earlier.parent
    reason = Reason.ON_REMOVAL_LIST.value
    found = [tally_from(tally).dropped.get(reason, Counter()) for tally in manifest.ledger["tokenize"].values()]
    for unit, counted in (("documents", "records"), ("tokens", "tokens")):
        said = sum(getattr(removal, unit) for removal in removals if removal is not None)
        held = sum(units[counted] for units in found)
        if said != held:
            problems.append(f"{FILE}: {said} {unit} were removed, its ledger has {held}")
    missing = [g.number for g in manifest.generations if g.parent not in known]
    return problems + [f"{FILE}: the parent of generation {number} is not among its own" for number in missing]


def _extras(corpus: Path, manifest: Manifest) -> list[str]:
    """Files that the manifest does not know, where it vouches for every one."""
    problems = []
    for folder, entries in (("shards", manifest.shards()), (FOLDER, manifest.index)):
        extra = sorted(set(relative_files(corpus / folder)) - {entry.path for entry in entries})
        problems += [f"{folder}/{name}: not in the manifest" for name in extra if not is_unfinished(manifest, name)]
    return problems


def _models(manifest: Manifest) -> list[tuple[str, str]]:
    """(path, sha256) of the tokenizer and of every model that the run trained."""
    trained = {model.path: model.sha256 for model in manifest.models.values() if model.path}
    return sorted({**trained, TOKENIZER: manifest.tokenizer.sha256}.items())


def _model(corpus: Path, name: str, sha256: str) -> Checked:
    try:
        return Checked([] if sha256_mapped(corpus / name) == sha256 else [f"{name}: its bytes have changed (sha256)"])
    except FileNotFoundError:
        return Checked([f"{name}: missing"])
    except OSError as error:
        return Checked([f"{name}: cannot be read ({error.strerror})"])


def _tokenizer(corpus: Path, manifest: Manifest) -> list[str]:
    """What the manifest says of the tokenizer, against the model itself."""
    said = manifest.tokenizer
    try:
        model: Any = sentencepiece.SentencePieceProcessor(model_file=str(corpus / TOKENIZER))
    except (OSError, RuntimeError):
        return [f"{TOKENIZER}: not a tokenizer that can be read"]
    held = {"vocabulary": model.get_piece_size(), "bos": model.bos_id(), "eos": model.eos_id()}
    held["dtype"] = token_dtype(held["vocabulary"]).__name__
    return [
        f"{FILE}: tokenizer.{key} is {getattr(said, key)}, {TOKENIZER} has {value}"
        for key, value in held.items()
        if getattr(said, key) != value
    ]
