"""The style of `report.html`, besides what every page has: sections are cards, charts stand side by side."""

STYLE = """
body.zoo{margin:0;background:var(--ground)}
main{max-width:1080px;margin:0 auto;padding:28px 20px 48px}
header{padding:4px 4px 20px}
h1{font-size:1.75em;line-height:1.2;margin:.1em 0 .7em;font-weight:650;overflow-wrap:anywhere}
h2{font-size:1.06em;margin:0 0 .9em;font-weight:650}
h3{font-size:.93em;margin:0 0 .4em;font-weight:500;color:var(--soft)}
p{margin:.5em 0}
.run{color:var(--soft);margin:0;overflow-wrap:anywhere}
.facts,.hint,footer{color:var(--soft);font-size:.93em}
.cards{display:flex;flex-wrap:wrap;gap:12px}
.card{background:var(--card);border:1px solid var(--line);border-radius:12px;padding:12px 20px;min-width:7.4em}
.card b{display:block;font-size:1.7em;line-height:1.2;font-weight:650;font-variant-numeric:tabular-nums}
.card span{color:var(--soft)}
.card.first{background:var(--accent);border-color:var(--accent);color:#fff}
.card.first span{color:inherit;opacity:.85}
@media(prefers-color-scheme:dark){.card.first{background:#0f5f92;border-color:#0f5f92}}
.note{border-left:3px solid var(--warn);padding:.2em 0 .2em .8em;overflow-wrap:anywhere}
section{background:var(--card);border:1px solid var(--line);border-radius:12px;padding:18px 20px;margin:0 0 16px}
.charts{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(100%,400px),1fr));gap:20px 28px}
figure{margin:0;max-width:500px}
svg text{fill:var(--soft);font-size:11px}
.axes line{stroke:var(--line)}
svg path{fill:none;stroke:currentColor;stroke-width:2;stroke-linejoin:round}
svg circle{fill:currentColor}
.point{fill:var(--ink);fill-opacity:0}
.point:hover{fill-opacity:.08}
.l0{color:var(--l0)}.l1{color:var(--l1)}.l2{color:var(--l2)}.l3{color:var(--l3)}.l4{color:var(--l4)}.l5{color:var(--l5)}
.far path{stroke-dasharray:5 3}
.legend{list-style:none;display:flex;flex-wrap:wrap;gap:.1em 1.2em;margin:.4em 0 0;padding:0 0 0 20px;font-size:.87em}
.legend li{overflow-wrap:anywhere}
.legend li[class]::before{content:"";display:inline-block;width:14px;height:3px;border-radius:2px;margin-right:7px;
vertical-align:middle;background:currentColor}
.hit rect{fill:var(--accent)}.miss rect{fill:var(--l1)}
svg g text{font-size:inherit}.axes text{font-size:11px}
svg[font-size] text{font-size:inherit}
svg g.hit text,svg g.miss text{fill:var(--ink)}
svg g text.over{fill:#fff}
@media(prefers-color-scheme:dark){svg g text.over{fill:#10151b}}
svg g:hover>rect{stroke:var(--ink);stroke-width:1.5}
.bar{display:inline-block;width:64px;height:7px;border-radius:4px;background:var(--line);vertical-align:middle;
overflow:hidden}
.bar i{display:block;height:100%;background:var(--accent)}
.score{white-space:nowrap}
.on{color:var(--good);font-weight:600}.off{color:var(--soft)}
.sheet{overflow-x:auto}
.sheet img{display:block;border-radius:8px;min-width:620px;margin:0 auto}
@media(prefers-color-scheme:dark){.sheet img.flat{filter:invert(.91) hue-rotate(180deg)}}
footer{text-align:center;margin-top:28px}
@media(max-width:520px){main{padding:18px 10px 32px}section{padding:14px}.card{padding:9px 14px;min-width:6em;flex:1}
.zoo dl{grid-template-columns:1fr;gap:0}.zoo dd{margin-bottom:.5em}h1{font-size:1.4em}}
@media print{section{break-inside:avoid}}
"""
