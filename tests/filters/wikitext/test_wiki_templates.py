"""What templates show: by hand, from their documentation in each wiki, and the tables they come from."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from linear import assert_linear, repeated

from filters.data_files import read_rows
from filters.wikitext import names as wikitext_names
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
        "{{ Lang | fr | a }}{{nowrap\n|b}}": "ab",
    },
    "fr": {
        "{{unité|3797|m}} {{unité|5|km|2}} {{nombre|71|sièges}}": "3797 m 5 km^2 71 sièges",
        "{{date|3|mai|1990}} {{date-|29 9 2019}} {{date|1|2|1990}}": "3 mai 1990 29 septembre 2019 1 février 1990",
        "{{s-|XXI}} {{s|I|er}} {{-s|V}}": "XXIe siècle Ier siècle Ve siècle av. J.-C.",
        "{{citation|bonjour}} {{incise|ici}} {{heure|4|30}} {{euro|77.80}}": "« bonjour » – ici – 4 h 30 77.80 €",
        "Otton {{Ier}} l{{'}}an": "Otton Ier l’an",
    },
    "de": {'{{"|Ja}} {{enS|yes}} {{Höhe|115|DE-NHN}}': "„Ja“ yes 115 m", "{{Zitat |Text=A |Autor=B}}": "A"},
    "es": {"{{unidad|5|km}} {{siglo|XIX||s}} {{esd|a b}}": "5 km siglo XIX a b"},
    "it": {"{{TA|3 743 km²}} {{M|5|u=km}} {{Senza fonte|x}}": "3 743 km² 5 km x"},
    "pt": {"{{fmtn|1234|km}} {{dtlink|3|maio|1990}}": "1234 km 3 de maio de 1990"},
    "ru": {"{{нп5|Квартал|квартал|de|V}} {{нп5|A}} {{s|б}} Берли{{'}}н": "квартал A б Берли\u0301н"},
    "sr": {"{{јез-нем|Berlin}} {{jez-en|x}}": "Berlin x"},
}

COUNTS = {"*": 69, "bg": 2, "ca": 8, "cs": 4, "da": 2, "de": 22, "en": 44, "es": 8, "fr": 62, "hr": 1, "hu": 3, "it": 8,
          "nl": 1, "pl": 4, "pt": 9, "ro": 2, "ru": 26, "sl": 2, "sr": 2, "sv": 1, "uk": 8}  # fmt: skip
NAMES = {"LANGUAGES": 20, "OTHER_LANGUAGES": 343, "FILES": 46, "CATEGORIES": 13, "REDIRECTS": 28, "LITERAL": 1,
         "FORMULAS": 3, "LISTINGS": 3, "CODE": 14, "ASIDE": 6, "LINES": 21, "TAGS": 82}  # fmt: skip


@pytest.mark.parametrize(
    ("language", "wikitext"), [(language, text) for language, texts in SHOWN.items() for text in texts]
)
def test_what_templates_show(language: str, wikitext: str) -> None:
    assert render_text(wikitext, language, "T") == SHOWN[language][wikitext]


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


def test_the_names_of_wikitext_are_complete_and_in_lower_case() -> None:
    tables = {name: value for name, value in vars(wikitext_names).items() if name in {*NAMES, "APPARATUS"}}
    apparatus = tables.pop("APPARATUS")
    assert {name: len(value) for name, value in tables.items()} == NAMES
    assert sum(map(len, apparatus.values())) == 156
    for names in (*tables.values(), *apparatus.values()):
        assert all(name == name.lower().strip() != "" for name in names)


def test_a_name_of_one_language_means_nothing_in_another() -> None:
    assert render_text("a {{citation|b}} {{unité|1|m}}", "en") == "a"
    assert render_text("a {{convert|5|km}}", "de") == "a"


@given(st.text(), st.sampled_from([*LANGUAGES, "", "ja"]), st.sampled_from(["convert|", "val|", "date|", "as of|", ""]))
@settings(max_examples=500, deadline=None)
def test_no_template_makes_it_raise(content: str, language: str, name: str) -> None:
    assert isinstance(render_template(name + content, language, "T"), str)


def test_many_arguments_take_linear_time() -> None:
    for name in ("convert", "hlist", "val", "date", "x"):
        assert_linear(lambda content: render_template(content, "en"), repeated("|1", name), 400_000)
        assert_linear(lambda content: render_template(content, "en"), repeated("1,", name + "|"), 400_000)
