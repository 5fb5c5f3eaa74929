"""The report as one page that needs nothing but itself."""

from manifests.report import documents as parts
from manifests.report import provenance as making
from manifests.report import whole
from manifests.report.data import Facts
from manifests.report.html import Html, element, foreign, join, text, visible
from manifests.report.style import STYLE

POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:"
"""no script, no network: what hostile text might smuggle in does nothing, either"""
ICON = "data:,"
SECTIONS = {
    "where": "Where it all went",
    "why": "Why the rest left",
    "mixture": "Mixture",
    "documents": "Documents",
    "duplicates": "Near-duplicates",
    "cost": "Cost",
    "models": "Models",
    "identity": "Recipe and hashes",
}


def page(facts: Facts) -> str:
    """The whole page."""
    manifest = facts.manifest
    name = str(manifest.recipe.get("name", "a corpus"))
    links = [element("li", element("a", text(title), href=f"#{anchor}")) for anchor, title in SECTIONS.items()]
    head = element(
        "head",
        element("meta", charset="utf-8"),
        element("meta", http_equiv="Content-Security-Policy", content=POLICY),
        element("meta", name="viewport", content="width=device-width, initial-scale=1"),
        element("meta", name="color-scheme", content="light dark"),
        element("link", rel="icon", href=ICON),
        element("title", text(f"{visible(name, 80)}: corpus report")),
        element("style", Html(STYLE)),
    )
    made = " It was made from another corpus, which it names." if manifest.parent else ""
    lede = f"What went into this corpus, what is in it, and why the rest is not.{made}"
    header = element(
        "header",
        element("p", text("Corpus report"), class_="eyebrow"),
        element("h1", foreign(name, 80)),
        element("p", text(lede), class_="lede"),
        whole.headline(facts),
        element("nav", element("ul", *links), aria_label="Sections"),
    )
    sections = (
        whole.where(facts),
        whole.why(facts),
        whole.mixture(facts),
        parts.documents(facts),
        parts.duplicates(facts),
        making.cost(facts),
        making.models(facts),
        making.identity(facts),
    )
    sha = element("code", foreign(manifest.manifest_sha, 64))
    body = element(
        "body",
        element("a", text("Skip to the report"), href="#main", class_="skip"),
        header,
        element("main", *sections, id="main"),
        element("footer", element("p", text("Manifest "), sha, class_="quiet")),
    )
    return f"<!DOCTYPE html>\n{element('html', join([head, body], Html(chr(10))), lang='en')}\n"
