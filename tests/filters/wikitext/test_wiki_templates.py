"""What templates show: by hand, from their documentation in each wiki, and the tables they come from."""

import re
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from linear import assert_linear, repeated

from filters.data_files import read_rows
from filters.wikitext import functions
from filters.wikitext import names as wikitext_names
from filters.wikitext.functions import COUNTRIES
from filters.wikitext.gaps import GONE, mark_unknown
from filters.wikitext.names import LANGUAGES
from filters.wikitext.render import render_text
from filters.wikitext.templates import load_rules, render_template

SHOWN = {
    "en": {
        "{{convert|5|km|mi}}": "5 km",
        "{{Convert|1,230|sqmi|km2|abbr=on}}": "1,230 sq mi",
        "{{convert|5|to|10|C|F}}": "5 to 10 °C",
        "{{convert|12|-|15|km2}}": "12–15 km²",
        "{{convert|6|ft|2|in|cm}}": "6 ft 2 in",
        "{{convert|3|x|4|m}}": "3 × 4 m",
        "{{convert|x|km}}": "",
        "{{convert|1.5e6|km}} {{cvt|2+1/2|in|mm}} {{convert|1//2|in}} {{convert|-5|C}}": (
            "1.5×10^6 km 2 1/2 in 1/2 in -5 °C"
        ),
        "{{convert|2|x|3|x|4|m}} {{convert|5|±|0.2|kg}} {{convert|1|and|2|mi}} {{convert|5|or|6|ft}}": (
            "2 × 3 × 4 m 5 ± 0.2 kg 1 and 2 mi 5 or 6 ft"
        ),
        "{{convert|1|to|2|e6acre|e6ha}}, {{cvt|5|e3km2}}": "1 to 2×10^6 acre, 5×10^3 km²",
        "{{convert|2|in|0|abbr=on}} {{convert|13|st|4|lb|kg}} {{convert|5|narrow|mi|km|adj=pre}}": (
            "2 in 13 st 4 lb 5 narrow mi"
        ),
        "2009{{endash}}2014 2009{{spaced ndash}}14 a{{emdash}}b 1{{dash year|2009|14}} 2009{{dash year|14}}": (
            "2009–2014 2009 – 14 a—b 12009–14 2009–14"
        ),
        "{{ISBN|978-0-1|978-0-2}} {{Nihongo4|Edo|江戸}} {{currency|1,000|JPY}} {{currency|5|code=PLN}}": (
            "ISBN 978-0-1, 978-0-2 Edo (江戸) ¥1,000 PLN 5"
        ),
        "{{OldStyleDate|February 2|1905|January 20}} 5.98{{e|24}} {{USS|Nimitz}}{{'s}} A{{music|flat}}": (
            "February 2 [O.S. January 20] 1905 5.98×10^24 USS Nimitz’s A♭"
        ),
        "{{coord|13|19|N|169|9|W|type:event}} {{coord|1.5|-2}} {{coord|1|N|2|E|display=title}} {{height|ft=6|in=2}}": (
            "13°19′N 169°9′W 1.5, -2 6 ft 2 in"
        ),
        "{{start date|1990|5|3}} {{harvtxt|A|B|1974}} {{Bibleverse|Mark|3|9}}": "3 May 1990 A & B (1974) Mark 3:9",
        "{{val|1.5|0.2|e=3|ul=kg}}": "1.5±0.2×10^3 kg",
        "{{val|7}}": "7",
        "{{frac|1|2}} {{frac|3|1|2}} {{frac|4}}": "1/2 3 1/2 1/4",
        "{{as of|2015|3}}, {{As of|2010|1|31|lc=y}}": "As of March 2015, as of 31 January 2010",
        "{{nihongo|'''Aikido'''|合気道|Aikidō|lead=yes}}": "Aikido (合気道, Aikidō)",
        "{{chem|H|2|O}} {{chem2|CO2}}": "H2O CO2",
        "{{lang|fr|''bon''}} {{lang-fr|jour}} {{transl|ar|al-Jazā'ir}} {{langx|de|Tag}}": "bon jour al-Jazā'ir Tag",
        "{{quote|text=A = b|author=C}}": "A = b",
        "{{quote|1=[http://a.com/?b=c d]}}": "d",
        "{{hlist|a|b|c}}": "a, b, c",
        "{{plainlist|\n* [[a|b]]\n* c\n}}": "b\nc",
        "{{nowrap|[[a|b|c]]}}": "b|c",
        "{{nowrap|a{{!}}b}} {{nowrap|1{{=}}2}}": "a|b 1=2",
        "{{formatnum:1234567}} {{formatnum:12|R}} {{uc:abc}} {{PAGENAME}}": "1234567 12 ABC T",
        "{{nbsp}}a{{snd}}b{{'}}": "a – b’",
        "{{circa|1900}} {{US$|5}} {{sup|2}} m{{sup|2}}": "c. 1900 US$5 2 m^2",
        "{{cite web|url=a}}{{Infobox|x}}{{sfn|A|1}}{{main|B}}": "",
        "in 5{{frac|1|2}} {{dagger}} m{{sub|2}} 10{{^|6}} {{section link|A|B}} {{reign|1500|10}} {{floruit|1400}}": (
            "in 5 1/2 † m2 10^6 A § B r. 1500–10 fl. 1400"
        ),
        "{{poemquote|Roses are red,\n  violets are ''blue''.\n\nEnd.|A}} b{{0}} {{--}} {{strikethrough|old}} c": (
            "Roses are red,\nviolets are blue.\n\nEnd.\n\nb – c"
        ),
        "A ({{lang-ru|Б}}, {{IPA-ru|b}}; born) b\n\n{{rquote|right|Said.|X}}\n\n{{epigraph|Here.}}": (
            "A (Б; born) b\n\nSaid.\n\nHere."
        ),
        "{{ Lang | fr | a }}{{nowrap\n|b}}": "ab",
        "{{née|B}} {{sortname|Ada|King}} {{ordinal|21}} {{ord|112}} {{ordinal|3}} {{lit|a}} {{transl.|b}}": (
            "née B Ada King 21st 112th 3rd lit. 'a' transl. b"
        ),
        "{{sqrt|2}} {{dts|1830|5|3}} {{tlit|ru|da}} {{cn span|text=a|date=b}} {{citation needed span|c|reason=d}}": (
            "√2 3 May 1830 da a c"
        ),
    },
    "fr": {
        "{{unité|3797|m}} {{unité|5|km|2}} {{nombre|71|sièges}}": "3797 m 5 km^2 71 sièges",
        "{{date|3|mai|1990}} {{date-|29 9 2019}} {{date|1|2|1990}}": "3 mai 1990 29 septembre 2019 1 février 1990",
        "{{s-|XXI}} {{s|I|er}} {{-s|V}}": "XXIe siècle Ier siècle Ve siècle av. J.-C.",
        "{{citation|bonjour}} {{incise|ici}} {{heure|4|30}} {{euro|77.80}}": "« bonjour » – ici – 4 h 30 77.80 €",
        "{{XXe siècle}}, la {{84e|édition}} {{unité|2|e=3|kg}}": "XXe siècle, la 84e édition 2×10^3 kg",
        "{{n°|3}} {{M.|Roux}} {{Mme}} {{av JC|50}} {{citation étrangère|en|hi}} {{citation étrangère|langue=en|ho}}": (
            "no 3 M. Roux Mme 50 av. J.-C. « hi » « ho »"
        ),
        "Otton {{Ier}} l{{'}}an": "Otton Ier l’an",
        "{{Quand|Un jour}} il{{quand}} vint{{pas clair|date=mai}} à {{refsou|Paris}}, {{p.|5}}": (
            "Un jour il vint à Paris, p. 5"
        ),
        "Le mot<ref>a</ref>{{,}}<ref>b</ref>. Ici.": "Le mot. Ici.",
        "cafés, écoles{{etc.}}) Roux {{et al.}}, 1990": "cafés, écoles etc.) Roux et al., 1990",
    },
    "de": {
        '{{"|Ja}} {{enS|yes}} {{Höhe|115|DE-NHN}}': "„Ja“ yes 115 m",
        "{{Zitat |Text=A |Autor=B}}": "A",
        "a {{arS|كلمة|d=x|b=y}} b {{nlS|woord}}": "a كلمة b woord",
    },
    "es": {
        "{{unidad|5|km}} {{siglo|XIX||s}} {{esd|a b}}": "5 km siglo XIX a b",
        "{{fecha|1|2|2010}} {{fecha|3|mayo|1990}}": "1 de febrero de 2010 3 de mayo de 1990",
    },
    "it": {
        "{{TA|3 743 km²}} {{M|5|u=km}} {{Senza fonte|x}}": "3 743 km² 5 km x",
        "{{M|3.5||K}} {{M|5|km}}": "3.5 K 5 km",
    },
    "pt": {
        "{{fmtn|1234|km}} {{dtlink|3|maio|1990}}": "1234 km 3 de maio de 1990",
        "{{dtlink|1|2|2000}} {{AC|44}} {{DC}}": "1 de fevereiro de 2000 44 a.C. d.C.",
    },
    "ru": {
        "{{нп5|Квартал|квартал|de|V}} {{нп5|A}} {{s|б}} Берли{{'}}н": "квартал A б Берли\u0301н",
        "{{date|1|2|2000}} {{OldStyleDate|1 марта|1900|17 февраля}} {{OldStyleDate|1 марта|1900}}": (
            "1 февраля 2000 17 февраля (1 марта) 1900 1 марта 1900"
        ),
        "З{{ударение|а}}мок.\n\n{{начало цитаты}}Так.{{конец цитаты}}": "За\u0301мок.\n\nТак.",
    },
    "cs": {"a {{vjazyce|en}} b": "a b"},
    "sl": {"{{jezik-en|word}}": "word"},
    "ro": {"{{conversie|5|la|10|km|mi}} {{Convert|3|by|4|m}} {{conversie|2|and|3|ft}}": "5 la 10 km 3 × 4 m 2 și 3 ft"},
    "uk": {"{{дата|1|2|2000}}": "1 лютого 2000", "{{convert|5|or|6|km}} з 1990{{тире}}1995": "5 або 6 km з 1990–1995"},
    "sv": {"{{cvt|5|to|10|km}} 2009{{tankstreck}}2014": "5 till 10 km 2009–2014"},
    "nl": {"{{convert|5|±|1|km}} {{omrekenen|2|x|3|x|4|m}}": "5 ± 1 km 2 × 3 × 4 m"},
    "sr": {"{{јез-нем|Berlin}} {{jez-en|x}}": "Berlin x"},
}

