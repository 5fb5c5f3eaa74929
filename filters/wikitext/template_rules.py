r"""What templates show that stand for text in an article, as tables by language; all others vanish.

A line holds names in lower case, parted by commas, and a rule: a text with places, `{1}` for an argument by position,
`{text}` by name, `{text|1}` for the first of several that is there, `{2|=e}` for "e" where there is none, `{*, }` for
all by position with ", " between. `[...]` is left out where an argument in it is missing; where one outside is, nothing
is shown. `\n` breaks a line, `\_` is a blank. `@name` is a function of `filters.wikitext.templates`.
"""

COMMON = r"""
abbr, tooltip, big, small, smaller, larger, strong, em, nowrap, nobr, nobreak, nobold, sic, underline => {1}
overline, unicode, code, mono, samp, var, mvar, math, script/nastaliq, sub, not a typo, proper name => {1}
lang, langx, script, color => {2}
polytonic, transliteration => {2|1}
font color => {3|2}
transl => {3|2}
quote, blockquote, cquote, quotation, quote box => \n{text|quote|1}\n
poem, poemquote => \n{text|1}\n
nbsp, space, spaces => \_
ndash, – => –
mdash, — => —
snd, spaced ndash, spnd => \_–\_
' => ’
·, •, middot, bullet => \_·\_
... => …
! => \x05
= => \x06
sup => <sup>{1}</sup>
br, clear, -, break => \n
val => {1}[±{2}][×10<sup>{e}</sup>][ {u|ul|up}]
frac, sfrac => @fraction
formatnum, num => {1}
"""

BY_LANGUAGE = {
    "bg": r"""
цитат, цитат2 => \n{текст|цитат|1}\n
""",
    "ca": r"""
unitat, unitats => {1}[ {2}]
citació, cita => \n{1}\n
segle => segle {1}
romanes, versaleta => {1}
fracció => @fraction
""",
    "cs": r"""
cizojazyčně, cj, vjazyce2 => {2}
citát => \n{1}\n
""",
    "da": r"""
citat => \n{1}\n
brøk => @fraction
""",
    "de": r"""
" => „{1}“
zitat => \n{text|1}\n
höhe => {1} m
bruch => @fraction
formnum, formatzahl => {1}
polytonisch, iast, arab, hebr, ers, ens, frs, grs, las, its, ess, rus => {1}
farbe, versalien, anker => {2}
absatz => \n
""",
    "en": r"""
convert, cvt => @converted
as of => @as_of
circa, c. => c. {1}
vanchor, visible anchor, chem2, interlanguage link, ill, flag, flagcountry, linktext, gloss, angbr, script/hebrew => {1}
chem, gaps => {*}
nihongo => {1}[ ({2}[, {3}])]
us$, usd => US${1}
£, gbp => £{1}
€, eur => €{1}
₹, inr => ₹{1}
hlist => {*, }
ubl, unbulleted list, plainlist, flatlist, columns-list, div col => \n{*\n}\n
uss => USS {1}
hms => HMS {1}
ship, sclass => {1} {2}
wikt-lang, lang-x => {2}
height => {m} m
percentage => {1}%
ordinal => {1}
bce => {1} BCE
""",
    "es": r"""
unidad => {1}[ {2}]
cita => \n{1}\n
siglo => siglo {1}
fecha => {1} de {2} de {3}
esd, versalita => {1}
ac => a. C.
dc => d. C.
""",
    "fr": r"""
unité, unité/2 => {1}[ {2}][<sup>{3}</sup>][ {4}][<sup>{5}</sup>]
nombre, tunité => {1}[ {2}]
tmp => {1}[ {2}]
date, date-, date de naissance, date de mort => @french_date
s, s- => {1}{2|=e} siècle
s2 => {1}e et {2}e siècles
sp, sp- => {1}e {3} {4}e siècles
-s, -s- => {1}e siècle av. J.-C.
s mini-, s mini => {1}e siècle
siècle => {1}e siècle
av jc, avjc => av. J.-C.
apr jc => apr. J.-C.
citation, cita, guil, « => «\_{1}\_»
citation bloc, bloc citation => \n{1}\n
incise => –\_{1}\_–
langue, lang-en => {2}
lien => {texte|trad|fr|1}
abréviation, abréviation discrète, abr, refnec, référence nécessaire, passage à actualiser, rom-maj, rom-min => {1}
exp, e => <sup>{1}</sup>
ind => {1}
ier => Ier
ire => Ire
1er => 1er
1re => 1re
er => er
re => re
n°, numéro, no => no
n => {1}
m., mme, mlle => M.
heure => {1} h[ {2}]
euro => {1} €
, => ,
x => X
fraction => @fraction
japonais => {1}[ ({2}[, {3}])]
""",
    "hr": r"""
citat => \n{1}\n
""",
    "hu": r"""
szám, számformat => {1}
idézet => \n{1}\n
""",
    "it": r"""
ta, tutto attaccato, senza fonte, chiarire, maiuscoletto => {1}
m => {1}[ {u|ul}]
citazione => \n{1}\n
' => ’
""",
    "nl": r"""
citaat => \n{tekst|1}\n
""",
    "pl": r"""
cytat => \n{treść|1}\n
j => {2}
fakt, kapitaliki => {1}
""",
    "pt": r"""
citação, quote2 => \n{1}\n
fmtn => {1}[ {2}]
dtlink, dtext => {1} de {2} de {3}
séc => século {1}
ac => a.C.
dc => d.C.
ilc => {1}
""",
    "ro": r"""
citat => \n{1}\n
unitate => {1}[ {2}]
""",
    "ru": r"""
s, comment, подсказка, что, nobr => {1}
число, num => {1}[ {2}]
цитата, начало цитаты => \n{1}\n
нп, нп1, нп2, нп3, нп4, нп5, не переведено, не переведено 2, не переведено 3, не переведено 5, iw => {2|1}
юл, старый стиль => {1} {2}[ {3}]
' => \u0301
век => {1} век
км, м => {1}
""",
    "sl": r"""
citat, navedek => \n{1}\n
""",
    "sr": r"""
цитат, citat => \n{1}\n
""",
    "sv": r"""
citat => \n{1}\n
""",
    "uk": r"""
нобр, s => {1}
число, num => {1}[ {2}]
цитата => \n{1}\n
нп, не перекладено => {2|1}
' => \u0301
""",
}
