"""Names that wikitext gives a meaning, as tables: languages, namespaces, redirects, elements, headings of apparatus.

Those of namespaces and redirects are MediaWiki's message files' for the twenty languages of LLaMA's Wikipedia (section
2.1), in lower case, with older names that pages still use.
"""

import re


def _names(listed: str) -> frozenset[str]:
    return frozenset(re.findall(r"\S+", listed))


def _lines(listed: str) -> frozenset[str]:
    return frozenset(part for part in (" ".join(part.split()) for part in listed.split(",")) if part)


LANGUAGES = tuple("bg ca cs da de en es fr hr hu it nl pl pt ro ru sl sr sv uk".split())  # noqa: SIM905
"""LLaMA's twenty (section 2.1)"""
OTHER_LANGUAGES = _names(
    "aa ab ace ady af ak als alt am ami an ang ann anp ar arc ary arz as ast atj av avk awa ay az azb ba ban bar"
    " bbc bcl bdr be be-tarask be-x-old bew bh bi bjn blk bm bn bo bpy br bs btm bug bxr cbk-zam cdo ce ceb ch chr"
    " chy ckb co cr crh csb cu cv cy dag dga din diq dsb dtp dty dv dz ee el eml eo et eu ext fa fat ff fi fiu-vro"
    " fj fo fon frp frr fur fy ga gag gan gcr gd gl glk gn gom gor got gpe gsw gu guc gur guw gv ha hak haw he hi"
    " hif ho hsb ht hy hyw hz ia iba id ie ig igl ii ik ilo inh io is iu ja jam jbo jv ka kaa kab kbd kbp kcg kg"
    " kge ki kj kk kl km kn knc ko koi krc ks ksh ku kus kv kw ky la lad lb lbe lez lfn lg li lij lld lmo ln lo"
    " lrc lt ltg lv lzh mad mai map-bms mdf mg mh mhr mi min mk ml mn mni mnw mo mos mr mrj ms mt mus mwl my myv"
    " mzn na nah nan nap nds nds-nl ne new ng nia nn no nov nqo nr nrm nso nv ny oc olo om or os pa pag pam pap"
    " pcd pcm pdc pfl pi pih pms pnb pnt ps pwn qu rm rmy rn roa-rup roa-tara rsk rue rup rw sa sah sat sc scn sco"
    " sd se sg sgs sh shi shn shy si simple sk skr sm smn sn so sq srn ss st stq su sw szl szy ta tay tcy tdd te"
    " tet tg th ti tig tk tl tly tn to tpi tr trv ts tt tum tw ty tyv udm ug ur uz ve vec vep vi vls vo vro wa war"
    " wo wuu xal xh xmf yi yo yue za zea zgh zh zh-classical zh-cn zh-min-nan zh-tw zh-yue zu"
)
"""codes of the other Wikipedias, past ones too: a link with such a prefix leads to the same article there"""
FILES = _names(
    "file image media"
    " файл картинка медия"  # bg
    " fitxer imatge mèdia"  # ca
    " soubor obrázek média"  # cs
    " fil billede"  # da
    " datei bild medium"  # de
    " archivo imagen medio"  # es
    " fichier média"  # fr
    " datoteka slika mediji"  # hr, sl
    " fájl kép média"  # hu
    " immagine"  # it
    " bestand afbeelding"  # nl
    " plik grafika"  # pl
    " ficheiro arquivo imagem multimédia"  # pt
    " fișier fişier imagine"  # ro
    " изображение медиа"  # ru
    " датотека слика медиј medij"  # sr
    " зображення медіа"  # uk
)
"""namespaces whose links show a picture or a player, with a caption"""
CATEGORIES = _names(
    "category категория categoria kategorie kategori categoría catégorie kategorija kategória categorie kategoria"
    " категорија категорія"
)
REDIRECTS = _names(
    "redirect виж пренасочване redirecció přesměruj weiterleitung redirección redireccion redirection preusmjeri"
    " átirányítás rinvia rinvio rimando doorverwijzing patrz przekieruj tam redirecionamento redirecteaza"
    " omdiriger omdirigering перенаправление перенапр preusmeritev преусмери preusmeri перенаправлення"
)
"""words behind # that begin a page which only leads to another"""
LITERAL = _names("nowiki")
"""elements whose content is text as it stands"""
FORMULAS = _names("ce chem math")
"""elements whose content is a formula, in TeX"""
LISTINGS = _names("pre source syntaxhighlight")
"""elements whose content is shown as it stands, to the blank"""
CODE = FORMULAS | LISTINGS | _names("graph hiero mapframe maplink score templatedata templatestyles timeline")
"""elements whose content is in a language of their own, not in wikitext"""
ASIDE = _names("gallery imagemap includeonly indicator ref references")
"""elements that are no part of the running text"""
LINES = _names("blockquote center dd div dl dt h1 h2 h3 h4 h5 h6 hr li ol p poem td th tr ul")
"""elements around which a line breaks"""
TAGS = LINES | _names(
    "abbr b bdi bdo big br caption categorytree charinsert cite code col colgroup data del dfn em font i inputbox"
    " ins kbd langconvert mark math noinclude nowiki onlyinclude q rb ref references rp rt rtc ruby s samp section"
    " small span strike strong sub sup table tbody tfoot thead time translate tt u var wbr includeonly gallery"
    " imagemap pre source syntaxhighlight"
)
"""all elements that wikitext knows; anything else between angle brackets is text"""
APPARATUS = {
    "bg": _lines("вижте още, вижте също, източници, бележки, външни препратки, литература, бележки и източници"),
    "ca": _lines("vegeu també, referències, notes, notes i referències, enllaços externs, bibliografia"),
    "cs": _lines("související články, související stránky, reference, poznámky, externí odkazy, odkazy, literatura"),
    "da": _lines("se også, referencer, noter, fodnoter, kilder, eksterne henvisninger, eksterne links, henvisninger,"
                 "litteratur, kilder og henvisninger, noter og referencer"),
    "de": _lines("siehe auch, einzelnachweise, anmerkungen, weblinks, literatur, fußnoten, belege, quellen,"
                 "anmerkungen und einzelnachweise, einzelnachweise und anmerkungen"),
    "en": _lines("see also, references, notes, footnotes, citations, notes and references, references and notes,"
                 "external links, external link, further reading, bibliography, sources, works cited"),
    "es": _lines("véase también, referencias, notas, notas y referencias, enlaces externos, bibliografía"),
    "fr": _lines("voir aussi, annexes, références, notes, notes et références, liens externes, lien externe,"
                 "articles connexes, bibliographie"),
    "hr": _lines("vidi također, vidi još, povezani članci, izvori, bilješke, vanjske poveznice, literatura"),
    "hu": _lines("lásd még, kapcsolódó szócikkek, jegyzetek, megjegyzések, források, külső hivatkozások,"
                 "további információk, irodalom"),
    "it": _lines("voci correlate, note, bibliografia, collegamenti esterni, altri progetti"),
    "nl": _lines("zie ook, referenties, bronnen, noten, voetnoten, externe links, externe link, literatuur,"
                 "externe koppelingen"),
    "pl": _lines("zobacz też, przypisy, uwagi, bibliografia, linki zewnętrzne"),
    "pt": _lines("ver também, referências, notas, notas e referências, ligações externas, bibliografia"),
    "ro": _lines("vezi și, vezi şi, note, note și referințe, referințe, bibliografie, legături externe,"
                 "lectură suplimentară"),
    "ru": _lines("см. также, примечания, ссылки, литература, источники"),
    "sl": _lines("glej tudi, sklici, opombe, opombe in sklici, sklici in opombe, viri, zunanje povezave, literatura"),
    "sr": _lines("види још, референце, напомене, извори, литература, спољашње везе, vidi još, reference, napomene,"
                 "izvori, literatura, spoljašnje veze"),
    "sv": _lines("se även, referenser, noter, fotnoter, källor, externa länkar, litteratur, vidare läsning"),
    "uk": _lines("див. також, примітки, посилання, джерела, література, виноски"),
}  # fmt: skip
"""headings, in lower case, of sections that hold notes, links and lists of literature. They count where they are of the
first or second level: a section on a country's literature stands below one on its culture"""