RANGE_WORDS = {
    row[1]: row[2].split() for row in read_rows("filters.wikitext", "functions.tsv") if row[0] == "range word"
}

COUNTS = {"*": 309, "bg": 10, "ca": 26, "cs": 17, "da": 13, "de": 56, "en": 172, "es": 39, "fr": 155, "hr": 10,
          "hu": 17, "it": 22, "nl": 13, "pl": 18, "pt": 37, "ro": 34, "ru": 77, "sl": 13, "sr": 24, "sv": 17,
          "uk": 43}  # fmt: skip
NAMES = {"LANGUAGES": 20, "OTHER_LANGUAGES": 343, "FILES": 46, "CATEGORIES": 13, "REDIRECTS": 28, "LITERAL": 1,
         "FORMULAS": 3, "LISTINGS": 3, "CODE": 14, "ASIDE": 9, "LINES": 21, "TAGS": 82}  # fmt: skip


@pytest.mark.parametrize(
    ("language", "wikitext"), [(language, text) for language, texts in SHOWN.items() for text in texts]
)
def test_what_templates_show(language: str, wikitext: str) -> None:
    assert render_text(wikitext, language, "T") == SHOWN[language][wikitext]


CONVERTS = [
    (language, name)
    for language in LANGUAGES
    for listed, names, shown in read_rows("filters.wikitext", "templates.tsv")
    if shown == "@convert" and listed in ("*", language)
    for name in names.split(", ")
]


