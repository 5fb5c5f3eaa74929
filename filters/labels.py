"""Set phrases of web pages that are no part of a text, in the languages the web has most of.

A label names what follows it (related articles, comments, tags), a button is a whole line, a notice speaks of the page
or the site (cookies, subscriptions, rights). All are looked for in short lines only: prose may say the same.
"""

import re

LABEL_LENGTH = 72
"""characters: a longer line that begins as a label does is a sentence"""
NOTICE_LENGTH = 320
"""characters: a longer paragraph that has a notice's phrase is about the matter"""

_LABELS = re.compile(
    "(?:"
    # English
    "(?:you )?(?:may|might) (?:also )?(?:like|be interested)|you might like|related|see also|"
    "read (?:more|also|next|this)|also read|more (?:from|on|in|stories|articles|about)|recommended|don't miss|most (?:read|popular)|"
    "share (?:this|on|with)|leave a (?:reply|comment)|post a comment|(?:no |\\d+ )?comments?(?: \\(?\\d+\\)?)?:?$|newsletter|"
    "about the authors?|tags?:|tagged (?:with|as|in)|filed under|posted (?:in|under)|categor(?:y|ies):|follow (?:us|me|him|her)|subscribe|"
    "sign up|log in|previous (?:post|article)|next (?:post|article)|trending|"
    # German
    "das könnte (?:sie|dich|euch)|.{0,12}könnte (?:sie|dich|euch) auch|auch interessant|mehr zu[mr]?\\b|mehr aus|mehr von|mehr über|"
    "lesen sie|lies auch|weitere (?:artikel|beiträge|themen|nachrichten|infos|informationen|meldungen)|weiterlesen|siehe auch|"
    "verwandte|ähnliche (?:artikel|beiträge|themen)|passend zum thema|zum thema|schlag(?:worte|wörter)|stichworte|markiert mit|"
    "(?:diesen )?(?:artikel|beitrag) (?:teilen|drucken|kommentieren)|(?:möchten|wollen) sie den artikel|jetzt teilen|(?:\\d+ )?kommentare?:?$|kommentar (?:schreiben|hinzufügen|verfassen)|"
    "schreibe einen kommentar|hinterlasse|über (?:den autor|die autorin)|folge[nt]? (?:sie )?uns|kategorien?:|war der artikel|"
    "jetzt (?:abonnieren|anmelden|registrieren)|"
    # French
    "lire aussi|à lire|voir aussi|en savoir plus|sur le même sujet|articles? (?:liés|similaires|associés|recommandés)|partager|"
    "laisser un commentaire|(?:\\d+ )?commentaires?$|"
    # Spanish, Portuguese, Italian
    "leer más|lee también|te puede interesar|artículos relacionados|compartir|deja (?:un|tu) comentario|"
    "leia (?:também|mais)|veja também|compartilh|artigos relacionados|deixe um comentário|"
    "leggi anche|potrebbe interessarti|articoli correlati|condividi|lascia un commento|"
    # Dutch, Polish, Swedish, Norwegian, Danish
    "lees ook|lees meer|gerelateerd|meer over|reageer|deel dit|czytaj (?:też|także|również|więcej)|zobacz (?:też|także|również)|"
    "więcej informacji|podobne|udostępnij|dodaj komentarz|läs (?:också|mer|även)|relaterade|dela (?:den|artikel)|kommentera|"
    "les (?:også|mer)|relaterte|læs (?:også|mere)"
    ")",
    re.IGNORECASE,
)
_BUTTONS = re.compile(
    "(?:share|tweet|e-?mail|print|facebook|twitter|whatsapp|pinterest|linkedin|telegram|reddit|xing|rss|like|reply|edit|"
    "advertisement|anzeige|werbung|reklama|reklame|publicité|publicidad|publicidade|pubblicità|advertentie|annons|annonse|"
    "teilen|drucken|merken|antworten|kommentieren|bearbeiten|nach oben|back to top|top|close|schließen|menu|menü|search|suche|"
    "home|startseite|zurück|back|weiter|next|previous|prev|loading\\.*|mehr|more|more\\.\\.\\.|read more|imprimer|imprimir|stampa|drukuj|"
    "skip to (?:main )?content|zum inhalt springen|play video|bild anzeigen|\\d+ min(?:uten|utes?)? (?:read|lesezeit))[ »›>|.:]*",
    re.IGNORECASE,
)
_NOTICES = re.compile(
    "all rights reserved|alle rechte vorbehalten|tous droits réservés|todos los derechos reservados|todos os direitos reservados|"
    "tutti i diritti riservati|alle rechten voorbehouden|wszelkie prawa zastrzeżone|may not be (?:published|reproduced)|"
    "(?:uses?|verwendet|utilise|usa|utiliza|gebruikt|używa|använder|bruker) cookies|cookie(?:-| )(?:policy|einstellungen|richtlinie|settings)|"
    "(?:enable|aktivieren sie|activer|habilit\\w+) javascript|javascript (?:is|ist) (?:disabled|deaktiviert)|flash player|"
    "(?:subscribe|sign up|register|anmelde\\w*|abonnier\\w*|inscri\\w+|suscr\\w+) .{0,60}newsletter|newsletter .{0,40}(?:anmelden|abonnieren|registrieren)|"
    "please (?:subscribe|log in|sign in|register)|already a subscriber|bitte (?:registrieren|melden) sie sich|"
    "wir respektieren (?:deine|ihre) privatsphäre|mit \\* gekennzeichnete|affiliate[- ]links?|"
    "your email address will not be published|deine e-mail-adresse wird nicht|"
    "letters? to the editor|(?:photo|bild|foto|image)(?:s|credits?|nachweis|quelle)?: |crédits? photos?|^(?:©|\\(c\\)|copyright)",
    re.IGNORECASE,
)


def is_label(line: str) -> bool:
    """Whether a line names what is around a text."""
    return len(line) <= LABEL_LENGTH and _LABELS.match(line) is not None


def is_notice(line: str) -> bool:
    """Whether a line is a button or speaks of the site."""
    if len(line) > NOTICE_LENGTH:
        return False
    return (len(line) < 32 and _BUTTONS.fullmatch(line) is not None) or _NOTICES.search(line) is not None
