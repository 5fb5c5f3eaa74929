"""Language identification: right on plain sentences, and never thrown by odd text."""

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from filters.errors import UserError
from filters.quality.language import Language, bundled_model_path, load

SENTENCES = {
    "en": "The fishing boats came back to the harbour before the storm reached the coast.",
    "de": "Die Fischerboote kehrten in den Hafen zurück, bevor der Sturm die Küste erreichte.",
    "fr": "Les bateaux de pêche sont rentrés au port avant que la tempête n'atteigne la côte.",
    "es": "Los barcos de pesca volvieron al puerto antes de que la tormenta llegara a la costa.",
    "it": "Le barche da pesca sono tornate al porto prima che la tempesta raggiungesse la costa.",
    "pt": "Os barcos de pesca voltaram ao porto antes que a tempestade chegasse à costa.",
    "nl": "De vissersboten keerden terug naar de haven voordat de storm de kust bereikte.",
    "pl": "Kutry rybackie wróciły do portu, zanim burza dotarła do wybrzeża.",
    "ru": "Рыбацкие лодки вернулись в гавань до того, как буря дошла до берега.",
    "uk": "Рибальські човни повернулися до гавані, перш ніж буря дійшла до берега.",
    "cs": "Rybářské lodě se vrátily do přístavu dříve, než bouře dorazila k pobřeží.",
    "sv": "Fiskebåtarna kom tillbaka till hamnen innan stormen nådde kusten.",
    "zh": "渔船在暴风雨到达海岸之前回到了港口。",
    "ja": "嵐が海岸に届く前に、漁船は港に戻りました。",
}


@pytest.fixture(scope="module")
def model():
    return load(str(bundled_model_path()))


@pytest.mark.parametrize("language", sorted(SENTENCES))
def test_plain_sentences_are_recognised(model, language: str) -> None:
    found, probability = model.top(SENTENCES[language], 0)
    assert found == language and 0.3 < probability <= 1.0
    assert model.top(SENTENCES[language], 0) == (found, probability)


@pytest.mark.parametrize("mark", ["\n", "\r\n", "\n\n", "\x0b", "\x85", "\u2028", "\0"])
def test_text_behind_a_line_break_counts(model, mark: str) -> None:
    """fastText stops at a newline: a page whose first line is a foreign title would be judged by it alone."""
    text = "Willkommen" + mark + (SENTENCES["en"] + mark) * 10
    assert model.top(text, 0)[0] == "en"


def test_only_the_first_characters_are_seen_when_asked(model) -> None:
    text = SENTENCES["en"] * 5 + SENTENCES["ru"] * 50
    assert model.top(text, 200)[0] == "en" and model.top(text, 0)[0] == "ru"


@pytest.mark.parametrize("text", ["", " ", "\n\n\t", "\0"])
def test_no_text_is_no_language(model, text: str) -> None:
    assert model.top(text, 0) == ("und", 0.0)


@given(st.text(alphabet=st.characters(), max_size=200), st.integers(0, 50))
@settings(max_examples=300, deadline=None)
def test_any_text_has_an_answer(model, text: str, characters: int) -> None:
    language, probability = model.top(text, characters)
    assert language and 0.0 <= probability <= 1.0


def test_lone_surrogates_and_endless_words_are_read(model) -> None:
    model.top("\ud800 text \udfff", 0)
    model.top("x" * 1_000_000, 0)


def test_a_file_that_is_no_model_is_refused_in_a_sentence(tmp_path: Path) -> None:
    path = tmp_path / "model.bin"
    for content in (b"", b"abc", b"no fastText model at all"):
        path.write_bytes(content)
        with pytest.raises(UserError, match="is not a readable fastText model"):
            load(str(path))
    with pytest.raises(UserError, match="is not a readable fastText model"):
        load(str(tmp_path / "none.bin"))


@pytest.mark.parametrize(("code", "example"), [("english", "en"), ("EN", "en"), ("de-AT", "de"), ("", "en")])
def test_a_language_that_the_model_cannot_give_is_refused(code: str, example: str) -> None:
    Language(keep=["en", "de", "und"]).check()
    with pytest.raises(UserError, match=f"{code!r} is not a code of the model: give codes such as '{example}'"):
        Language(keep=["en", code]).check()
