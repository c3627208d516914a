"""The style of `report.html`, besides what every page has: sections are cards, charts stand side by side."""

STYLE = """
body.zoo{margin:0;background:var(--ground)}
main{max-width:1080px;margin:0 auto;padding:28px 20px 48px}
header{padding:4px 4px 20px}
h1{font-size:1.75em;line-height:1.2;margin:.1em 0 .7em;font-weight:650;overflow-wrap:anywhere}
h2{font-size:1.06em;margin:0 0 .9em;font-weight:650}
p{margin:.5em 0}
.run{color:var(--soft);margin:0;overflow-wrap:anywhere}
.facts,.hint,footer{color:var(--soft);font-size:.93em}
.note{border-left:3px solid var(--warn);padding:.2em 0 .2em .8em;overflow-wrap:anywhere}
section{background:var(--card);border:1px solid var(--line);border-radius:12px;padding:18px 20px;margin:0 0 16px}
.sheet{overflow-x:auto}
.sheet img{display:block;border-radius:8px;min-width:620px;margin:0 auto}
@media(prefers-color-scheme:dark){.sheet img.flat{filter:invert(.91) hue-rotate(180deg)}}
footer{text-align:center;margin-top:28px}
@media(max-width:520px){main{padding:18px 10px 32px}section{padding:14px}
.zoo .card{padding:9px 14px;min-width:6em;flex:1}
.zoo dl{grid-template-columns:1fr;gap:0}.zoo dd{margin-bottom:.5em}h1{font-size:1.4em}}
@media print{section{break-inside:avoid}}
"""
