"""Project Gutenberg's wrapping comes off in every form it has had, and never takes the book along."""

import gzip
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from linear import assert_linear, repeated

from filters.books.gutenberg import HEADER_LINES, count_leftovers, strip_boilerplate
from filters.reasons import Reason
from manifests.source import Source
from pipeline.sources import books

SAMPLES = Path(__file__).parents[4] / "shared/data/gutenberg"
BOOK = (
    "THE LAMP\n\nBy A. Writer\n\nCHAPTER I\n\nIt was dark.\nThe lamp was lit.\n\n\nCHAPTER II\n\n"
    + "It was light.\n" * 60
    + "\nTHE END"
)
LICENCE = "\n\n".join(
    ["Updated editions will replace the previous one.", "*** START: FULL LICENSE ***", "1.A. By reading"]
)
LEAVE = "This eBook is for the use of anyone anywhere at no cost.\nYou may copy it."
FIELDS = "Title: The Lamp\n       A Story\n\nAuthor: A. Writer\n\nRelease Date: May 1, 2001 [EBook #77]\n[Last updated: 2]\n\nLanguage: English"  # noqa: E501
NEW = f"The Project Gutenberg eBook of The Lamp\n\n{LEAVE}\n\n{FIELDS}\n\n\n"
SMALL = (
    "**The Legal Small Print**\n\n***START**THE SMALL PRINT!**FOR PUBLIC DOMAIN ETEXTS**START***\n"
    'Why is this "Small Print!" statement here? You know: lawyers.\n\n'
)
SMALL_END = "*END*THE SMALL PRINT! FOR PUBLIC DOMAIN ETEXTS*Ver.04.29.93*END*\n\n"
START, END = (
    "*** START OF THIS PROJECT GUTENBERG EBOOK THE LAMP ***\n",
    "\n*** END OF THIS PROJECT GUTENBERG EBOOK THE LAMP ***\n",
)
BOX = "+-------+\n| Transcriber's Note: |\n|  one  |\n+-------+\n"

