"""Measure the speed of each rule that needs only the text of a page, with its default settings, over real pages."""

import gzip
import json
from functools import partial

from benchmarks.data import ABSENT, SHARED, table
from benchmarks.measure import alternate
from filters.rule import Found, Page, Rule
from filters.rule_list import RULES, load_rule

PAGES = ("*c4-rp1.jsonl.gz", "*redpajama-cc-*.jsonl.gz")
ROUNDS = 3  # the fastest round counts


def pages() -> list[Page]:
    """Return the texts of C4's and RedPajama's rows."""
    paths = [path for pattern in PAGES for path in sorted((SHARED / "c4_redpajama").glob(pattern))]
    rows = [json.loads(line) for path in paths for line in gzip.decompress(path.read_bytes()).splitlines()]
    return [Page(row["text"]) for row in rows if row.get("text")]


def pure_rules() -> dict[str, Rule]:
    """Return the rules, by name, that filter the text of single documents and have no required setting."""
    kinds = {name: load_rule(name) for name in RULES}
    return {
        name: kind()
        for name, kind in kinds.items()
        if kind.needs is Rule.needs
        and kind.model_fields["at"].default == "filter"
        and not any(field.is_required() for field in kind.model_fields.values())
    }


def count_dropped(rule: Rule, texts: list[Page]) -> int:
    """Return the number of pages that a rule drops."""
    return sum(rule.apply(page, Found()).reason is not None for page in texts)


def run() -> str:
    """Return a table of each rule: pages and MB per CPU second, and the share of pages that it drops."""
    texts = pages()
    if not texts:
        return ABSENT
    size, rows = sum(len(page.text.encode()) for page in texts), []
    for name, rule in pure_rules().items():
        rule.apply(texts[0], Found())  # Load models before the measurement.
        seconds, counts = alternate({name: partial(count_dropped, rule, texts)}, ROUNDS)
        best, dropped = min(seconds[name]), counts[name] / len(texts)
        rows.append([name, f"{len(texts) / best:,.0f}", f"{size / best / 1e6:,.1f}", f"{dropped:.1%}"])
    head = ["rule", "pages per CPU s", "MB per CPU s", "pages dropped"]
    return f"{len(texts):,} pages, {size / 1e6:.1f} MB\n\n{table(head, rows)}"
