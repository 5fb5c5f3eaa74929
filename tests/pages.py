"""Parse HTML pages, compute the contrast of colours, and open pages in a browser if one is installed."""

import os
import re
import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path

BROWSER = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
FLAGS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-default-apps",
    "--disable-extensions",
    "--enable-logging=stderr",
]


# A page that shows another page in a frame of a given width. Its title becomes a JSON list: visible width and total
# width of the inner page in pixels, background colour, and height of the smallest text in SVG.
MEASURE = """<!DOCTYPE html><title>-</title><body style="margin:0"><iframe style="border:0;width:{width}px;height:900px"
srcdoc="{page}"></iframe><script>
onload=()=>{{const d=document.querySelector('iframe').contentDocument,r=d.documentElement;
const n=d.querySelectorAll('svg text');
const small=Math.min(...[...n].map(t=>t.getBoundingClientRect().height));
const ground=d.defaultView.getComputedStyle(d.body).backgroundColor;
document.title=JSON.stringify([r.clientWidth,r.scrollWidth,ground,small])}}
</script>"""


class Page(HTMLParser):
    """The elements and the text of a page.

    Attributes:
        elements: (tag, attributes) of each element.
        open: The tags of the open elements while the page is parsed.
        words: The pieces of text.
        within: For each element, the tags of the elements that contain it.
    """

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.words: list[str] = []
        self.within: list[tuple[str, ...]] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        self.within.append(tuple(self.open))
        if tag not in {"meta", "link"}:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if "style" not in self.open:
            self.words.append(data)

    def all(self, *tags: str) -> list[dict[str, str | None]]:
        """Return the attributes of all elements with the given tags."""
        return [attributes for tag, attributes in self.elements if tag in tags]


def said(page: Page) -> str:
    """Return the text of a page with white space normalised."""
    return re.sub(r"\s+", " ", "".join(page.words))


def luminance(colour: str) -> float:
    """Return the relative luminance of a colour (WCAG 2.2)."""
    parts = [int(colour[place : place + 2], 16) / 255 for place in (1, 3, 5)]
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(one: str, other: str) -> float:
    """Return the contrast of two colours (WCAG 2.2)."""
    dark, light = sorted((luminance(one), luminance(other)))
    return (light + 0.05) / (dark + 0.05)


def browse(page: Path, folder: Path, *flags: str) -> tuple[str, str]:
    """Open a page in the browser. Return (the HTML of its document after loading, the log of the browser)."""
    profile = folder / "profile"
    done = subprocess.run(
        [str(BROWSER), *FLAGS, f"--user-data-dir={profile}", *flags, "--dump-dom", page.as_uri()],
        capture_output=True, check=True, timeout=600, env={**os.environ, "HOME": str(folder)},
    )  # fmt: skip
    return done.stdout.decode("utf-8", "replace"), done.stderr.decode("utf-8", "replace")
