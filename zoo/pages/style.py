"""The look of all pages, and of pieces in notebooks: everything is below the class `zoo`, so that nothing else changes.

A piece has a ground of its own: a notebook may be light where the system is dark.
"""

STYLE = """
.zoo{--ink:#1c2733;--soft:#5c6b7a;--line:#dde3ea;--ground:#f5f7f9;--card:#fff;--accent:#0072b2;--good:#007a58;
--warn:#a84300;--l0:#0072b2;--l1:#d55e00;--l2:#009e73;--l3:#b8558c;--l4:#c88700;--l5:#3c9fdc;color-scheme:light}
@media(prefers-color-scheme:dark){.zoo{--ink:#e4eaf0;--soft:#98a6b5;--line:#2f3a46;--ground:#12171d;--card:#1a2129;
--accent:#58b4f0;--good:#3ecb9c;--warn:#ff9a5c;--l0:#58b4f0;--l1:#ff8a4c;--l2:#2fc597;--l3:#e695c4;--l4:#f0b73c;
--l5:#9ad4ff;color-scheme:dark}}
.zoo{color:var(--ink);font:15px/1.5 system-ui,-apple-system,"Segoe UI",Roboto,"Noto Sans",sans-serif}
.zoo.fragment{background:var(--card);border:1px solid var(--line);border-radius:10px;padding:10px 16px;margin:2px 0;
max-width:1000px}
.zoo.fragment p{margin:0 0 .6em}
.zoo *{box-sizing:border-box}
.zoo .scroll{overflow-x:auto}
.zoo table{border-collapse:collapse;font-size:.93em;font-variant-numeric:tabular-nums;margin:0}
.zoo th,.zoo td{padding:.32em .9em .32em 0;text-align:left;border:0;border-bottom:1px solid var(--line);
background:none;color:var(--ink);vertical-align:top;max-width:32em;overflow-wrap:break-word}
.zoo th{color:var(--soft);font-weight:500;white-space:nowrap}
.zoo .number{text-align:right;white-space:nowrap}
.zoo tfoot td{font-weight:600;border-bottom:0}
.zoo dl{display:grid;grid-template-columns:max-content minmax(0,1fr);gap:.3em 1.2em;margin:0}
.zoo dt{color:var(--soft)}
.zoo dd{margin:0;overflow-wrap:anywhere}
.zoo code{font:.92em ui-monospace,SFMono-Regular,Menlo,Consolas,monospace}
.zoo svg{display:block;width:100%;height:auto}
.zoo img{max-width:100%;height:auto}
.zoo h3{font-size:.93em;margin:0 0 .4em;font-weight:500;color:var(--soft)}
.zoo .cards{display:flex;flex-wrap:wrap;gap:12px}
.zoo .card{background:var(--card);border:1px solid var(--line);border-radius:12px;padding:12px 20px;min-width:7.4em}
.zoo .card b{display:block;font-size:1.7em;line-height:1.2;font-weight:650;font-variant-numeric:tabular-nums}
.zoo .card span{color:var(--soft)}
.zoo .card.first{background:var(--accent);border-color:var(--accent);color:#fff}
.zoo .card.first span{color:inherit;opacity:.85}
@media(prefers-color-scheme:dark){.zoo .card.first{background:#0f5f92;border-color:#0f5f92}}
.zoo .charts{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(100%,400px),1fr));gap:20px 28px}
.zoo figure{display:block;margin:0;width:100%;max-width:500px;text-align:left}
.zoo svg text{fill:var(--soft);font-size:11px}
.zoo .axes line{stroke:var(--line)}
.zoo svg path{fill:none;stroke:currentColor;stroke-width:2;stroke-linejoin:round}
.zoo svg circle{fill:currentColor}
.zoo .point{fill:var(--ink);fill-opacity:0}
.zoo .point:hover{fill-opacity:.08}
.zoo .l0{color:var(--l0)}.zoo .l1{color:var(--l1)}.zoo .l2{color:var(--l2)}
.zoo .l3{color:var(--l3)}.zoo .l4{color:var(--l4)}.zoo .l5{color:var(--l5)}
.zoo .far path{stroke-dasharray:5 3}
.zoo .legend{list-style:none;display:flex;flex-wrap:wrap;gap:.1em 1.2em;margin:.4em 0 0;
padding:0 0 0 20px;font-size:.87em}
.zoo .legend li{overflow-wrap:anywhere}
.zoo .legend li[class]::before{content:"";display:inline-block;width:14px;height:3px;border-radius:2px;margin-right:7px;
vertical-align:middle;background:currentColor}
.zoo .hit rect{fill:var(--accent)}.zoo .miss rect{fill:var(--l1)}
.zoo svg g text{font-size:inherit}.zoo .axes text{font-size:11px}
.zoo svg[font-size] text{font-size:inherit}
.zoo svg g.hit text,.zoo svg g.miss text{fill:var(--ink)}
.zoo svg g text.over{fill:#fff}
@media(prefers-color-scheme:dark){.zoo svg g text.over{fill:#10151b}}
.zoo svg g:hover>rect{stroke:var(--ink);stroke-width:1.5}
.zoo .bar{display:inline-block;width:64px;height:7px;border-radius:4px;background:var(--line);vertical-align:middle;
overflow:hidden}
.zoo .bar i{display:block;height:100%;background:var(--accent)}
.zoo .score{white-space:nowrap}
.zoo .on{color:var(--good);font-weight:600}.zoo .off{color:var(--soft)}
"""
