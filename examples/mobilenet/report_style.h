#pragma once

/// The look of report_html()'s page, in light and dark, from a telephone's width up.
inline constexpr char kReportStyle[] = R"(
:root{color-scheme:light dark;--ink:#1f2328;--quiet:#59636e;--paper:#fff;--card:#f6f8fa;--faint:#d8dee4;
--one:#1f6fb5;--two:#c8590a;--good:#1a7f37;--bad:#c3242c;--hit:31,111,181;--miss:200,89,10}
@media(prefers-color-scheme:dark){:root{--ink:#e6edf3;--quiet:#9198a1;--paper:#0d1117;--card:#161b22;
--faint:#30363d;--one:#6db5f5;--two:#ffa057;--good:#57c76f;--bad:#ff7b72;--hit:56,139,253;--miss:219,109,40}}
*{box-sizing:border-box}
body{margin:0 auto;max-width:76rem;padding:1.5rem clamp(.8rem,3vw,2rem) 3rem;background:var(--paper);
color:var(--ink);font:15px/1.5 system-ui,-apple-system,"Segoe UI",sans-serif}
h1{font-size:1.6rem;line-height:1.25;margin:0;overflow-wrap:anywhere}
h2{font-size:1.15rem;margin:2.2rem 0 .7rem}
p{margin:.3rem 0 .8rem}.quiet{color:var(--quiet)}
.note{margin-top:.9rem;border-left:4px solid var(--two);background:var(--card);padding:.5rem .9rem;border-radius:0 6px 6px 0}
.card{background:var(--card);border:1px solid var(--faint);border-radius:8px}
.tiles{display:grid;gap:.7rem;grid-template-columns:repeat(auto-fit,minmax(8.5rem,1fr));margin-top:1.1rem}
.tile{padding:.6rem .9rem}.tile b{display:block;font-size:1.45rem;line-height:1.3;font-weight:600}
.charts{display:grid;gap:.9rem;grid-template-columns:repeat(auto-fit,minmax(min(100%,24rem),1fr))}
.chart{margin:0;padding:.7rem .7rem .4rem}.chart svg{display:block;width:100%;height:auto}
figcaption{padding:0 .3rem .3rem}
.key{margin-left:.9rem;white-space:nowrap}
.key::before{content:"";display:inline-block;width:1.3em;height:.25em;border-radius:2px;margin-right:.4em;
vertical-align:.22em;background:var(--one)}
.key.two::before{background:var(--two)}
.tick{fill:var(--quiet);font-size:12px}.grid{stroke:var(--faint)}.axis{stroke:var(--quiet);fill:none}
.line{fill:none;stroke-width:2.2;stroke-linejoin:round;stroke-linecap:round}
.line.one{stroke:var(--one)}.line.two{stroke:var(--two)}
.spot.one{fill:var(--one)}.spot.two{fill:var(--two)}.spot.hidden{fill-opacity:0}
.wide{overflow-x:auto}
table{border-collapse:collapse;font-variant-numeric:tabular-nums}
th{font-weight:600}
.plain td,.plain th{padding:.25rem .8rem .25rem 0;text-align:right;border-bottom:1px solid var(--faint);
white-space:nowrap}
.plain td:first-child,.plain th:first-child,.plain .word{text-align:left}
.matrix{border-collapse:separate;border-spacing:2px}
.matrix td{min-width:2.5rem;padding:.3rem .4rem;text-align:center;border-radius:4px}
.matrix th{padding:.2rem .5rem;text-align:right;font-weight:500;max-width:12rem;overflow:hidden;
text-overflow:ellipsis;white-space:nowrap}
.matrix thead th{text-align:center;vertical-align:bottom}.matrix thead th.word{vertical-align:bottom;text-align:right}
.matrix .up{writing-mode:vertical-rl;transform:rotate(180deg);text-align:left;max-height:12rem;
display:inline-block;overflow:hidden;text-overflow:ellipsis}
.matrix .none{color:var(--faint)}
.matrix .hit{background:rgba(var(--hit),var(--a))}.matrix .miss{background:rgba(var(--miss),var(--a))}
.matrix .strong{color:#fff}
.matrix .share{color:var(--quiet);padding-left:.9rem;text-align:right;white-space:nowrap}
.matrix tbody th,.matrix thead th.word{position:sticky;left:0;background:var(--paper)}
.images{display:grid;gap:.7rem;grid-template-columns:repeat(auto-fill,minmax(8.4rem,1fr))}
.image{padding:.5rem;overflow:hidden;line-height:1.4;font-size:.85rem;overflow-wrap:anywhere}
.image img{display:block;width:100%;aspect-ratio:1;object-fit:contain;border-radius:4px;margin-bottom:.4rem}
.image .small{image-rendering:pixelated}
.image div{display:flex;flex-wrap:wrap;justify-content:space-between;gap:0 .4rem}
.image span{color:var(--quiet);font-variant-numeric:tabular-nums;white-space:nowrap;margin-left:auto}
.wrong{color:var(--bad)}.right{color:var(--good)}
.lists{display:grid;gap:0 2.5rem;grid-template-columns:repeat(auto-fit,minmax(min(100%,20rem),1fr))}
.lists section{min-width:0}
dl{display:grid;grid-template-columns:max-content minmax(0,1fr);gap:.15rem 1.2rem;margin:0}
dt{color:var(--quiet)}dd{margin:0;overflow-wrap:anywhere}
summary{cursor:pointer;margin:.9rem 0 .5rem}
@media(max-width:34rem){dl{gap:.15rem .8rem}.tick{font-size:15px}.matrix td{min-width:2.1rem;padding:.3rem .2rem}
.matrix th{max-width:7rem;padding:.2rem .3rem}.images{grid-template-columns:repeat(auto-fill,minmax(7.2rem,1fr))}}
@media print{body{max-width:none}.card{break-inside:avoid}}
)";