FORMS = {
    "since 2004": f"{NEW}{START}\n\nProduced by Some One and the Online\nTeam\n\n\n{BOOK}\n\n{END}\n{LICENCE}",
    "with a plain end as well": (
        f"{NEW}{START}{BOOK}\n\nEnd of the Project Gutenberg EBook of The Lamp, by A. Writer\n{END}{LICENCE}"
    ),
    "plain end of two lines": (
        f"{NEW}{START}{BOOK}\n\nEnd of Project Gutenberg’s The Lamp\nTranslated by X\n{END}{LICENCE}"
    ),
    "marks over two lines": (
        f"{NEW}*** START OF THIS PROJECT GUTENBERG EBOOK\nTHE LAMP ***\n\n{BOOK}\n\n"
        "*** END OF THIS PROJECT GUTENBERG EBOOK\nTHE LAMP ***\n"
    ),
    "marks without blanks": (
        f"{NEW}***START OF THE PROJECT GUTENBERG EBOOK THE LAMP***\n{BOOK}\n"
        f"***END OF THE PROJECT GUTENBERG EBOOK THE LAMP***\n{LICENCE}"
    ),
    "copyrighted": (
        f"{NEW}*** START OF THE COPYRIGHTED PROJECT GUTENBERG EBOOK THE LAMP ***\n{BOOK}\n\n"
        "*** END OF THE COPYRIGHTED PROJECT GUTENBERG EBOOK THE LAMP ***\n"
    ),
    "no end": f"{NEW}{START}{BOOK}\n\nEnd of Project Gutenberg's The Lamp, by A. Writer\n",
    "no end at all": f"{NEW}{START}{BOOK}\n",
    "no start": f"{BOOK}\n\n{END}{LICENCE}",
    "no start, with its header": f"{NEW}Produced by A. Volunteer\n\n{BOOK}\n\n{END}{LICENCE}",
    "an older header inside": (
        f"{NEW}{START}\nThe Project Gutenberg Etext of The Lamp\nby A. Writer\n(#6 in our series)\n\n"
        f"***\n\nThis etext was prepared by B.\n\n{BOOK}\n{END}"
    ),
    "1990s": (
        "The Project Gutenberg Etext of The Lamp, by A. Writer\n#7 in our series by A. Writer\n\n"
        "Copyright laws are changing.\n\nThe Lamp\n\nMay, 1995  [Etext #77]\n\n"
        f"*****This file should be named lamp10.txt*****\n\n{SMALL}{SMALL_END}\n\n"
        f"This etext was typed by C. D., Oxford.\n\n{BOOK}\n\n"
        "\nEnd of The Project Gutenberg Etext of The Lamp\n"
    ),
    "1990s, other spelling": (
        "**The Project Gutenberg Etext of The Lamp, by A. Writer**\n\n[Etext #77]\n\n"
        f"{SMALL}*END THE SMALL PRINT! FOR PUBLIC DOMAIN ETEXTS*Ver.04.29.93*END*\n{BOOK}\n\n"
        "End of Project Gutenberg Etext\n"
    ),
    "small print in brackets": (
        f'Project Gutenberg Etext of The Lamp\n[Etext #77]\n\n["Small Print" V.12.08.93]\n\n{BOOK}\n'
    ),
    "a new header before the small print": f"{NEW}{START}\nWelcome\n\n{SMALL}{SMALL_END}{BOOK}\n\n{END}",
    "2003: small print behind": (
        f"{NEW}*** START OF THE PROJECT GUTENBERG ETEXT OF THE LAMP ***\n\n"
        "This etext was produced by E.\n\n"
        f"{BOOK}\nThe Project Gutenberg Etext of The Lamp\nby A. Writer\n******This file should be named 77.txt******"
        f"\n\n{SMALL}{SMALL_END}"
    ),
    "German": (
        f"{NEW}{START}\nProduced by F.\n\n[ Anmerkungen zur Transkription:\n\n  Wie im Original.\n]"
        f"\n\n{BOOK}\n\nEnde dieses Projekt Gutenberg Etextes\n{END}"
    ),
    "French": (
        f"{NEW}{START}\nProduced by G.\n\n\nAu lecteur\n\nCette version électronique est fidèle.\n\n"
        f"La ponctuation aussi.\n\n\n\n{BOOK}\n\nListe des modifications:\n\npage 1: «a»\n\n"
        f"Fin de Project Gutenberg's The Lamp\n{END}"
    ),
    "Australia": (
        "* A Project Gutenberg of Australia eBook *\n\nTitle: The Lamp\nAuthor: A. Writer\neBook No.: 0100021.txt\n"
        "Language: English\nDate first posted: August 2001\n\nThis eBook was produced by: B. C.\n\n"
        "Project Gutenberg of Australia eBooks are created from printed editions\nwhich are in the public domain.\n\n"
        "This eBook is made available at no cost.\n\nTo contact us go to http://gutenberg.net.au\n\n\n"
        f"{BOOK}\n\n\nThis site is full of FREE ebooks - Project Gutenberg Australia\n"
    ),
    "Canada": (
        "The Project Gutenberg of Canada eBook: The Lamp\nby A. Writer\n\nThis eBook is made available at no cost.\n\n"
        "Title: The Lamp\nAuthor: A. Writer\nProject Gutenberg Canada ebook #123\n\nThis ebook was produced by B.\n\n\n"
        f"{BOOK}\n\n\n[End of The Lamp, by A. Writer]\n"
    ),
    "Faded Page": (
        "* A Distributed Proofreaders Canada eBook *\n\nThis eBook is made available at no cost and with few\n"
        "restrictions.\n\nThis work is in the Canadian public domain, but may be\nunder copyright elsewhere.\n\n"
        "_Title:_ The Lamp\n_Date of first publication:_ 1920\n_Author:_ A. Writer\nFaded Page eBook #20191001\n\n"
        f"This eBook was produced by: B. C.\n\n\n{BOOK}\n\n\n[The end of _The Lamp_ by A. Writer]\n"
    ),
    "boxed notes": f"{NEW}{START}\n * * * * *\n\n{BOX}\n * * * * *\n\n{BOOK}\n\n * * * * *\n\n{BOX}{END}",
    "notes in brackets": (
        f"{NEW}{START}\n[Transcriber's note: see [1] and\nthe end.]\n\n{BOOK}\n\n"
        f"[Transcriber’s Note: as printed.]\n{END}"
    ),
    "a note as a paragraph": (
        f"{NEW}{START}\n    Transcriber's Note:\n    The book has no cover.\n\n\n{BOOK}\n\n"
        f"\nTRANSCRIBER'S NOTES\n\nA comma was added.\n\nPage 7 too.\n{END}"
    ),
}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("ends", ["\n", "\r\n", "BOM"])
def test_every_form_leaves_the_book(form: str, ends: str) -> None:
    stored = (
        FORMS[form].replace("\n", "\r\n" if ends == "\r\n" else "\n").encode("utf-8-sig" if ends == "BOM" else "utf-8")
    )
    (outcome,) = books.read(stored, "a.txt", "books", Source(weight=1.0, kind="books"))
    assert outcome.document and outcome.document.text == BOOK


