"""The rules that need nothing but the page, each alone with its defaults on one core: CPU time over real pages."""

import gzip
import json
import time

from benchmarks.data import ABSENT, SHARED, table
from filters.rule import RULES, Found, Page, Rule, load_rule

PAGES = ("*c4-rp1.jsonl.gz", "*redpajama-cc-*.jsonl.gz")
TURNS = 3  # the fastest counts


def pages() -> list[Page]:
    """Return the texts of C4's and RedPajama's rows."""
    paths = [path for pattern in PAGES for path in sorted((SHARED / "c4_redpajama").glob(pattern))]
    rows = [json.loads(line) for path in paths for line in gzip.decompress(path.read_bytes()).splitlines()]
    return [Page(row["text"]) for row in rows if row.get("text")]


def pure_rules() -> dict[str, Rule]:
    """Return the rules that act on text, look at no other document, and need no setting."""
    kinds = {name: load_rule(name) for name in RULES}
    return {
        name: kind()
        for name, kind in kinds.items()
        if kind.needs is Rule.needs
        and kind.model_fields["at"].default == "filter"
        and not any(field.is_required() for field in kind.model_fields.values())
    }


def run() -> str:
    """Return a table: for each rule pages and megabytes a second, and the share of pages that it drops."""
    texts = pages()
    if not texts:
        return ABSENT
    size, rows = sum(len(page.text.encode()) for page in texts), []
    for name, rule in pure_rules().items():
        rule.apply(texts[0], Found())  # loads models
        spent = []
        for _ in range(TURNS):
            begun = time.process_time()
            dropped = sum(rule.apply(page, Found()).reason is not None for page in texts)
            spent.append(time.process_time() - begun)
        best = min(spent)
        rows.append([name, f"{len(texts) / best:,.0f}", f"{size / best / 1e6:,.1f}", f"{dropped / len(texts):.1%}"])
    head = ["rule", "pages a CPU s", "MB a CPU s", "pages dropped"]
    return f"{len(texts):,} pages, {size / 1e6:.1f} MB\n\n{table(head, rows)}"
