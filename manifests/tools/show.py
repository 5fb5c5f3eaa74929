"""`show`: what a corpus holds, as tables for people."""

import io
from collections.abc import Mapping
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from filters.reasons import DEAD_LETTERS, DESCRIPTIONS, Reason
from manifests.ledger import STAGES, imbalances, tally_from
from manifests.manifest import Manifest

WIDTH = 118
"""columns where the output is no terminal"""


def summary(manifest: Manifest) -> str:
    """The sources, where every record went, and the corpus's hashes, as plain text of at most `WIDTH` columns."""
    page = io.StringIO()
    print_summary(manifest, Console(file=page, width=WIDTH, highlight=False))
    return "\n".join(line.rstrip() for line in page.getvalue().rstrip().splitlines())


def print_summary(manifest: Manifest, console: Console) -> None:
    """The same on a console, with colours where that is a terminal."""
    console.print(_sources(manifest))
    console.print(_reasons(manifest.ledger))
    for line in _findings(manifest.findings):
        console.print(line, markup=False)
    balance = imbalances(manifest.ledger)
    console.print(
        "ledger    " + ("[green]balanced" if not balance else "[red]NOT balanced: " + escape("; ".join(balance)))
    )
    whole = figures(manifest)["total"]
    console.print(f"shards    {whole['shards']:,}, {whole['bytes'] / 1e6:,.2f} MB, {whole['tokens']:,} tokens")
    if manifest.index:
        size, rows = sum(entry.bytes for entry in manifest.index), sum(entry.rows for entry in manifest.index)
        console.print(f"index     {len(manifest.index):,} files, {size / 1e6:,.2f} MB, {rows:,} ids and URLs")
    if manifest.parent:
        console.print(f"parent    {manifest.parent}")
    if removal := manifest.removal:
        console.print(
            f"removed   {removal.documents:,} documents, {removal.tokens:,} tokens, by the list {removal.list_sha256}"
        )
    console.print(f"tokenizer {manifest.tokenizer.vocabulary:,} pieces, sha256 {manifest.tokenizer.sha256[:16]}…")
    console.print(f"manifest  {manifest.manifest_sha}")


def figures(manifest: Manifest) -> dict[str, Any]:
    """What the tables hold, for programs: by source, and in all, documents, tokens, bytes, shards; by source the share
    of the mixture, the epochs that the goal asks for and those its cap allows."""
    weights = sum(source.weight for source in manifest.sources.values())
    sources: dict[str, dict[str, Any]] = {}
    for name, source in sorted(manifest.sources.items()):
        tallies = [tally_from(manifest.ledger[stage][name]) for stage in STAGES]
        shards = [*source.train, *source.validation]
        share = source.weight / weights
        asked = share * manifest.goal_tokens / source.unique_tokens if source.unique_tokens else None
        sources[name] = {
            "share": share,
            "records_in": tallies[0].entered["records"],
            "dead_letters": sum(_records(tally.dropped, damaged=True) for tally in tallies),
            "dropped": sum(_records(tally.dropped, damaged=False) for tally in tallies),
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
    summed = ("records_in", "dead_letters", "dropped", "documents", "tokens", "train_tokens", "validation_tokens")
    total = {key: sum(source[key] for source in sources.values()) for key in (*summed, "bytes", "shards")}
    return {"sources": sources, "total": total}


def _sources(manifest: Manifest) -> Table:
    table = Table("source", title="Sources", title_justify="left", box=SIMPLE_HEAD)
    headings = (
        "weight",
        "records in",
        "dead",
        "dropped",
        "documents",
        "train tokens",
        "held out",
        "MB",
        "epochs at goal",
    )
    for heading in headings:
        table.add_column(heading, justify="right")
    for name, found in figures(manifest)["sources"].items():
        asked, cap = found["epochs_asked"], found["max_epochs"]
        epochs = "no tokens" if asked is None else f"{asked:.2f}" if asked <= cap else f"{cap:.2f} (cap)"
        counts = ("records_in", "dead_letters", "dropped", "documents", "train_tokens", "validation_tokens")
        style = "yellow" if asked is None or asked > cap else ""
        table.add_row(
            name,
            f"{found['share']:.1%}",
            *(f"{found[key]:,}" for key in counts),
            f"{found['bytes'] / 1e6:,.2f}",
            f"[{style}]{epochs}" if style else epochs,
        )
    return table


def _reasons(ledger: Mapping[str, Mapping[str, Any]]) -> Table:
    table = Table("stage", "reason", title="Why records are not in the corpus", title_justify="left", box=SIMPLE_HEAD)
    table.add_column("records", justify="right")
    table.add_column("of", max_width=32)
    table.add_column("meaning")
    for stage in STAGES:
        dropped = {source: tally_from(tally).dropped for source, tally in sorted(ledger[stage].items())}
        for reason in sorted({reason for found in dropped.values() for reason in found}):
            counts = {source: found[reason]["records"] for source, found in dropped.items() if reason in found}
            of = next(iter(counts)) if len(counts) == 1 else ", ".join(f"{name} {n:,}" for name, n in counts.items())
            table.add_row(stage, reason, f"{sum(counts.values()):,}", of, DESCRIPTIONS[Reason(reason)])
    return table


def _findings(findings: Mapping[str, Any]) -> list[str]:
    """What stages found out on the way, a line each."""
    said = []
    if lines := findings.get("line_dedup"):
        missed, found = lines["missed_by_ccnet_scope"], lines["duplicates"]
        said.append(
            f"lines     {found:,} of {lines['lines']:,} are also elsewhere; CCNet's scope (one part in 32) "
            f"would have missed {missed:,} of them" + (f" ({missed / found:.0%})" if found else "")
        )
    if pairs := findings.get("neardup"):
        said.append(
            f"pairs     {pairs['edges']:,} near-duplicates joined, {pairs['rejected']:,} candidates rejected, "
            f"{pairs['capped']:,} unjoined when the rounds ended, {pairs['divided_buckets']:,} large buckets"
        )
    if unreadable := findings.get("unreadable"):
        said.append(f"skipped   {unreadable['files']:,} inputs that could not be read: {', '.join(unreadable['names'])}")
    for source, held in findings.get("blocklists", {}).items():
        none = f"; {held['malformed']:,} lines are none" if held["malformed"] else ""
        said.append(f"blocked   {source}: lists of {held['patterns']:,} domains and addresses{none}")
    for source, card in findings.get("cuts", {}).items():
        for language, cuts in card["cuts"].items():
            said.append(
                f"buckets   {source}, {language}: head below {cuts['head']:,}, tail from {cuts['tail']:,} "
                f"({cuts['documents']:,} documents)"
            )
    for source, card in findings.get("references", {}).items():
        said.append(
            f"cited     {source}: classifier of {card['trained_on']['positives']:,} cited pages, "
            f"area under the curve {card['auc']:.3f} on {card['held_out_by']}s held out"
        )
    return said


def _records(dropped: Mapping[str, Mapping[str, int]], damaged: bool) -> int:
    return sum(units["records"] for reason, units in dropped.items() if (Reason(reason) in DEAD_LETTERS) == damaged)
