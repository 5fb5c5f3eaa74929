"""`verify`: compare all files of a corpus with its manifest. Also contains the shorter check of shards by the trainer.

Every problem found is a message that begins with the name of the file.
"""

import concurrent.futures
import itertools
import json
import multiprocessing
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pyarrow as pa

from filters.errors import UserError
from filters.reasons import Reason
from manifests import tokenizer
from manifests.document import document_ids
from manifests.files import canonical_json, sha256_bytes, sha256_file, sha256_json, usable_cores
from manifests.index import FOLDER, KINDS, Place, open_part
from manifests.ledger import imbalances, tally_from
from manifests.manifest import (
    FILE,
    HISTORY,
    SHA_FILE,
    IndexEntry,
    Manifest,
    ShardEntry,
    is_unfinished,
    load_manifest,
    read_manifest,
)
from manifests.mirror import list_folder, mirror_of, stored_copy
from manifests.shard import Shard, find_token_bytes, open_shard, open_shard_of, shard_schema, token_dtype
from manifests.tools.verify_index import (
    ROWS_AT_ONCE,
    Sums,
    check_entries,
    check_index_names,
    checksum_part,
    checksum_shard,
    compare_index,
)

LEDGER, RECIPE = "ledger.json", "recipe.yaml"
# From this size of shards and index on, processes are used instead of threads. They are faster, because threads share
# the interpreter lock.
LARGE_BYTES = 1 << 30
FULL_CHECK_BYTES = 1 << 30  # Maximum bytes that the trainer hashes: all shards of a small corpus, or a sample.
IDS_AT_ONCE = 1 << 22  # Number of token ids that are compared at a time.
MOST_TWINS = 100  # Maximum number of pairs with equal keys, per index file, whose documents are compared.
SAMPLED_ROWS = 64  # Number of evenly spaced rows of a shard whose ids are recomputed by a fast check.
PLACE = re.compile(r"([^/]+)/(train|validation)-(?:g[1-9][0-9]*-)?([0-9]{5,})-of-([0-9]{5,})\.arrow")

Opened = TypeVar("Opened")


@dataclass(frozen=True, slots=True)
class FileCheck:
    """The result of the check of one file.

    Attributes:
        problems: messages.
        sums: for a shard, the checksums of the index entries that it requires; for an index file, the checksums of its
            entries.
        twins: for an index file of ids, pairs of locations with the same key. Their ids may still differ.
    """

    problems: list[str] = field(default_factory=list)
    sums: Sums = field(default_factory=dict)
    twins: list[tuple[Place, Place]] = field(default_factory=list)


def verify(corpus: Path, fast: bool = False, progress: Callable[[int], None] = lambda size: None) -> list[str]:
    """Compare a corpus with its manifest, and return one message for each difference.

    Args:
        corpus: the folder of the corpus.
        fast: skip the hashes of shards and index files, the ids of most documents, the range of token ids, and the
            comparison of index and shards. For a corpus in an object store, also skip all checks of tokens, which are
            then not downloaded.
        progress: a function that is called with the size in bytes of each file that was checked.

    Raises:
        UserError: there is no manifest.
    """
    manifest = load_manifest(corpus, checked=False)
    problems = [*_check_manifest(corpus, manifest), *_check_recipe(corpus, manifest)]
    problems += _guard("ledger", _check_ledger(corpus, manifest))
    problems += _guard("ledger", _check_history(corpus, manifest))
    problems += [*_check_extra_files(corpus, manifest), *check_index_names(manifest)]
    problems += _check_tokenizer(corpus, manifest)
    entries, recipes = manifest.shards(), manifest.recipe_shas()
    known = {entry.path for entry in entries}
    models = {model.path: model.sha256 for model in manifest.models.values() if model.path}
    models[tokenizer.FILE] = manifest.tokenizer.sha256
    # The part of the manifest that each call needs. It is pickled for each call, so it must be small.
    head = manifest.model_copy(update={"sources": {}, "index": [], "ledger": {}, "recipe": {}})
    work: list[tuple[int, Callable[[], FileCheck]]] = [
        *((0, partial(_check_model, corpus, *model)) for model in sorted(models.items())),
        *((entry.bytes, partial(_check_shard, corpus, head, recipes, entry, fast)) for entry in entries),
        *((entry.bytes, partial(_check_part, corpus, known, entry, fast)) for entry in manifest.index),
    ]
    done = _run_parallel(work, progress)
    problems += [problem for checked in done for problem in checked.problems]
    if manifest.index and not fast and not any(checked.problems for checked in done):
        sums = [checked.sums for checked in done]
        differences = [*compare_index(corpus, manifest, sums[: -len(manifest.index)], sums[-len(manifest.index) :])]
        twins = (pair for checked in done for pair in checked.twins if not differences)
        problems += [*differences, *_check_twins(corpus, twins)]
    return problems


