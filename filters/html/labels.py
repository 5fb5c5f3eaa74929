"""Set phrases of web pages that are no part of a text, in the languages the web has most of.

A label names what follows it (related articles, comments, tags), a button is a whole line, a byline says who and when,
a notice speaks of the page or the site (cookies, subscriptions, rights). All are looked for in short lines only, since
prose may say the same. Lines are compared in lower case.
"""

import re

LABEL_LENGTH = 72
"""characters: a longer line that begins as a label does is a sentence"""
BYLINE_LENGTH = 60
"""characters: likewise"""
NOTICE_LENGTH = 320
"""characters: a longer paragraph that has a notice's phrase is about the matter"""


def _phrases(text: str) -> tuple[str, ...]:
    return tuple(phrase for line in text.strip().split("\n") for phrase in line.strip().split("; "))


LABELS = _phrases(
    """
    you may also; you might also; you may like; you might like; may also like; related; see also; also read
    read more; read also; read next; more from; more on; more in; more stories; more articles; recommended; don't miss
    most read; most popular; share this; share on; leave a reply; leave a comment; post a comment; about the author
    tags:; tagged; filed under; posted in; posted under; categories:; category:; follow us; follow me; subscribe
    sign up; log in; previous post; previous article; next post; next article; trending; newsletter
    das könnte sie; das könnte dich; das könnte euch; könnte sie auch; könnte dich auch; auch interessant; mehr zum
    mehr zu; mehr aus; mehr von; mehr über; lesen sie; lies auch; weitere artikel; weitere beiträge; weitere themen
    weitere nachrichten; weitere infos; weitere meldungen; noch mehr infos; weiterlesen; siehe auch; verwandte
    ähnliche artikel; ähnliche beiträge; ähnliche themen; passend zum thema; schlagworte; schlagwörter; stichworte
    markiert mit; artikel teilen; beitrag teilen; diesen artikel; diesen beitrag; möchten sie den artikel; jetzt teilen
    kommentar schreiben; kommentar hinzufügen; kommentar verfassen; schreibe einen kommentar; hinterlasse
    über den autor; über die autorin; folge uns; folgen sie uns; kategorien:; kategorie:; war der artikel
    jetzt abonnieren
    lire aussi; à lire; voir aussi; en savoir plus; sur le même sujet; articles liés; articles similaires
    articles associés; partager; laisser un commentaire; à propos de l'auteur
    leer más; lee también; te puede interesar; artículos relacionados; compartir; deja un comentario; deja tu comentario
    leia também; leia mais; veja também; compartilh; artigos relacionados; deixe um comentário
    leggi anche; potrebbe interessarti; articoli correlati; condividi; lascia un commento
    lees ook; lees meer; gerelateerd; meer over; reageer; deel dit; geef een reactie
    czytaj też; czytaj także; czytaj również; czytaj więcej; zobacz też; zobacz także; zobacz również; więcej informacji
    podobne; udostępnij; dodaj komentarz
    läs också; läs mer; läs även; relaterade; dela artikel; kommentera; les også; les mer; relaterte; læs også; læs mere
    """
)
BUTTONS = frozenset(
    _phrases(
        """
        share; tweet; email; e-mail; print; facebook; twitter; whatsapp; pinterest; linkedin; telegram; reddit; xing
        rss; like; reply; edit; advertisement; back to top; top; close; menu; search; home; back; next; previous; prev
        loading; more; skip to content; skip to main content; play video; comment; comments; no comments; min read
        login; anzeige; werbung; teilen; drucken; merken; antworten; kommentieren; bearbeiten; nach oben; schließen
        menü; suche; startseite; zurück; weiter; mehr; zum inhalt springen; bild anzeigen; kommentar; kommentare
        min lesezeit
        publicité; imprimer; commentaires; publicidad; imprimir; comentarios; publicidade; comentários; pubblicità
        stampa; advertentie; reacties; reklama; drukuj; komentarze; annons; annonse; reklame; kommentarer
        """
    )
)
BYLINES = _phrases(
    """
    by ; written by ; author; text:; published; posted; updated; last updated; source:; photo:; photos:; image:
    picture:; von ; autor; veröffentlicht; erstellt; geschrieben; eingestellt; stand:; aktualisiert; quelle:; foto:
    fotos:; bild:; par ; publié; crédits photo; crédit photo; por ; publicado; pubblicato; door ; av ; getty images
    """
)
NOTICES = _phrases(
    """
    all rights reserved; alle rechte vorbehalten; tous droits réservés; todos los derechos reservados
    todos os direitos reservados; tutti i diritti riservati; alle rechten voorbehouden; wszelkie prawa zastrzeżone
    may not be published; may not be reproduced; uses cookies; use cookies; verwendet cookies; verwenden cookies
    utilise des cookies; usa cookies; utiliza cookies; gebruikt cookies; używa plików cookie; cookie policy
    cookie settings; cookie-einstellungen; cookie-richtlinie; enable javascript; javascript is disabled
    javascript aktivieren; flash player; our newsletter; unseren newsletter; newsletter abonnieren; notre newsletter
    please subscribe; please log in; please sign in; please register; already a subscriber; bitte registrieren
    bitte melden sie sich an; deine privatsphäre; ihre privatsphäre; email address will not be published
    e-mail-adresse wird nicht veröffentlicht; mit * gekennzeichnete; affiliate-link; affiliate link
    letter to the editor
    """
)
_BEGINNINGS = frozenset(phrase[:3] for phrase in LABELS + BYLINES)
_DECORATION = " \t\xa0»›>|.:()0123456789…•·"
_ENDING = re.compile(r"[.!?…。！？][\"'”»“’)]*\Z")


def is_label(line: str) -> bool:
    """Whether a line, in lower case, names what is around a text."""
    return len(line) <= LABEL_LENGTH and line[:3] in _BEGINNINGS and line.startswith(LABELS)


def is_button(line: str) -> bool:
    """Whether a line, in lower case, is a button or counts comments."""
    return len(line) < 32 and line.strip(_DECORATION) in BUTTONS


def is_byline(line: str) -> bool:
    """Whether a line, in lower case, says who wrote a text or took a picture, or when."""
    return (
        len(line) <= BYLINE_LENGTH and line[:3] in _BEGINNINGS and line.startswith(BYLINES) and not _ENDING.search(line)
    )


def notices_in(text: str) -> list[str]:
    """The notices' phrases that a page has in lower case: mostly none, so that no line need be searched."""
    return [phrase for phrase in NOTICES if phrase in text]


def is_notice(line: str, phrases: list[str]) -> bool:
    """Whether a line, in lower case, speaks of the site: it has one of these phrases, or begins with a copyright."""
    if len(line) > NOTICE_LENGTH:
        return False
    return line.startswith(("©", "(c)", "copyright")) or any(phrase in line for phrase in phrases)
