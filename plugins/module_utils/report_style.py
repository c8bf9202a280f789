# Copyright (c) 2026 The baremetal.llm authors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The style sheet of the report page."""

from __future__ import annotations

STYLE = """
:root {
  color-scheme: light;
  --ink: #1d2530; --soft: #596473; --line: #dde2e8; --wash: #f5f7f9; --link: #1f5a92;
  --ok: #1b7444; --ok-wash: #e7f4ec; --warn: #7d5200; --warn-wash: #fdf2d8; --fail: #b0261c; --fail-wash: #fdecea;
}
* { box-sizing: border-box; }
html { scroll-behavior: smooth; -webkit-text-size-adjust: 100%; }
body {
  margin: 0; background: #fff; color: var(--ink); overflow-wrap: anywhere;
  font: 16px/1.55 system-ui, -apple-system, "Segoe UI", Roboto, "Noto Sans", "PingFang SC", "Microsoft YaHei",
    "Noto Sans CJK SC", "DejaVu Sans", sans-serif;
}
header > *, main > *, footer > * { max-width: 66rem; margin-left: auto; margin-right: auto; }
header { background: var(--wash); border-top: 5px solid var(--soft); padding: 1.75rem 1.25rem 1.5rem; }
header.ok { border-top-color: var(--ok); }
header.fail { border-top-color: var(--fail); }
main { padding: 0 1.25rem; }
main > section { padding: 2rem 0 1.25rem; border-bottom: 1px solid var(--line); scroll-margin-top: 2.75rem; }
main > section:last-child { border-bottom: 0; }
h1 { font-size: 2rem; line-height: 1.2; margin-top: .6rem; margin-bottom: 0; letter-spacing: -.01em; }
h2 { font-size: 1.3rem; line-height: 1.3; margin: 0 0 .9rem; }
h3 { font-size: 1rem; margin: 1.6rem 0 .5rem; }
p { margin-top: .5rem; margin-bottom: .5rem; }
a { color: var(--link); }
.subtitle { color: var(--soft); font-size: 1.05rem; margin-top: .25rem; }
.outcome { margin-top: 0; margin-bottom: 0; }
.soft, .note, footer, figcaption { color: var(--soft); }
.note { font-size: .875rem; }
.mono, code, pre { font-family: ui-monospace, SFMono-Regular, Menlo, Consolas, "DejaVu Sans Mono", monospace; }
code, .mono { font-size: .875em; }

nav {
  margin: 0 auto;
  position: sticky; top: 0; z-index: 1; display: flex; gap: .25rem; overflow-x: auto; background: #fff;
  padding: .35rem .7rem; border-bottom: 1px solid var(--line); max-width: 68.5rem;
}
nav a { flex: none; padding: .25rem .55rem; border-radius: 4px; text-decoration: none; font-size: .92rem; }
nav a:hover, nav a:focus { background: var(--wash); text-decoration: underline; }

.facts {
  margin-top: 1rem; margin-bottom: 0; display: grid; gap: .7rem 2rem;
  grid-template-columns: repeat(auto-fill, minmax(15rem, 1fr));
}
.facts dt { color: var(--soft); font-size: .84rem; }
.facts dd { margin: 0; white-space: pre-line; }
.failure {
  background: var(--fail-wash); border-left: 5px solid var(--fail); border-radius: 4px; padding: 1.1rem 1.25rem;
  margin-top: 1.1rem;
}
.failure h2 { color: var(--fail); margin-bottom: 0; }
.failure .facts, #launch .facts { grid-template-columns: 1fr; gap: .35rem; }
.failure .facts > div, #launch .facts > div { display: grid; grid-template-columns: 5.5rem 1fr; gap: .75rem; }
.failure .facts dt, #launch .facts dt { padding-top: .12rem; }
.failure .facts + .facts { border-top: 1px solid #eec4bf; padding-top: 1rem; }

.badge {
  display: inline-block; padding: .05rem .6rem; border-radius: 99px; font-size: .875rem; font-weight: 600;
  white-space: nowrap; background: #e8ecf0; color: #3c4653;
}
.badge.ok { background: var(--ok-wash); color: var(--ok); }
.badge.warn { background: var(--warn-wash); color: var(--warn); }
.badge.fail { background: var(--fail-wash); color: var(--fail); }
.outcome .badge {
  font-size: 1rem; padding: .25rem .85rem; border-radius: 6px; color: #fff; background: var(--soft);
  white-space: normal;
}
.outcome .badge.ok { background: var(--ok); }
.outcome .badge.fail { background: var(--fail); }

.scroll {
  overflow-x: auto; margin: .5rem 0;
  /* A shadow at the side where the table goes on. */
  background:
    linear-gradient(to right, #fff 50%, #fff0) left / 2.5rem 100% no-repeat local,
    linear-gradient(to left, #fff 50%, #fff0) right / 2.5rem 100% no-repeat local,
    linear-gradient(to right, #1d253026, #1d253000) left / .7rem 100% no-repeat scroll,
    linear-gradient(to left, #1d253026, #1d253000) right / .7rem 100% no-repeat scroll;
}
table { border-collapse: collapse; width: 100%; font-size: .9rem; line-height: 1.45; }
th, td {
  text-align: left; vertical-align: top; padding: .45rem 1.1rem .45rem 0; border-bottom: 1px solid var(--line);
  min-width: 4rem; max-width: 24rem; overflow-wrap: break-word; white-space: pre-line;
}
th { color: var(--soft); font-weight: 600; font-size: .84rem; vertical-align: bottom; white-space: nowrap; }
th:last-child, td:last-child { padding-right: 0; }
.num { text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap; }
.word { white-space: nowrap; }
.reason { color: var(--fail); font-size: .84rem; }
pre {
  background: var(--wash); border: 1px solid var(--line); border-radius: 4px; padding: .8rem 1rem;
  margin: .5rem 0; overflow: auto; max-height: 32rem; font-size: .82rem; line-height: 1.5;
}
details { margin: .4rem 0; }
summary { cursor: pointer; }
ul { margin: .5rem 0; padding-left: 1.25rem; }

.tiles {
  display: grid; gap: .75rem; grid-template-columns: repeat(auto-fit, minmax(9rem, 1fr)); margin-bottom: 1rem;
}
.tile { background: var(--wash); border-radius: 4px; padding: .7rem .9rem; }
.tile b { display: block; font-size: 1.4rem; line-height: 1.3; font-variant-numeric: tabular-nums; }
.tile span { color: var(--soft); font-size: .84rem; }
.tile.bad { background: var(--fail-wash); } .tile.bad b { color: var(--fail); }

figure { margin: 1.2rem 0 .4rem; }
figcaption { font-size: .9rem; margin-bottom: .6rem; color: var(--ink); font-weight: 600; }
svg { display: block; width: 100%; overflow: visible; }
svg.bars { margin-left: 96px; width: calc(100% - 96px - 96px); }
svg.scatter { margin-left: 60px; width: calc(100% - 60px); }
svg text { font-size: 12px; fill: var(--soft); font-variant-numeric: tabular-nums; }
svg .label, svg .value { font-size: 14px; fill: var(--ink); }
svg .halo {
  fill: var(--ink); font-weight: 600; paint-order: stroke; stroke: #fff; stroke-width: 4px;
  stroke-linejoin: round;
}
svg .cross { fill: var(--fail); font-weight: 700; }
svg .grid { stroke: #e6eaee; } svg .rule { stroke: #f0f2f5; } svg .mark { stroke: #3c4653; stroke-dasharray: 5 4; }
.legend { display: flex; flex-wrap: wrap; gap: .25rem 1.25rem; font-size: .875rem; color: var(--soft); }
.swatch {
  display: inline-block; width: .8em; height: .8em; border-radius: 2px; margin-right: .45em;
  vertical-align: -.05em;
}
.swatch.dot { border-radius: 50%; }
.fill-ok { fill: #35618e; } .fill-fail { fill: var(--fail); } .fill-none { fill: #8b96a3; }
.dot { fill: #35618e; fill-opacity: .8; background: #35618e;}
.dot.bad { fill: var(--fail); background: var(--fail);}
.span-first { fill: #e0a03a; background: #e0a03a; } .span-rest { fill: #35618e; background: #35618e; }
.span-bad { fill: var(--fail); background: var(--fail); }
.part0 { fill: #35618e; background: #35618e; } .part1 { fill: #e0a03a; background: #e0a03a; }
.part2 { fill: #4f9d8b; background: #4f9d8b; } .part3 { fill: #a4668f; background: #a4668f; }
.part4 { fill: #8b96a3; background: #8b96a3; } .part5 { fill: #b7c7d8; background: #b7c7d8; }
footer { padding: 1.25rem; background: var(--wash); font-size: .875rem; }

@media (max-width: 40rem) {
  h1 { font-size: 1.6rem; }
  header { padding-top: 1.25rem; }
  .facts { grid-template-columns: repeat(auto-fill, minmax(9.5rem, 1fr)); gap: .6rem 1rem; }
  .failure { padding: .9rem 1rem; }
  .failure .facts > div, #launch .facts > div { grid-template-columns: 1fr; gap: 0; }
  header > .facts > div:first-child { grid-column: 1 / -1; }
  table { width: max-content; min-width: 100%; }
  td { max-width: 15rem; }
}
@media print {
  * { -webkit-print-color-adjust: exact; print-color-adjust: exact; }
  body { font-size: 10.5pt; }
  nav { display: none; }
  header, main, footer { padding-left: 0; padding-right: 0; }
  main > section { padding: 1rem 0 .5rem; }
  h2, h3, figcaption, main > section > p { break-after: avoid; }
  tr, figure, .tile, .failure .facts { break-inside: avoid; }
  .scroll { overflow: visible; }
  table { font-size: 8.5pt; }
  th, td { padding-right: .5rem; min-width: 0; }
  pre { max-height: none; white-space: pre-wrap; }
  details::details-content { content-visibility: visible; height: auto; }
}
"""
