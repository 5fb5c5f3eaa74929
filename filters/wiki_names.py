"""Names that wikitext gives a meaning, as tables: namespaces in the twenty languages of LLaMA's Wikipedia (section
2.1), elements, and templates that stand for text. Namespaces are those of MediaWiki's message files, in lower case."""

import re


def _names(listed: str) -> frozenset[str]:
    return frozenset(re.findall(r"\S+", listed))


FILES = _names(
    "file image media"
    " файл картинка медия"  # bg
    " fitxer imatge mèdia"  # ca
    " soubor obrázek média"  # cs
    " fil billede"  # da
    " datei bild medium"  # de
    " archivo imagen medio"  # es
    " fichier média"  # fr
    " datoteka slika mediji"  # hr, sl, sr
    " fájl kép média"  # hu
    " immagine"  # it
    " bestand afbeelding"  # nl
    " plik grafika"  # pl
    " ficheiro imagem arquivo multimédia"  # pt
    " fișier fişier imagine"  # ro
    " изображение медиа"  # ru
    " датотека слика медиј"  # sr
    " зображення медіа"  # uk
)
"""namespaces whose links show a picture or a player, with a caption"""
CATEGORIES = _names(
    "category категория categoria kategorie kategori categoría catégorie kategorija kategória categorie kategoria"
    " категорија категорія"
)
LITERAL = _names("nowiki")
"""elements whose content is text as it stands"""
CODE = _names(
    "ce chem graph hiero mapframe maplink math pre score source syntaxhighlight templatedata templatestyles timeline"
)
"""elements whose content is in a language of their own, not in wikitext"""
ASIDE = _names("gallery imagemap indicator ref references table")
"""elements that are no part of the running text"""
LINES = _names("blockquote br dd div dl dt h1 h2 h3 h4 h5 h6 hr li ol p poem td th tr ul")
"""elements around which a line breaks"""
SHOWN = {"abbr": 1, "big": 1, "em": 1, "lang": 2, "nobr": 1, "nowrap": 1, "small": 1, "strong": 1, "tooltip": 1}
"""templates that show one of their positional arguments, and which"""
SYMBOLS = {"'": "’", "mdash": "—", "nbsp": " ", "ndash": "–", "snd": " – ", "spaced ndash": " – "}
"""templates that stand for a few characters"""