def test_every_wiki_but_the_english_one_has_names_of_its_own_for_convert() -> None:
    assert {language for language in LANGUAGES if (language, "convert") in CONVERTS} == set(LANGUAGES)
    named = {row[0] for row in read_rows("filters.wikitext", "templates.tsv") if row[2] == "@convert"}
    assert named == {"*", *LANGUAGES} - {"en"}


@pytest.mark.parametrize(("language", "name"), CONVERTS)
def test_quantities_keep_their_numbers_under_every_name_of_every_wiki(language: str, name: str) -> None:
    def show(arguments: str) -> str:
        return render_text(f"a {{{{{name.capitalize()}|{arguments}}}}} b", language, "T")

    assert show("5|km2|sqmi") == "a 5 km² b" and show("1.5e6|km") == "a 1.5×10^6 km b"
    for word in ("to", "and", "or", "to(-)", *RANGE_WORDS[language]):
        between = re.fullmatch(r"a 5( \w+ |–)10 km b", show(f"5|{word}|10|km|mi"))
        assert between and (between[1] == "–" or between[1].strip() in RANGE_WORDS[language]), word
    for sign in ("-", "–", "−", "&ndash;", "&#8211;"):
        assert show(f"5|{sign}|10|km") == "a 5–10 km b"
    for sign in ("x", "by", "×", "&times;", "*"):
        assert show(f"5|{sign}|10|by|20|m") == "a 5 × 10 × 20 m b"