def checked_bytes(manifest: Manifest) -> int:
    """Return the total size of the files that `verify` reports to `progress`: all shards and index files."""
    return sum(entry.bytes for entry in manifest.shards()) + sum(entry.bytes for entry in manifest.index)


def check_shards(corpus: Path, manifest: Manifest, mode: str, part: int = 0, parts: int = 1) -> str:
    """Compare shards with the manifest before training.

    Args:
        corpus: the folder of a corpus, or the cache folder of a remote corpus. In a cache folder, only shards that were
            already downloaded are checked. A wrong copy is deleted, so that it will be downloaded again.
        manifest: its manifest.
        mode: `full` checks the hashes of all shards. `auto` checks the hashes of shards with a total size of up to
            1 GiB, which are selected by keyed hash; for other shards it checks the size and the counts. `fast` checks
            only sizes.
        part: number of this process, which checks every `parts`-th shard.
        parts: number of processes.

    Returns:
        A message about the first wrong shard, or "".
    """
    entries = manifest.shards()
    whole = _draw_shards(manifest, entries) if mode == "auto" else {e.path for e in entries if mode == "full"}
    remote = mirror_of(corpus) is not None
    for entry in sorted(entries, key=lambda entry: entry.path not in whole)[part::parts]:
        path, name = corpus / "shards" / entry.path, f"shards/{entry.path}"
        if remote and not path.exists():
            continue
        opened = _open_file(path, name, entry, entry.path not in whole, Path if mode == "fast" else open_shard)
        problem = opened if isinstance(opened, str) else ""
        if isinstance(opened, Shard):
            problem = next((f"{name}: {one}" for one in _check_counts(opened, entry)), "")
        if problem and remote:
            path.unlink(missing_ok=True)
        elif problem:
            return f"{problem}: run `python -m manifests verify {corpus}`"
    return ""


def _draw_shards(manifest: Manifest, entries: list[ShardEntry]) -> set[str]:
    """Return the paths of shards, selected by keyed hash, with a total size of up to `FULL_CHECK_BYTES`.

    At least one shard is selected, whatever its size.
    """
    drawn: set[str] = set()
    size = 0
    for entry in sorted(entries, key=lambda entry: sha256_bytes(f"{manifest.manifest_sha}\0{entry.path}".encode())):
        if drawn and size + entry.bytes > FULL_CHECK_BYTES:
            break
        drawn.add(entry.path)
        size += entry.bytes
    return drawn


def _run_parallel(work: list[tuple[int, Callable[[], FileCheck]]], progress: Callable[[int], None]) -> list[FileCheck]:
    """Make all calls in parallel, the largest first, and return their results in the given order.

    Args:
        work: (size in bytes, function) of each call.
        progress: a function that is called with the size of each finished call.
    """
    pool: concurrent.futures.Executor = concurrent.futures.ThreadPoolExecutor(usable_cores())
    if sum(size for size, _ in work) >= LARGE_BYTES:
        pool = concurrent.futures.ProcessPoolExecutor(usable_cores(), multiprocessing.get_context("spawn"))
    with pool:
        order = sorted(range(len(work)), key=lambda number: -work[number][0])
        futures = {pool.submit(work[number][1]): number for number in order}
        for future in concurrent.futures.as_completed(futures):
            future.result()
            progress(work[futures[future]][0])
    return [future.result() for future in sorted(futures, key=futures.__getitem__)]


