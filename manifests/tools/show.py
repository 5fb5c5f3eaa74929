"""`show`: print a summary of a corpus as tables."""

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from filters.reasons import DEAD_LETTERS, describe_reason
from manifests.display import format_quantity, number_table
from manifests.ledger import STAGES, Tally, imbalances, tally_from
from manifests.manifest import Manifest

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.table import Table

COUNTS = ("records_in", "dead_letters", "dropped", "documents", "train_tokens", "validation_tokens")


def summary_parts(manifest: Manifest) -> "Iterator[RenderableType]":
    """Yield tables and lines with the sources, the dropped records by reason, and the hashes of a corpus."""
    from rich.text import Text

    yield _source_table(manifest)
    reasons = _reason_table(manifest.ledger, manifest.findings)
    yield reasons if reasons.row_count else "No record was dropped."
    yield from _findings(manifest.findings)
    problems = imbalances(manifest.ledger)
    state = (f"NOT balanced: {'; '.join(problems)}", "red") if problems else ("balanced", "green")
    yield Text.assemble("ledger    ", state)
    whole = summarize(manifest)["total"]
    yield f"shards    {whole['shards']:,}, {whole['bytes'] / 1e6:,.2f} MB, {whole['tokens']:,} tokens"
    if manifest.index:
        size, rows = sum(entry.bytes for entry in manifest.index), sum(entry.rows for entry in manifest.index)
        yield f"index     {len(manifest.index):,} files, {size / 1e6:,.2f} MB, {rows:,} ids and URLs"
    if manifest.parent:
        yield f"parent    {manifest.parent}"
    if removal := manifest.removal:
        yield f"removed   {removal.documents:,} documents, {removal.tokens:,} tokens, by the list {removal.list_sha256}"
    yield f"tokenizer {manifest.tokenizer.vocabulary:,} pieces, sha256 {manifest.tokenizer.sha256[:16]}…"
    yield f"manifest  {manifest.manifest_sha}"


def summarize(manifest: Manifest) -> dict[str, Any]:
    """Return the numbers of the table of sources as plain values: counts by source and in total.

    For each source, `share` is its part of the mixture, `epochs_asked` is the number of epochs that its weight requires
    to reach the token goal, and `epochs_at_goal` is this number limited by `max_epochs`.
    """
    weights = sum(source.weight for source in manifest.sources.values())
    sources: dict[str, dict[str, Any]] = {}
    for name, source in sorted(manifest.sources.items()):
        tallies = [tally_from(manifest.ledger[stage][name]) for stage in STAGES]
        shards = source.shards()
        share = source.weight / weights
        asked = share * manifest.goal_tokens / source.unique_tokens if source.unique_tokens else None
        sources[name] = {
            "share": share,
            "records_in": tallies[0].entered["records"],
            "dead_letters": _count_dropped(tallies, damaged=True),
            "dropped": _count_dropped(tallies, damaged=False),
            "documents": source.documents,
            "tokens": sum(shard.tokens for shard in shards),
            "train_tokens": source.unique_tokens,
            "validation_tokens": sum(shard.tokens for shard in source.validation),
            "bytes": sum(shard.bytes for shard in shards),
            "shards": len(shards),
            "epochs_asked": asked,
            "epochs_at_goal": None if asked is None else min(asked, source.max_epochs),
            "max_epochs": source.max_epochs,
        }
    summed = (*COUNTS, "tokens", "bytes", "shards")
    return {"sources": sources, "total": {key: sum(one[key] for one in sources.values()) for key in summed}}


def _source_table(manifest: Manifest) -> "Table":
    from rich.text import Text

    counts = ("records in", "dead", "dropped", "documents", "train tokens", "held out")
    table = number_table("Sources", "source", "weight", *counts, "MB", "epochs at goal")
    for name, found in summarize(manifest)["sources"].items():
        asked, cap = found["epochs_asked"], found["max_epochs"]
        epochs = "no tokens" if asked is None else f"{asked:.2f}" if asked <= cap else f"{cap:.2f} (cap)"
        table.add_row(
            name,
            f"{found['share']:.1%}",
            *(f"{found[key]:,}" for key in COUNTS),
            f"{found['bytes'] / 1e6:,.2f}",
            Text(epochs, "yellow" if asked is None or asked > cap else ""),
        )
    return table


def _reason_table(ledger: Mapping[str, Mapping[str, Any]], findings: Mapping[str, Any]) -> "Table":
    table = number_table("Dropped records by reason", "stage")
    table.add_column("reason")
    table.add_column("records", justify="right")
    table.add_column("of", max_width=32)
    table.add_column("meaning")
    for stage in STAGES:
        dropped = {source: tally_from(tally).dropped for source, tally in sorted(ledger[stage].items())}
        for reason in sorted({reason for found in dropped.values() for reason in found}):
            counts = {source: found[reason]["records"] for source, found in dropped.items() if reason in found}
            of = next(iter(counts)) if len(counts) == 1 else ", ".join(f"{name} {n:,}" for name, n in counts.items())
            table.add_row(stage, reason, f"{sum(counts.values()):,}", of, describe_reason(reason, findings))
    return table


def _findings(findings: Mapping[str, Any]) -> Iterator[str]:
    """Yield a line for each finding of a stage in the manifest."""
    if lines := findings.get("line_dedup"):
        missed, found = lines["missed_by_ccnet_scope"], lines["duplicates"]
        yield (
            f"lines     {found:,} of {lines['lines']:,} also occur in other pages; CCNet's scope (one part in 32) "
            f"would have missed {missed:,} of them" + (f" ({missed / found:.0%})" if found else "")
        )
    if pairs := findings.get("neardup"):
        yield (
            f"pairs     {pairs['edges']:,} near-duplicates joined, {pairs['rejected']:,} candidates rejected, "
            f"{pairs['capped']:,} unjoined when the rounds ended, {pairs['divided_buckets']:,} large buckets"
        )
    if clusters := findings.get("clusters"):
        yield (
            f"clusters  {clusters['clusters']:,} of several documents, the largest of {clusters['largest']:,}; "
            f"{clusters['of_earlier']:,} documents are duplicates of documents of an earlier corpus"
        )
    if unreadable := findings.get("unreadable"):
        count = format_quantity(unreadable["files"], "inputs")
        yield f"skipped   {count} that could not be read: {', '.join(unreadable['names'])}"
    for rule, held in findings.get("lists", {}).items():
        yield f"lists     {rule}: {', '.join(f'{count:,} {what}' for what, count in held.items())}"
    for source, card in findings.get("cuts", {}).items():
        for language, cuts in card["cuts"].items():
            yield (
                f"buckets   {source}, {language}: head below {cuts['head']:,}, tail from {cuts['tail']:,} "
                f"({cuts['documents']:,} documents)"
            )
    for source, card in findings.get("references", {}).items():
        yield (
            f"cited     {source}: classifier of {card['trained_on']['positives']:,} cited pages, "
            f"area under the curve {card['auc']:.3f} on {card['held_out_by']}s held out"
        )


def _count_dropped(tallies: list[Tally], damaged: bool) -> int:
    """Return the number of dropped records: the dead letters if `damaged` is True, otherwise all others."""
    dropped = [item for tally in tallies for item in tally.dropped.items()]
    return sum(units["records"] for reason, units in dropped if (reason in DEAD_LETTERS) == damaged)