@pytest.mark.parametrize("arguments", ["5|until|6|km", "5|km|6|mi", "5|6|km", "5|and some|6|ft|2|in"])
def test_a_range_that_is_not_understood_takes_its_sentence_with_it(arguments: str) -> None:
    for language in LANGUAGES:
        text = f"It is {{{{convert|{arguments}}}}} long. It flows."
        assert render_text(text, language, "T") == "It flows."


def test_the_table_of_templates_has_each_name_once_in_lower_case() -> None:
    listed: dict[str, list[str]] = {}
    for language, names, _ in read_rows("filters.wikitext", "templates.tsv"):
        listed.setdefault(language, []).extend(names.split(", "))
    assert set(listed) == {"*", *LANGUAGES}
    assert {language: len(names) for language, names in listed.items()} == COUNTS
    for language, names in listed.items():
        assert len(set(names)) == len(names)
        assert all(name == name.lower().strip() and "_" not in name for name in names)
        assert set(load_rules(language)) == {*listed["*"], *names}
    assert set(load_rules("")) == set(load_rules("ja")) == set(listed["*"])


def test_the_silent_templates_are_in_lower_case_and_show_nothing_else() -> None:
    for language, names in read_rows("filters.wikitext", "silent_templates.tsv"):
        for name in names.split(", "):
            assert name == name.lower().strip() and "_" not in name and language in {"*", *LANGUAGES}
            assert name not in load_rules("" if language == "*" else language), name
            assert render_template(name.replace("*", "x") + "|a", language) == GONE, name


def test_the_names_of_wikitext_are_complete_and_in_lower_case() -> None:
    tables = {name: value for name, value in vars(wikitext_names).items() if name in {*NAMES, "APPARATUS"}}
    apparatus = tables.pop("APPARATUS")
    assert {name: len(value) for name, value in tables.items()} == NAMES
    assert sum(map(len, apparatus.values())) == 156
    for names in (*tables.values(), *apparatus.values()):
        assert all(name == name.lower().strip() != "" for name in names)


DATES = {
    "bg": "3 май 1990", "ca": "3 de maig de 1990", "cs": "3. května 1990", "da": "3. maj 1990", "de": "3. Mai 1990",
    "en": "3 May 1990", "es": "3 de mayo de 1990", "fr": "3 mai 1990", "hr": "3. svibnja 1990", "hu": "1990. május 3.",
    "it": "3 maggio 1990", "nl": "3 mei 1990", "pl": "3 maja 1990", "pt": "3 de maio de 1990", "ro": "3 mai 1990",
    "ru": "3 мая 1990", "sl": "3. maj 1990", "sr": "3. мај 1990", "sv": "3 maj 1990", "uk": "3 травня 1990",
}  # fmt: skip