def _read(corpus: Path, name: str) -> bytes:
    """Return the content of a file of a local or remote corpus."""
    with stored_copy(corpus, name) as path:
        return path.read_bytes()


def _guard(part: str, problems: Iterable[str]) -> Iterator[str]:
    """Yield the problems that a check finds. If the check raises an error, yield a message about malformed values.

    Args:
        part: the part of the manifest that is checked.
        problems: the generator of the check.
    """
    try:
        yield from problems
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        yield f"{FILE}: its {part} is malformed ({type(error).__name__}: {error})"


def _check_manifest(corpus: Path, manifest: Manifest) -> Iterator[str]:
    if _read(corpus, FILE) != canonical_json(manifest.model_dump()):
        yield f"{FILE}: not the canonical bytes of its content"
    if manifest.manifest_sha != manifest.sha():
        yield f"{FILE}: its manifest_sha does not match its content"
    try:
        if _read(corpus, SHA_FILE) != f"{manifest.manifest_sha}\n".encode():
            yield f"{SHA_FILE}: another hash than {FILE} holds"
    except OSError:
        yield f"{SHA_FILE}: missing or unreadable"
    paths = Counter([*(entry.path for entry in manifest.shards()), *(entry.path for entry in manifest.index)])
    yield from (f"{FILE}: {path} is listed twice" for path, times in sorted(paths.items()) if times > 1)


def _check_recipe(corpus: Path, manifest: Manifest) -> Iterator[str]:
    """Compare the recipe in the manifest with its hash, with other fields of the manifest, and with `recipe.yaml`."""
    from manifests.recipe import add_user_code_path, parse_recipe, read_yaml

    if sha256_json(manifest.recipe) != manifest.recipe_sha:
        yield f"{FILE}: its recipe_sha does not match its recipe"
    for generation in manifest.generations:
        if sha256_json(generation.recipe) != generation.recipe_sha:
            yield f"{FILE}: the recipe_sha of generation {generation.number} does not match its recipe"
    yield from _guard("recipe", _check_mixture(manifest))
    add_user_code_path(corpus)
    try:
        data = _read(corpus, RECIPE)
        recipe = parse_recipe(read_yaml(data), RECIPE)
    except OSError:
        yield f"{RECIPE}: missing or unreadable"
        return
    except (ValueError, UserError) as error:
        yield f"{RECIPE}: not a recipe ({' '.join(str(error).split())})"
        return
    if data != recipe.as_yaml():
        yield f"{RECIPE}: not the bytes that a run writes"

    def same() -> Iterator[str]:
        names = {name: source["inputs"] for name, source in manifest.recipe["sources"].items()}
        if recipe.canonical(names) != manifest.recipe:
            yield f"{RECIPE}: another recipe than {FILE} holds"

    yield from _guard("recipe", same())


def _check_mixture(manifest: Manifest) -> Iterator[str]:
    """Compare the fields of the manifest that are also in its recipe: seed, goal, weights and epoch caps."""
    recipe = manifest.recipe
    pairs = {"seed": (manifest.seed, recipe["seed"]), "goal_tokens": (manifest.goal_tokens, recipe["goal_tokens"])}
    for name, source in manifest.sources.items():
        given = recipe["sources"][name]
        pairs |= {f"sources.{name}.{key}": (getattr(source, key), given[key]) for key in ("weight", "max_epochs")}
    for key, (beside, given) in pairs.items():
        if beside != given:
            yield f"{FILE}: {key} is {beside}, its recipe says {given}"