def test_the_header_becomes_metadata() -> None:
    book = strip_boilerplate(FORMS["since 2004"])
    expected = {"title": "The Lamp A Story", "author": "A. Writer", "released": "May 1, 2001", "language": "English"}
    assert (book.number, book.about, book.whole) == (77, expected, False)
    assert strip_boilerplate(FORMS["Faded Page"]).about == {"title": "The Lamp", "author": "A. Writer"}
    assert strip_boilerplate(FORMS["Australia"]).about == {k: v for k, v in expected.items() if k != "released"} | {
        "title": "The Lamp"
    }
    book = strip_boilerplate(FORMS["1990s"])
    assert (book.number, book.about) == (77, {"title": "The Lamp", "author": "A. Writer"})
    (outcome,) = books.read(FORMS["since 2004"].encode(), "a.txt", "books", Source(weight=1.0, kind="books"))
    assert outcome.document and outcome.document.url == "https://www.gutenberg.org/ebooks/77"
    assert outcome.document.metadata == {**expected, "ebook": 77}


@pytest.mark.parametrize(
    "text",
    [
        BOOK,
        "",
        "Project Gutenberg ebooks are free.\n\nI read many.\n\nProduced by nobody.",
        "A book about books.\n\nThe Project Gutenberg eBook of Emma is one.\n\nI like it.",
        f"Produced by the company of the Lamp\n\n{BOOK}",
        f"{BOOK}\n\nTranscriber's note: none.",
        f"{BOOK}\n\n[The end of the lamp]",
        "[Transcriber's note: a text that nobody marked.]\n\nText.",
    ],
)
def test_other_texts_are_left_as_they_are(text: str) -> None:
    assert strip_boilerplate(text).text == text and strip_boilerplate(text).whole


NAMES = [
    *("Transcriber's Note", "TRANSCRIBER’S NOTES", "Transcribers' notes", "Transcriber Note", "Redactor's Note"),
    *(
        "Transcriber's Endnote",
        "PREPARER'S NOTE",
        "Etext preparer's notes",
        "Transcription note",
        "E-text editor's note",
    ),
    *("Transcriber's Amendments", "Digitizer's note", "Note on the e-text", "Notes from the transcriber", "Tr. Note"),
    *("Anmerkungen zur Transkription", "Hinweise zur Transkription", "Note du transcripteur", "Nota del trascrittore"),
    *("Notas de Transcrição", "Opmerkingen van de bewerker", "Paalala ng nagsalin"),
    *("Anmärkningar till den elektroniska utgåvan", "Poznámka k přepisu", "Az elektronikus kiadás megjegyzései"),
    *("Notele transcriptorului", "Napomena o transkripciji", "Opombe k prepisu", "Напомена о транскрипцији"),
    *("Бележки към електронното издание", "Примітки до транскрипції", "Примечание к транскрипции"),
    *("Nota del transcriptor", "Note de l’éditeur électronique", "Σημείωση: Ο τονισμός έχει αλλάξει"),
]
NOTES = [
    "[{name}: The spelling\nwas kept [sic] as it is.]", "({name}: The spelling was kept.)", "{{{name}: It was kept.}}",
    "_{name}: The spelling was kept._", "{name}: The spelling\nwas kept as it is.", "    {name}:\n    It was kept.",
    "{name}\n\nThe spelling was kept.\n\nPage 7 too.\n\n", "+-----+\n| {name} |\n| It was kept. |\n+-----+",
    "[{name}--It was kept.]",
]  # fmt: skip
CREDITS = [
    "Transcribed from the 1894 Macmillan edition by David P., email a@pglaf.org",
    "E-text prepared by A B\nand the Project Gutenberg Online Distributed Proofreading Team",
    "Note: Project Gutenberg also has an HTML version of this\n      file. See 123-h.htm",
    "      (http://www.gutenberg.org/files/1/1-h.htm)\n      or\n      (http://www.gutenberg.org/files/1.zip)",
    "Images of the original pages are available through\n      Internet Archive. See https://archive.org/details/a",
    "Scanned and proofread by C.  HTML version by D.",
    "This ebook was created by E with the help of\nDistributed Proofreaders Europe",
    "Digitized by F for the Internet Archive; proofed by G",
]
ENDS = [
    "Fine del progetto Gutenberg", "Fin del Proyecto Gutenberg EBook de La Lampe", "Einde van Project Gutenberg Etext",
    "Slut på Project Gutenberg", "Koniec Projektu Gutenberg", "End of this Project Gutenberg Etext",
    "Final do Projecto Gutenberg",
]  # fmt: skip


