"""The report's style: one accent, figures that line up, light and dark, paper and phone."""

LIGHT = {
    "paper": "#fbfaf7",
    "sheet": "#f2f0ea",
    "ink": "#1e1d1a",
    "quiet": "#5d5b54",
    "rule": "#dcd8cd",
    "accent": "#0b5d66",
    "flow": "#8fbfc0",
    "drop": "#cfcabd",
}
DARK = {
    "paper": "#15171a",
    "sheet": "#1d2024",
    "ink": "#e9e6df",
    "quiet": "#a8a59c",
    "rule": "#33373c",
    "accent": "#86d3d0",
    "flow": "#2f7375",
    "drop": "#4c4f52",
}


def _variables(colours: dict[str, str]) -> str:
    return "".join(f"--{name}:{value};" for name, value in colours.items())


COLOURS = f"""
:root{{color-scheme:light dark;{_variables(LIGHT)}}}
@media (prefers-color-scheme:dark){{:root{{{_variables(DARK)}}}}}
"""
STYLE = (
    COLOURS
    + """
*{box-sizing:border-box}
html{-webkit-text-size-adjust:100%;text-size-adjust:100%}
body{margin:0;background:var(--paper);color:var(--ink);font:1rem/1.55 system-ui,-apple-system,"Segoe UI",Roboto,
"Helvetica Neue","Liberation Sans",Arial,sans-serif;font-variant-numeric:tabular-nums;overflow-wrap:anywhere}
a{color:var(--accent);text-underline-offset:.2em;text-decoration-thickness:1px}
:focus-visible{outline:2px solid var(--accent);outline-offset:2px}
.skip{position:absolute;inset-inline-start:-100vw}
.skip:focus{inset-inline-start:1rem;inset-block-start:.5rem;background:var(--paper);padding:.4rem .8rem;z-index:1}
header,main,footer{max-inline-size:76rem;margin-inline:auto;padding-inline:clamp(1rem,4vw,3rem)}
header{padding-block:clamp(2.5rem,7vw,5rem) 1rem}
h1,h2{font-family:"Iowan Old Style","Palatino Linotype",Palatino,Charter,Georgia,"Liberation Serif",serif;
font-weight:500;line-height:1.15;margin:0;text-wrap:balance}
h1{font-size:clamp(2.1rem,6vw,3.4rem);letter-spacing:-.015em}
h2{font-size:1.5rem;letter-spacing:-.005em}
h3{font-size:1rem;font-weight:650;margin:2.5rem 0 .75rem}
h4{font-size:.875rem;font-weight:600;margin:1.5rem 0 .5rem;color:var(--quiet)}
.body>h3:first-child{margin-block-start:.3rem}
p{margin:.5rem 0 1rem;max-inline-size:42rem;text-wrap:pretty}
.eyebrow{color:var(--accent);font-size:.8125rem;font-weight:600;letter-spacing:.08em;text-transform:uppercase;
margin:0 0 .8rem}
.lede{font-size:1.125rem;color:var(--quiet);max-inline-size:44rem;margin-block:1rem 2rem}
.note,figcaption,.quiet{color:var(--quiet);font-size:.875rem}
nav ul{display:flex;flex-wrap:wrap;gap:.35rem 1.25rem;padding:0;margin:2rem 0 0;list-style:none;font-size:.875rem}
.headline{display:grid;grid-template-columns:repeat(4,1fr);gap:1.75rem 2rem;margin:0;
border-block:1px solid var(--rule);padding-block:1.5rem}
.headline div{display:flex;flex-direction:column-reverse;justify-content:flex-end}
.headline dt{color:var(--quiet);font-size:.8125rem;line-height:1.35}
.headline dd{margin:0;font-size:1.75rem;line-height:1.3;letter-spacing:-.01em}
section{border-block-start:1px solid var(--rule);padding-block:2.25rem 3rem;margin-block-start:1.5rem}
section>.body{margin-block-start:1.25rem;min-inline-size:0}
@media (min-width:64rem){section{display:grid;grid-template-columns:11rem minmax(0,1fr);gap:2.5rem}
section>h2{position:sticky;inset-block-start:1.5rem;align-self:start;font-size:1.3rem}section>.body{margin-block-start:0}}
.scroll{overflow-x:auto;margin-block:1rem;max-inline-size:100%}
table{border-collapse:collapse;inline-size:100%;font-size:.875rem;overflow-wrap:normal}
caption{text-align:start;color:var(--quiet);padding-block-end:.5rem}
th,td{padding:.35rem .75rem .35rem 0;text-align:start;vertical-align:baseline;border-block-end:1px solid var(--rule)}
th:last-child,td:last-child{padding-inline-end:0}
thead th{font-weight:500;color:var(--quiet);border-block-end-color:var(--quiet);vertical-align:bottom}
tbody th{font-weight:500}tbody th[scope=row]{min-inline-size:7rem;max-inline-size:22rem}
tfoot th,tfoot td{font-weight:650;border-block-end:0}
.number{text-align:end;white-space:nowrap}
tbody th .bar{block-size:.25rem;margin-block-start:.2rem;background:none}
.multiples th,.multiples td{padding-inline-end:.5rem}
.multiples tbody th[scope=row]{min-inline-size:0;overflow-wrap:anywhere}
.graph{inline-size:22%}
.graph .bar{min-inline-size:3rem}thead .graph{border-block-end-color:var(--quiet)}
.bar{display:block;block-size:.5rem;background:var(--sheet);border-radius:2px}
.bar>span{display:block;block-size:100%;min-inline-size:1px;background:var(--flow);border-radius:2px}
.multiples{columns:17rem 3;column-gap:2.5rem}
.multiples>*{break-inside:avoid;margin-block:0 2rem}
.rivers{columns:2 20rem;column-gap:3rem;margin-block-start:1.5rem}
.rivers figure{break-inside:avoid;margin-block-end:2.5rem}
figure{margin:0;min-inline-size:0}figcaption{margin-block-end:.5rem}
figcaption b{display:block;color:var(--ink);font-weight:600}
svg{display:block;inline-size:100%;block-size:auto;max-inline-size:26rem}
svg.chart{max-inline-size:20.5rem}
svg text{fill:var(--ink);font-size:12px;font-family:inherit}
svg .end{text-anchor:end}svg .mid{text-anchor:middle}
svg .tick{font-size:11px;fill:var(--quiet)}
svg .stage{fill:var(--accent);font-weight:600}
.band{fill:none;stroke:var(--drop)}.band.in,.band.arrived{stroke:var(--flow)}.trunk{fill:var(--flow)}
.band:hover,.bin:hover{opacity:.75}
.bin{fill:var(--flow)}.grid{stroke:var(--rule);fill:none}
.line{stroke:var(--accent);fill:none;stroke-width:1.75}.mark{stroke:var(--quiet);stroke-dasharray:3 3;fill:none}
.interval{stroke:var(--ink);stroke-width:1.25;fill:none}.dot{fill:var(--paper);stroke:var(--ink);stroke-width:1.5}
details{border-block-end:1px solid var(--rule)}
summary{cursor:pointer;padding-block:.5rem}
summary:hover{color:var(--accent)}
details[open]>summary{margin-block-end:.25rem}
details>:last-child{margin-block-end:1.25rem}
.reason>summary{display:grid;grid-template-columns:1rem minmax(0,13rem) minmax(0,1fr) auto 4.5rem;gap:.1rem .75rem;
align-items:center;list-style:none;padding-block:.4rem}
.reason>summary::-webkit-details-marker{display:none}
.reason>summary::before{content:"+";color:var(--accent);font-weight:600}.reason[open]>summary::before{content:"\\2212"}
.reason .bar{background:none}
.reason>summary .tag{font-size:.75rem;color:var(--quiet);white-space:nowrap}
.reason>:not(summary){margin-inline-start:1.75rem}
.examples{list-style:none;padding:0;display:grid;gap:.75rem}
.examples li{background:var(--sheet);border-radius:4px;padding:.6rem .8rem;font-size:.8125rem;line-height:1.5}
.examples .where{display:block;color:var(--quiet)}
code,pre{font-family:ui-monospace,"SF Mono",Menlo,Consolas,"Liberation Mono",monospace;font-size:.8125rem}
pre{overflow-x:auto;background:var(--sheet);border-radius:4px;padding:1rem;line-height:1.5;margin:0 0 1rem}
dl.card{display:grid;grid-template-columns:minmax(8rem,max-content) minmax(0,1fr);gap:.25rem 1.25rem;
font-size:.8125rem;margin:.25rem 0 1rem}
dl.card dt{color:var(--quiet)}dl.card dd{margin:0}
.verdict{font-weight:500}
footer{border-block-start:1px solid var(--rule);padding-block:1.5rem 4rem;margin-block-start:1rem}
@media (max-width:40rem){.reason>summary{grid-template-columns:1rem minmax(0,1fr) auto 4rem}
.reason>summary .bar{grid-column:2/-1;grid-row:2}.reason>summary .parts{grid-column:3/-1}
.headline{grid-template-columns:repeat(2,1fr);gap:1.25rem 1rem}
.headline dd{font-size:1.5rem}}
@media (max-width:30rem){dl.card{grid-template-columns:1fr;gap:0}dl.card dd{margin-block-end:.4rem}
th,td{padding-inline-end:.6rem}}
@media print{:root{--paper:#fff}body{font-size:10pt}nav,.skip{display:none}section{display:block;padding-block:1rem}
h2,h3,summary{break-after:avoid}figure,li,tr{break-inside:avoid}section>h2{position:static;margin-block-end:.75rem}
details::details-content{content-visibility:visible;block-size:auto}.scroll{overflow:visible}}
"""
)