def _check_ledger(corpus: Path, manifest: Manifest) -> Iterator[str]:
    yield from (f"{LEDGER}: {problem}" for problem in imbalances(manifest.ledger))
    try:
        data = _read(corpus, LEDGER)
        if json.loads(data) != manifest.ledger:
            yield f"{LEDGER}: differs from the manifest's ledger"
        elif data != canonical_json(manifest.ledger):
            yield f"{LEDGER}: not the canonical bytes of its content"
    except (OSError, ValueError):
        yield f"{LEDGER}: missing or unreadable"
    counted = {name: tally_from(tally) for name, tally in manifest.ledger["tokenize"].items()}
    if set(counted) != set(manifest.sources):
        yield f"{FILE}: its sources are not the ledger's"
    for name, source in manifest.sources.items():
        shards = source.shards()
        units = {"tokens": sum(s.tokens for s in shards), "records": sum(s.documents for s in shards)}
        for unit, held in units.items():
            if (out := counted[name].out[unit]) != held:
                yield f"{FILE}: source {name}: the ledger counts {out} {unit}, the shards hold {held}"
        if source.documents != units["records"]:
            yield f"{FILE}: source {name}: documents is not the sum of its shards"
        if source.unique_tokens != sum(shard.tokens for shard in source.train):
            yield f"{FILE}: source {name}: unique_tokens is not the sum of its train shards"
        for side in ("train", "validation"):
            wrong = [s.path for s in getattr(source, side) if not s.path.startswith(f"{name}/{side}-")]
            yield from (f"{FILE}: {path} is listed under {side} of {name}" for path in wrong)


def _check_history(corpus: Path, manifest: Manifest) -> Iterator[str]:
    """Check the chain of earlier manifests in `history/`, and compare the sum of all removals with the ledger."""
    removals, known, parent = [manifest.removal], {manifest.manifest_sha}, manifest.parent
    while parent and parent not in known:
        known.add(parent)
        name = f"{HISTORY}/{parent}.json"
        try:
            with stored_copy(corpus, name) as path:
                earlier = read_manifest(path)
        except UserError:
            yield f"{name}: missing or unreadable, though {FILE} descends from it"
            return
        if not earlier.manifest_sha == earlier.sha() == parent:
            yield f"{name}: not the manifest that its name says"
        removals.append(earlier.removal)
        parent = earlier.parent
    reason = Reason.ON_REMOVAL_LIST.value
    found = [tally_from(tally).dropped.get(reason, Counter()) for tally in manifest.ledger["tokenize"].values()]
    for unit, counted in (("documents", "records"), ("tokens", "tokens")):
        removed = sum(getattr(removal, unit) for removal in removals if removal is not None)
        held = sum(units[counted] for units in found)
        if removed != held:
            yield f"{FILE}: {removed} {unit} were removed, its ledger has {held}"
    for generation in manifest.generations:
        if generation.parent not in known:
            yield f"{FILE}: the parent of generation {generation.number} is not among its own"


def _check_extra_files(corpus: Path, manifest: Manifest) -> Iterator[str]:
    for folder, entries in (("shards", manifest.shards()), (FOLDER, manifest.index)):
        for name in sorted(set(list_folder(corpus, folder)) - {entry.path for entry in entries}):
            if not is_unfinished(manifest, name):
                yield f"{folder}/{name}: not in the manifest"


def _check_tokenizer(corpus: Path, manifest: Manifest) -> Iterator[str]:
    """Compare the tokenizer entry of the manifest with the tokenizer model."""
    try:
        model = tokenizer.load(corpus)
    except UserError:
        yield f"{tokenizer.FILE}: not a tokenizer that can be read"
        return
    held: dict[str, Any] = {"vocabulary": model.get_piece_size(), "bos": model.bos_id(), "eos": model.eos_id()}
    held["dtype"] = token_dtype(held["vocabulary"]).__name__
    for key, value in held.items():
        if (given := getattr(manifest.tokenizer, key)) != value:
            yield f"{FILE}: tokenizer.{key} is {given}, {tokenizer.FILE} has {value}"