@pytest.mark.parametrize("note", NOTES)
@pytest.mark.parametrize("name", NAMES)
def test_notes_of_every_name_and_form_go_wherever_they_are(name: str, note: str) -> None:
    typed = note.replace("{name}", name).replace("{{", "{").replace("}}", "}")
    title, _, rest = BOOK.partition("\n\nCHAPTER I\n")
    for text in (f"{typed}\n\n\n{BOOK}", f"{BOOK}\n\n\n{typed}", f"{title}\n\n{typed}\n\n\nCHAPTER I\n{rest}"):
        book = strip_boilerplate(f"{NEW}{START}\n{text}\n\n{END}{LICENCE}").text
        assert [line for line in book.split("\n") if line] == [line for line in BOOK.split("\n") if line]


@pytest.mark.parametrize("credit", CREDITS)
def test_credits_go_before_and_behind_the_book_and_on_its_title_pages(credit: str) -> None:
    title, _, rest = BOOK.partition("\n\nCHAPTER I\n")
    texts = [f"{credit}\n\n{BOOK}", f"{BOOK}\n\n{credit}", f"{CREDITS[0]}\n\n{credit}\n\n\n{BOOK}"]
    if credit in CREDITS[:2]:
        texts.append(f"{title}\n\n{credit}\n\nCHAPTER I\n{rest}")
    for text in texts:
        book = strip_boilerplate(f"{NEW}{START}\n{text}\n\n{END}{LICENCE}").text
        assert [line for line in book.split("\n") if line] == [line for line in BOOK.split("\n") if line]


EXPORTS = [
    ("Exported from Wikisource on October 12, 2024", "This e-book comes from the online library Wikisource."),
    ("Exportiert aus Wikisource am 5. Mai 2020", "Dieses E-Book stammt aus der Online-Bibliothek Wikisource."),
    ("Exporté de Wikisource le 3 mai 2020", "Ce livre électronique est issu de la bibliothèque numérique Wikisource."),
    ("Exportado de Wikisource el 3", "Este libro electrónico proviene de la biblioteca digital Wikisource."),
    ("Esportato da Wikisource il 3", "Questo ebook proviene dalla biblioteca online Wikisource."),
    ("Geëxporteerd uit Wikisource op 3", "Dit e-boek komt uit de online bibliotheek Wikisource."),
    ("Wyeksportowano z Wikiźródeł dnia 3", "Ten e-book pochodzi z wolnej biblioteki Wikiźródła."),
    ("Экспортировано из Викитеки 3", "Эта электронная книга взята из онлайн-библиотеки Викитека."),
]


@pytest.mark.parametrize(("line", "about"), EXPORTS)
@pytest.mark.parametrize("heading", ["About this digital edition\n\n", ""])
def test_what_wikisources_export_adds_goes(line: str, about: str, heading: str) -> None:
    book, rest = "THE LAMP\n\nA. Writer\n\n{}I.\n\n" + BOOK, "It is built by\nvolunteers.\n\nAna\nBob\n"
    assert strip_boilerplate(book.format(f"{line}\n\n") + f"\n\n{heading}{about}\n{rest}").text == book.format("")
    said = f"{BOOK}\n\nWikisource is a library. {about}\n\n{BOOK}"
    assert strip_boilerplate(said).text == said, "a book on Wikisource"


