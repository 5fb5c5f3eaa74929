"""Write tables of posts in the format of Stack Exchange's dumps, for three sites: code, invented places, a meta site.

The answers about places are paragraphs of the gazetteer. The posts about code were written for this project.
planted-posts.json lists the planted rows of the tables and the expected results.
"""

import html
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from deflate import gzipped
from gazetteer import Entry

HEAD = '\ufeff<?xml version="1.0" encoding="utf-8"?>\n<posts>\n'
TAIL = "</posts>\n"
ASK = (
    ("Who knows more about {}?", "<p>I passed <strong>{0}</strong> last week. What is there to know about it?</p>"),
    ("What is the story of {}?", "<p>An old map names {0}, and says no more.</p>\n<p>What is known of it?</p>"),
    ("Is {} worth a detour?", "<p>We have one afternoon. Is {0} worth it, and <em>why</em>?</p>"),
)
QUOTE = "<blockquote>\n<p>{}</p>\n</blockquote>\n<p>So says the gazetteer.</p>"
CODE = (
    (
        "How can I count the words of a text?", "<p>I have a string and want to know how often each word is in it.</p>",
        (
            (12, "<p>With a <code>Counter</code>:</p>\n<pre><code>from collections import Counter\n\n"
                 "counts = Counter(text.lower().split())\nfor word, count in counts.most_common(3):\n"
                 "    print(word, count)\n</code></pre>"),
            (9, "<p>A dictionary will do, too:</p>\n<pre><code>counts = {}\nfor word in text.split():\n"
                "    counts[word] = counts.get(word, 0) + 1\n</code></pre>"),
            (105, "<p>Say first what a word is. If letters alone count:</p>\n<pre><code>import re\n\n"
                  "words = re.findall(r\"[^\\W\\d_]+\", text)\n</code></pre>\n<p>and then count these.</p>"),
        ),
    ),
    (
        "Why is my sum of tenths not one?", "<pre><code>&gt;&gt;&gt; sum([0.1] * 10) == 1\nFalse\n</code></pre>\n"
        "<p>Ten tenths <em>are</em> one, are they not?</p>",
        (
            (40, "<p>No tenth is a fraction of two, so <code>0.1</code> is stored as the nearest number that is: it is "
                 "off by less than 10<sup>-17</sup>, and ten of these errors do not cancel. Compare with "
                 "<code>math.isclose</code>, or add with <code>math.fsum</code>, which rounds once.</p>"),
            (-2, "<p>Round the result.</p>"),
        ),
    ),
    (
        "How do I read a file that is larger than memory?", "<p><code>open(path).read()</code> ends in a "
        "<code>MemoryError</code>.</p>",
        (
            (31, "<p>Read it in pieces:</p>\n<ol>\n<li>line by line, if lines are short:\n<pre><code>with open(path) "
                 "as file:\n    for line in file:\n        work(line)\n</code></pre></li>\n<li>else by size:\n<pre>"
                 "<code>while piece := file.read(1 &lt;&lt; 20):\n    work(piece)\n</code></pre></li>\n</ol>"),
            (30, "<p>Map it into memory, and let the system page it in:</p>\n<pre><code>import mmap\n\nwith open(path, "
                 "\"rb\") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:\n"
                 "    print(data[:10], data.find(b\"needle\"))\n</code></pre>"),
        ),
    ),
    (
        "What does the star mean in a call?", "<p>I have seen <code>f(*args)</code>. Is that multiplication?</p>",
        (
            (8, "<p>It spreads a sequence over the positions:</p>\n<ul>\n<li><code>f(*[1, 2])</code> is "
                "<code>f(1, 2)</code></li>\n<li><code>f(**{\"a\": 1})</code> is <code>f(a=1)</code></li>\n</ul>"),
        ),
    ),
)  # fmt: skip