def _check_file(path: Path, name: str, sha256: str, size: int | None = None, fast: bool = False) -> str:
    """Compare the size and, unless `fast`, the hash of a file with the manifest. Return a message, or ""."""
    try:
        held = path.stat().st_size if path.is_file() else None
        if held is None:
            return f"{name}: missing"
        if size is not None and held != size:
            return f"{name}: {held} bytes, the manifest says {size}"
        return "" if fast or sha256_file(path) == sha256 else f"{name}: its bytes have changed (sha256)"
    except OSError as error:
        return f"{name}: cannot be read ({error.strerror})"


def _open_file(
    path: Path, name: str, entry: ShardEntry | IndexEntry, fast: bool, opener: Callable[[Path], Opened]
) -> Opened | str:
    """Check the size and, unless `fast`, the hash of a file, and open it.

    Args:
        path: the local path.
        name: the name for messages.
        entry: the entry of the manifest.
        fast: do not check the hash.
        opener: the function that opens the file.

    Returns:
        The opened file, or a message if the file differs from its entry or cannot be opened.
    """
    if problem := _check_file(path, name, entry.sha256, entry.bytes, fast):
        return problem
    try:
        return opener(path)
    except (OSError, ValueError, IndexError, pa.ArrowException) as error:
        return f"{name}: not readable ({' '.join(str(error).split())})"


def _check_model(corpus: Path, name: str, sha256: str) -> FileCheck:
    with stored_copy(corpus, name) as path:
        return FileCheck(list(filter(None, [_check_file(path, name, sha256)])))


def _check_shard(corpus: Path, manifest: Manifest, recipes: set[str], entry: ShardEntry, fast: bool) -> FileCheck:
    """Check a shard. `recipes` are the hashes of the recipes of the first run and of all appends."""

    def open_valid(path: Path) -> Shard:
        shard = open_shard(path)
        shard.batch.validate(full=True)
        return shard

    name = f"shards/{entry.path}"
    with stored_copy(corpus, name, find_token_bytes if fast else None) as path:
        shard = _open_file(path, name, entry, fast, open_valid)
    if isinstance(shard, str):
        return FileCheck([shard])
    has_tokens = not fast or mirror_of(corpus) is None
    checks: list[Iterable[str]] = [
        _check_counts(shard, entry),
        itertools.chain(_check_metadata(shard, manifest, recipes, entry), _check_columns(shard, manifest)),
        _check_frames(shard, manifest) if has_tokens else (),
        _check_ids(shard, entry.path.partition("/")[0], fast),
        () if fast else _check_vocabulary(shard, manifest),
    ]
    found = next(filter(None, map(list, checks)), [])  # The problems of the first check that fails.
    sums = {} if found or fast else {(kind, entry.path): checksum_shard(shard, kind) for kind in KINDS}
    return FileCheck([f"{name}: {what}" for what in found], sums)


def _check_counts(shard: Shard, entry: ShardEntry) -> Iterator[str]:
    if len(shard.tokens) != entry.tokens:
        yield f"{len(shard.tokens)} tokens, the manifest says {entry.tokens}"
    if shard.batch.num_rows != entry.documents:
        yield f"{shard.batch.num_rows} documents, the manifest says {entry.documents}"


def _check_metadata(shard: Shard, manifest: Manifest, recipes: set[str], entry: ShardEntry) -> Iterator[str]:
    """Compare the metadata of a shard with the manifest and with the name of the shard."""
    place = PLACE.fullmatch(entry.path)
    if place is None:
        yield "not named as a shard is"
        return
    source, side, number, _ = place.groups()
    held = shard.metadata
    expected = {"tokenizer_sha256": manifest.tokenizer.sha256, "seed": str(manifest.seed)}
    named = {"source": source, "side": side, "index": str(int(number))}
    expected |= {key: value for key, value in named.items() if key in held}
    yield from (f"its {key} is not the manifest's" for key, value in expected.items() if held.get(key) != value)
    if held.get("recipe_sha256") not in recipes:
        yield "its recipe_sha256 is not the manifest's"