@pytest.mark.parametrize("line", ENDS)
def test_ends_in_other_languages(line: str) -> None:
    assert strip_boilerplate(f"{NEW}{START}\n{BOOK}\n\n{line}\n{END}{LICENCE}").text == BOOK


@pytest.mark.parametrize(
    "inside",
    [
        "[Transcriber's note: a bracket that never closes\n\nMore book.",
        "The transcriber's notes were lost, and the redactor's, too.",
        "Producer's notes lay about. A note from the editor: all is well.",
        "EDITION DE LUXE\n\nLanguage is a river.\n\nTitle and deed.",
        "The letter ended so:\n\nEND OF VOLUME I.\n\nThe second volume began.",
        'He said: "End of it."\n\nThe small print was hard to read.\n\nThey were produced by hand.',
        "***\n\nStars stood between.\n\n* * * * *\n\nAnd again.",
        "+-----+\n| a box |\n+-----+\n\nthat is the book's.",
    ],
)
def test_what_a_book_says_itself_stays(inside: str) -> None:
    whole = f"{BOOK}\n\n{inside}\n\n{BOOK}"
    assert strip_boilerplate(f"{NEW}{START}\n{whole}\n{END}{LICENCE}").text == whole


def test_an_end_far_from_the_end_is_none() -> None:
    """A volume that ends with its own line, and another volume behind it."""
    first, second = f"{BOOK}\n\nEnd of Project Gutenberg's The Lamp, Volume 1\n", "It went on and on.\n" * 5_000
    assert strip_boilerplate(f"{NEW}{START}{first}{second}").text == (first + second).strip("\n")
    assert strip_boilerplate(f"{NEW}{START}{first}{second}{END}{LICENCE}").text == (first + second).strip("\n")


def test_a_short_text_between_long_small_prints_stays() -> None:
    poem = "THE POEM\n\nTen words are all that there are in this one."
    small = SMALL + "You may not.\n" * 300 + SMALL_END
    assert strip_boilerplate(f"{NEW}{START}{poem}\n\nEnd of Project Gutenberg's The Poem\n\n{small}").text == poem


@given(
    st.lists(
        st.sampled_from([*FORMS["1990s"].split("\n"), *FORMS["boxed notes"].split("\n"), "[", "]", "x" * 50]),
        max_size=60,
    )
)
@settings(max_examples=300, deadline=None)
def test_any_order_of_marks_ends_well(lines: list[str]) -> None:
    text = "\n".join(lines)
    book = strip_boilerplate(text)
    assert set(book.text.split("\n")) <= {*text.split("\n"), ""}


@pytest.mark.parametrize(
    "piece",
    [
        "[Transcriber's note: \n",
        "+-----+\n| Transcriber's note\n",
        "Produced by \n\n",
        "*** END OF THE PROJECT GUTENBERG\n",
        "*** START OF THE PROJECT GUTENBERG\n",
        "*",
        "Transcriber's Note\n\n",
        " " * 50,
        "THE SMALL PRINT ",
        "[EBook # \n",
        "Title: \n",
    ],
)
def test_hostile_text_takes_linear_time(piece: str) -> None:
    assert_linear(strip_boilerplate, repeated(piece, NEW + START), 500_000)