@dataclass
class Table:
    """A file Posts.xml that is being built.

    Attributes:
        site: The host of the site.
        rows: The lines of XML.
        planted: For each planted row, its entry in planted-posts.json.
    """

    site: str
    rows: list[str] = field(default_factory=list)
    planted: list[dict[str, Any]] = field(default_factory=list)

    def add(self, kind: int, expect: str = "", what: str = "", **attributes: object) -> int:
        """Add a row and return its id.

        Args:
            kind: The PostTypeId.
            expect: The expected result of a planted row, else "".
            what: The description of a planted row.
            **attributes: The attributes of the row.
        """
        number = len(self.rows) + 1
        day = 1 + number * 37 % 28
        date = f"{2010 + number * 7 % 12}-{1 + number % 12:02}-{day:02}T{number % 24:02}:{number % 60:02}:00.000"
        given = {"Id": number, "PostTypeId": kind, "CreationDate": date, "OwnerUserId": 10 + number % 7, **attributes}
        escaped = {name: html.escape(str(value)).replace("&#x27;", "'") for name, value in given.items()}
        written = " ".join(f'{name}="{value}"' for name, value in escaped.items()).replace("\n", "&#xA;")
        self.rows.append(f"  <row {written} />\n")
        if expect:
            self.planted.append({"site": self.site, "post": number, "what": what, "expect": expect})
        return number

    def write(self, path: Path) -> None:
        """Write the table. It is gzipped if the name of the file ends in .gz."""
        path.parent.mkdir(parents=True, exist_ok=True)
        data = (HEAD + "".join(self.rows) + TAIL).encode()
        path.write_bytes(gzipped(data) if path.suffix == ".gz" else data)


def make(out: Path, entries: list[Entry]) -> list[dict[str, Any]]:
    """Write the tables below `out` and return the entries of planted-posts.json."""
    tables = {
        "code.example-Posts.xml.gz": code(),
        "places.example/Posts.xml": places(entries),
        "meta.places.example/Posts.xml": meta(),
    }
    for name, table in tables.items():
        table.write(out / name)
    return [planted for table in tables.values() for planted in table.planted]


def code() -> Table:
    """Return the table of a site about code.

    Each answer comes before its question, which never happens in a real dump.
    """
    table = Table("code.example")
    for title, body, answers in CODE:
        question = len(table.rows) + len(answers) + 1
        for score, answer in answers:
            table.add(2, ParentId=question, Score=score, Body=answer)
        table.add(1, "kept", "answers first", Score=5, Title=title, Body=body, AnswerCount=len(answers))
    table.add(5, "other-post", "a tag wiki", Body="")
    return table


def places(entries: list[Entry]) -> Table:
    """Return the table of a site about the gazetteer's entries, with planted rows."""
    table = Table("places.example")
    for number, entry in enumerate(entries):
        title, body = ASK[number % len(ASK)]
        paragraphs = [text for _, texts in entry.sections for text in texts]
        question = table.add(1, Score=number % 9, Title=title.format(entry.title), Body=body.format(entry.title))
        for place, text in enumerate(paragraphs):
            answer = QUOTE.format(html.escape(text)) if place == number % 5 else f"<p>{html.escape(text)}</p>"
            table.add(2, ParentId=question, Score=(number * 31 + place * 57) % 140 - 10, Body=answer)
    lonely = (
        "<p>The maps of the county disagree, and nobody whom I have asked could tell me which of them is right.</p>"
    )
    table.add(1, "kept", "a question without answers", Title="Which map is right?", Body=lonely, Score=0)
    table.add(2, "orphan", "an answer to no question", ParentId=999_999, Body="<p>It is the one that is older.</p>")
    table.add(1, "no-text", "a question of nothing", Title=" ", Body="<p> </p>")
    table.add(1, "corrupt-record", "a score that is no number", Title="How many?", Body="<p>Many.</p>", Score="many")
    table.add(4, "other-post", "an excerpt of a tag wiki", Body="About rivers.")
    broken = table.add(1, "corrupt-record", "mark-up that was not escaped", Title="What is broken?", Body="BROKEN")
    table.rows[broken - 1] = table.rows[broken - 1].replace("BROKEN", "<p>All of it.</p>")
    expanding = table.add(1, "entity-expansion", "an entity that XML does not have", Title="Ha?", Body="LAUGH")
    table.rows[expanding - 1] = table.rows[expanding - 1].replace("LAUGH", "&laugh;")
    return table


def meta() -> Table:
    """Return the table of a meta site."""
    table = Table("meta.places.example")
    question = table.add(1, "meta-site", "a meta site", Title="May we ask about bridges?", Body="<p>May we?</p>")
    table.add(2, "meta-site", "a meta site", ParentId=question, Body="<p>You may.</p>", Score=3)
    return table