def _check_columns(shard: Shard, manifest: Manifest) -> Iterator[str]:
    import pyarrow.compute as pc

    batch = shard.batch
    if not batch.schema.equals(shard_schema(manifest.tokenizer.vocabulary)):
        yield "its columns are not a shard's, or of other types"
        return
    yield from (f"column {name} has nulls" for name in batch.schema.names if name != "parts" and batch[name].null_count)
    if pc.min(batch["cluster_size"]).as_py() == 0:
        yield "a document that stands for none, not even itself: its cluster_size is 0"


def _check_frames(shard: Shard, manifest: Manifest) -> Iterator[str]:
    """Check that every document begins with BOS and ends with EOS."""
    tokens, offsets, entry = shard.tokens, shard.offsets, manifest.tokenizer
    if shard.batch.num_rows and ((np.diff(offsets) < 2).any() or offsets[-1] != len(tokens)):
        yield "a document without tokens"
    elif shard.batch.num_rows:
        framed = (tokens[offsets[:-1]] == entry.bos) & (tokens[offsets[1:] - 1] == entry.eos)
        if not framed.all():
            yield f"document {int(np.argmin(framed))} is not framed by BOS and EOS"


def _check_ids(shard: Shard, source: str, fast: bool) -> Iterator[str]:
    """Check the source of each row, and recompute the id of each row from its source and locator.

    Args:
        shard: the shard.
        source: the name of the folder of the shard.
        fast: check only `SAMPLED_ROWS` rows.
    """
    import pyarrow.compute as pc

    count = shard.batch.num_rows
    step = max(1, count // SAMPLED_ROWS) if fast else ROWS_AT_ONCE
    for start in range(0, count, step):
        rows = shard.batch.slice(start, 1 if fast else ROWS_AT_ONCE)
        if pc.unique(rows.column("source")).to_pylist() != [source]:
            yield "a document of another source"
            return
        held = rows.column("document").to_pylist()
        for row, derived in enumerate(document_ids(source, rows)):
            if derived != held[row]:
                yield f"document {start + row}: its id is not the one that its source and locator give"
                return


def _check_vocabulary(shard: Shard, manifest: Manifest) -> Iterator[str]:
    parts = (shard.tokens[start : start + IDS_AT_ONCE] for start in range(0, len(shard.tokens), IDS_AT_ONCE))
    if any(int(part.max()) >= manifest.tokenizer.vocabulary for part in parts):
        yield "a token id outside the vocabulary"


def _check_part(corpus: Path, known: set[str], entry: IndexEntry, fast: bool) -> FileCheck:
    """Check the hash, the number of entries and the order of an index file. `known` are the paths of all shards."""
    name = f"{FOLDER}/{entry.path}"
    ends_only = (lambda path: (0, path.stat().st_size)) if fast else None  # They contain the number of entries.
    with stored_copy(corpus, name, ends_only) as path:
        part = _open_file(path, name, entry, fast, open_part)
    if isinstance(part, str):
        return FileCheck([part])
    if len(part.keys) != entry.rows:
        return FileCheck([f"{name}: {len(part.keys)} entries, the manifest says {entry.rows}"])
    if fast:
        return FileCheck()
    found = check_entries(part, known)
    if found:
        return FileCheck([f"{name}: {what}" for what in found])
    same = np.flatnonzero(part.keys[1:] == part.keys[:-1]) if part.name.kind == "ids" else np.empty(0, np.int64)
    twins = [(part.place(entry), part.place(entry + 1)) for entry in same[:MOST_TWINS].tolist()]
    return FileCheck([], checksum_part(part), twins)


def _check_twins(corpus: Path, twins: Iterable[tuple[Place, Place]]) -> Iterator[str]:
    """Check that the documents of each pair have different ids. Equal keys alone may be a coincidence."""
    for places in twins:
        one, other = (open_shard_of(corpus, place.shard).row(place.row)["document"] for place in places)
        if one == other:
            yield f"shards/{places[0].shard}: document {one.hex()} is there, and in shards/{places[1].shard} again"