EDGES = {
    "a-alice": ("[Illustration]", "THE END"),
    "b-11-0": ("ALICE’S ADVENTURES IN WONDERLAND", "THE END"),
    "a-candide": ("THE MODERN LIBRARY", "[35] P. 149. François Leopold Ragotsky (1676-1735)."),
    "a-doctrina": ("DOCTRINA CHRISTIANA", "1930--34, IX, p. 22, and VII, p. 181 respectively."),
    "a-dorian": ("The Picture of Dorian Gray", "THE END"),
    "b-pg174": ("The Picture of Dorian Gray", "that they recognized who it was."),
    "a-florante": ("FLORANTE", "rop"),
    "a-hamlet": ("SHAKESPEARE'S TRAGEDY", "victorious cock.]"),
    "a-importance": ("The Importance of Being Earnest", "TABLEAU"),
    "b-pg844": ("The Importance of Being Earnest", "TABLEAU"),
    "a-jekyll": (
        "The Strange Case Of Dr. Jekyll And Mr. Hyde",
        "confession, I bring the life of that unhappy Henry Jekyll to an end.",
    ),
    "b-43-0": (
        "The Strange Case Of Dr. Jekyll And Mr. Hyde",
        "confession, I bring the life of that unhappy Henry Jekyll to an end.",
    ),
    "a-josefine": ("Josefine", "ganze Unterschied."),
    "a-legend": ("The Legend of Sleepy Hollow", "THE END."),
    "b-41-0": ("THE LEGEND OF SLEEPY HOLLOW", "THE END."),
    "a-metamorphosis": ("Metamorphosis", "first to get up and stretch out her young body."),
    "b-pg5200": ("Copyright (C) 2002 David Wyllie.", "first to get up and stretch out her young body."),
    "a-modest": ("A Modest Proposal", "my wife past child-bearing."),
    "b-pg1080": ("A MODEST PROPOSAL", "child-bearing."),
    "a-pride": ("[Illustration:", "TOOKS COURT, CHANCERY LANE, LONDON."),
    "b-archive__project-gutenberg-data__pg1342": ("[Illustration:", "TOOKS COURT, CHANCERY LANE, LONDON."),
    "b-Pride": ("PRIDE AND PREJUDICE", "her into Derbyshire, had been the means of uniting them."),
    "a-shen": ("序", "也」之意。"),
    "a-sherlock": (
        "The Adventures of Sherlock Holmes",
        "Walsall, where I believe that she has met with considerable success.",
    ),
    "b-archive__project-gutenberg-data__pg1661": (
        "The Adventures of Sherlock Holmes",
        "Walsall, where I believe that she has met with considerable success.",
    ),
    "a-time": ("The Time Machine", "still lived on in the heart of man."),
    "b-35-0": ("The Time Machine", "still lived on in the heart of man."),
    "b-French__Candide": ("OEUVRES", "FIN DE CANDIDE."),
    "b-French__Persuasion": ("MISS AUSTEN", "Châteauroux.--Typog. et Stér. A. MAJESTÉ."),
    "b-The-Call": ("The Call of Cthulhu", ""),
    "b-pg24823": ("BIBLIOTECA de LA NACIÓN", "FIN"),
    "b-pg4657": ("PERSONAL NARRATIVE OF A PILGRIMAGE TO AL-MADINAH & MECCAH", "END OF VOLUME I."),
}


@pytest.mark.skipif(not SAMPLES.exists(), reason="the real sample data (../shared/data) is not here")
def test_every_real_book_keeps_its_first_and_last_lines_and_nothing_of_the_wrapping() -> None:
    seen = set()
    for path in sorted(SAMPLES.glob("*.gz")):
        stored = path.read_bytes()
        (outcome,) = books.read(stored, path.name, "books", Source(weight=1.0, kind="books"))
        assert outcome.stored == len(stored)
        if path.name in ("a-scarlet_letter.txt.gz", "a-tractatus.txt.gz"):
            assert outcome.reason is Reason.NOT_PLAIN_TEXT
            continue
        assert outcome.document is not None, path.name
        name = next(name for name in EDGES if path.name.startswith(name))
        seen.add(name)
        lines = [line.strip() for line in outcome.document.text.split("\n") if line.strip()]
        first, last = EDGES[name]
        assert lines[0] == first and (not last or lines[-1] == last), name
        lowered = outcome.document.text.lower()
        assert "project gutenberg" not in lowered and "pgdp" not in lowered and "transcriber" not in lowered, name
        whole = gzip.decompress(stored).decode().count("\n")
        assert whole - outcome.document.text.count("\n") < HEADER_LINES, name
        if name != "b-The-Call":
            assert outcome.document.url.rpartition("/")[2].isdigit() and outcome.document.metadata["language"]
    assert seen == set(EDGES)
    assert len(list(SAMPLES.glob("*.gz"))) == len(EDGES) + 2


def test_leftovers_are_counted_in_any_form() -> None:
    clean = "It was a dark night. The transcript of the letter was lost."
    left = "Transcriber's note: PROJECT GUTENBERG made this e-text; proofread by two."
    assert count_leftovers(clean) == 0 and count_leftovers(f"{clean}\n{left}") == 4
