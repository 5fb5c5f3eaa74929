"""manifest: write `ledger.json` and `manifest.json` from the receipts of all steps.

The run fails here if the ledger does not balance, or if the shards contain other counts than the ledger.
"""

from pathlib import Path
from typing import Any

from filters.errors import RunError
from manifests.files import canonical_json, write_atomic
from manifests.ledger import Tally, imbalances, tally_from
from manifests.manifest import IndexEntry, Manifest, ModelEntry, ShardEntry, SourceEntry, TokenizerEntry, write_manifest
from manifests.recipe import Recipe
from manifests.shard import token_dtype
from pipeline.beam.step import Receipt, Receipts, source_of, sum_by_source

LEDGER = "ledger.json"


class LedgerError(RunError):
    """The ledger does not balance. The cause is always a defect of the pipeline, never the input."""


def sum_tallies(*parts: Receipts) -> dict[str, dict[str, Any]]:
    """Return the ledger of one stage: a dict from source name to the sum of the tallies in the receipts."""
    sums: dict[str, Tally] = {}
    for part in parts:
        for source, tally in sum_by_source(part).items():
            sums.setdefault(source, Tally()).add(tally)
    return {source: tally.as_dict() for source, tally in sorted(sums.items())}


def write_manifest_of(
    corpus: Path,
    recipe: Recipe,
    input_names: dict[str, list[str]],
    models: dict[str, ModelEntry],
    code: dict[str, str],
    ledger: dict[str, dict[str, dict[str, Any]]],
    trained: Receipt,
    shards: Receipts,
    index: list[IndexEntry],
    findings: dict[str, Any],
) -> Manifest:
    """Write the ledger and the manifest.

    Args:
        corpus: Folder of the corpus.
        recipe: Recipe of the run.
        input_names: Names of the dumps of each source.
        models: Entries of the models that the corpus depends on, by use.
        code: Hash of the code of each step.
        ledger: Tallies by stage and source.
        trained: Receipt of the step that trains the tokenizer.
        shards: Receipts of the shards.
        index: Entries of the index files.
        findings: Facts that the stages report, by name.

    Raises:
        LedgerError: The ledger does not balance, or the shards have other counts than the ledger.
    """
    problems = imbalances(ledger)
    sources = {name: _make_source_entry(recipe, name, shards) for name in ledger["tokenize"]}
    for name, entry in sources.items():
        counted = tally_from(ledger["tokenize"][name]).out
        written = {"records": entry.documents, "tokens": sum(shard.tokens for shard in entry.shards())}
        problems += [
            f"source {name}: tokenize gave out {counted[unit]} {unit}, the shards hold {number}"
            for unit, number in written.items()
            if counted[unit] != number
        ]
    if problems:
        raise LedgerError("the ledger does not balance: " + "; ".join(problems))
    write_atomic(corpus / LEDGER, canonical_json(ledger))
    facts = {name: trained.facts[name] for name in ("sha256", "vocabulary", "bos", "eos")}
    manifest = Manifest(
        seed=recipe.seed,
        goal_tokens=recipe.goal_tokens,
        recipe=recipe.canonical(input_names),
        recipe_sha=recipe.sha(input_names),
        tokenizer=TokenizerEntry.model_validate({**facts, "dtype": token_dtype(facts["vocabulary"]).__name__}),
        models=dict(sorted(models.items())),
        signatures={name: recipe.comparison_of(name).scheme for name in sources},
        sources=sources,
        index=index,
        ledger=ledger,
        findings=findings,
        code=code,
    )
    return write_manifest(corpus, manifest)


def _make_source_entry(recipe: Recipe, name: str, shards: Receipts) -> SourceEntry:
    sides: dict[str, list[ShardEntry]] = {"train": [], "validation": []}
    for task, receipt in sorted(shards.items()):
        if source_of(task) != name:
            continue
        (output,) = receipt.outputs
        sides[task.removeprefix(f"{name}/").partition("-")[0]].append(
            ShardEntry(
                path=output.path.removeprefix("shards/"),
                sha256=output.sha256,
                bytes=output.bytes,
                tokens=receipt.facts["tokens"],
                documents=receipt.facts["documents"],
            )
        )
    return SourceEntry(
        weight=recipe.sources[name].weight,
        max_epochs=recipe.sources[name].max_epochs,
        documents=sum(shard.documents for side in sides.values() for shard in side),
        unique_tokens=sum(shard.tokens for shard in sides["train"]),
        train=sides["train"],
        validation=sides["validation"],
    )