@pytest.mark.parametrize("language", LANGUAGES)
def test_dates_ages_and_countries_in_the_language_of_the_wiki(language: str) -> None:
    for template in ("birth date|1990|5|3", "death date and age|1990|05|03|1920|1|2", "dob|3|5|1990"):
        assert render_template(template, language) == DATES[language]
    assert render_template("age|1989|7|23|2003|7|14", language) == "13"
    assert render_template("age|1989|7|23|2003|7|23", language) == "14"
    assert render_template("age|1990|5|3", language) == mark_unknown(), "it depends on the day of reading"
    country = COUNTRIES["FRA"][language]
    assert render_text("* {{FRA}}\n* {{FRA|#}} a\n* {{flag|FRA}}\n* {{flag|Azores}}", language) == (
        f"{country}\na\n{country}\nAzores"
    )
    assert render_template("fra", language) == mark_unknown(), "codes are written in capital letters"


def test_dates_that_are_not_whole() -> None:
    assert render_text("{{start date|1990}} {{start date|1990|5}} {{dob|3 May 1990}} {{birth date|63|9|23}}", "en") == (
        "1990 May 1990 3 May 1990 23 September 63"
    )
    assert render_text("{{date||5|1990}} {{date|1990}} {{date|3 mai 1990}}", "fr") == "mai 1990 1990 3 mai 1990"
    assert render_text("{{date|9 1990}} {{date|29 9}} {{date|1|2}} {{date|29 9 2019}}", "fr") == (
        "septembre 1990 29 septembre 1 février 29 septembre 2019"
    )
    assert render_text("{{birth date|1990}} {{birth date|1990|4}}", "hu") == "1990 1990. április"
    assert render_text("{{birth date|1990|4|3}} {{birth date|1990|4}}", "ca") == "3 d'abril de 1990 d'abril de 1990"


def test_the_table_of_countries_is_complete() -> None:
    (header, *rows) = (Path(functions.__file__).with_name("countries.tsv").read_text(encoding="utf-8")).splitlines()
    assert header.split("\t") == ["codes", *LANGUAGES] and len(rows) == 62 and len(COUNTRIES) == 78
    for code, names in COUNTRIES.items():
        assert len(code) == 3 and code.isupper() and all(name == name.strip() != "" for name in names.values())
    assert render_text("5{{esp|3}} {{ESP}}", "es") == "5×10^3 España", "the case of a name counts"


@given(st.lists(st.integers(0, 2500), min_size=1, max_size=6), st.sampled_from(LANGUAGES), st.sampled_from(["i", ""]))
def test_no_number_of_a_date_is_altered(numbers: list[int], language: str, form: str) -> None:
    for between in " -/":
        assert set(re.findall(r"\d+", render_template(f"date|{between.join(map(str, numbers))}", language))) <= set(
            map(str, numbers)
        )
    name = {"i": "birth date", "": {"fr": "date", "ru": "дата", "es": "fecha"}.get(language, "dob")}[form]
    text = render_template("|".join([name, *map(str, numbers)]), language)
    assert set(re.findall(r"\d+", text)) <= set(map(str, numbers))


def test_a_name_of_one_language_means_nothing_in_another() -> None:
    assert render_text("a {{citation|b}}", "en") == "a" and render_text("a {{citation|b}}", "fr") == "a « b »"
    assert render_template("unité|1|m", "en") == mark_unknown()


STARTS = [
    "convert|",
    "val|",
    "date|",
    "as of|",
    "age|1|2|3|",
    "dob|",
    "flag|",
    "#expr:",
    "#if:",
    "#switch:",
    "#ifeq:",
    "",
]


@given(st.text(), st.sampled_from([*LANGUAGES, "", "ja"]), st.sampled_from(STARTS))
@settings(max_examples=500, deadline=None)
def test_no_template_makes_it_raise(content: str, language: str, name: str) -> None:
    assert isinstance(render_template(name + content, language, "T"), str)


def test_many_arguments_take_linear_time() -> None:
    for piece in ("\n", "\n|", "\n |a", "|date=", "a:", "{", " "):
        assert_linear(lambda content: render_template(content, "en"), repeated(piece, "x"), 100_000)
        assert_linear(lambda content: render_template(content, "en"), repeated(piece, "x|1"), 100_000)
    for name in ("convert", "hlist", "val", "date", "x"):
        assert_linear(lambda content: render_template(content, "en"), repeated("|1", name), 400_000)
        assert_linear(lambda content: render_template(content, "en"), repeated("1,", name + "|"), 400_000)
