"""How the page looks: on a screen, light and dark, on a telephone, and on paper."""

from __future__ import annotations

import base64
import hashlib

STYLE = """
:root {
  --text: #1b1b1b; --muted: #595959; --ground: #ffffff; --rule: #d8d8d8; --shade: #f6f6f4;
  --bad: #a3201d; --link: #0b5cad; --plot-1: #0b5cad; --plot-2: #a9480b; color-scheme: light;
}
@media screen and (prefers-color-scheme: dark) {
  :root {
    --text: #e6e6e3; --muted: #a9adb3; --ground: #16181b; --rule: #3a3e44; --shade: #1e2125;
    --bad: #ff9d94; --link: #7db8f5; --plot-1: #7db8f5; --plot-2: #f0a467; color-scheme: dark;
  }
}
* { box-sizing: border-box; }
html { -webkit-text-size-adjust: 100%; }
body {
  margin: 0 auto; padding: 2.5rem 1.5rem 4rem; max-width: 72rem; background: var(--ground); color: var(--text);
  font: 1rem/1.5 system-ui, -apple-system, "Segoe UI", Roboto, "Noto Sans", "DejaVu Sans", sans-serif;
}
h1 { font-size: 1.9rem; line-height: 1.2; margin: 0 0 .5rem; font-weight: 650; letter-spacing: -.01em; }
h2 { font-size: 1.25rem; line-height: 1.3; margin: 3rem 0 .75rem; font-weight: 650; }
h3 { font-size: 1rem; margin: 1.75rem 0 .5rem; font-weight: 650; }
p, ul, ol { margin: 0 0 .9rem; max-width: 44rem; }
ul { padding-left: 1.25rem; }
li { margin-bottom: .4rem; }
a { color: var(--link); text-underline-offset: .15em; }
:focus-visible { outline: 2px solid var(--link); outline-offset: 2px; }
code { font: .875em/1.4 ui-monospace, SFMono-Regular, Menlo, "DejaVu Sans Mono", monospace; overflow-wrap: anywhere; }
.note, figcaption, footer { color: var(--muted); font-size: .9rem; }
main > section:first-child h2 { margin-top: 2rem; }
main > .problems:first-child { border-left: 4px solid var(--bad); padding: .1rem 0 .1rem 1.1rem; margin-top: 2rem; }
main > .problems:first-child h2 { margin-top: 0; }
.bad { color: var(--bad); font-weight: 600; }
dl { display: grid; grid-template-columns: max-content 1fr; margin: 0; }
dt, dd { padding: .4rem 0; border-top: 1px solid var(--rule); margin: 0; }
dt { color: var(--muted); padding-right: 2rem; }
dd span { color: var(--muted); }
table { border-collapse: collapse; width: 100%; margin: 0 0 1rem; font-size: .9rem; line-height: 1.4; }
caption { text-align: left; color: var(--muted); padding-bottom: .4rem; }
th, td { text-align: left; vertical-align: top; padding: .4rem 1.25rem .4rem 0; border-top: 1px solid var(--rule); }
th:last-child, td:last-child { padding-right: 0; }
thead th { border-top: 0; color: var(--muted); font-weight: 500; vertical-align: bottom; }
tbody th { font-weight: 500; }
td, th { font-variant-numeric: tabular-nums; overflow-wrap: break-word; }
td code { display: block; font-size: .8em; }
td .note { margin-top: .2rem; }
.number { text-align: right; white-space: nowrap; overflow-wrap: normal; }
.when { white-space: nowrap; overflow-wrap: normal; }
.hidden {
  position: absolute; width: 1px; height: 1px; overflow: hidden; clip-path: inset(50%); white-space: nowrap;
}
details { margin: 0 0 1rem; }
summary { cursor: pointer; color: var(--link); font-size: .9rem; padding: .3rem 0; }
details[open] > summary { margin-bottom: .5rem; }
.scroll { overflow-x: auto; }
.scroll table { width: auto; min-width: 100%; }
.scroll td, .scroll th { white-space: nowrap; overflow-wrap: normal; }
figure { margin: 0; min-width: 0; }
figure svg { display: block; width: 100%; height: auto; }
figcaption { color: var(--text); }
figcaption span { color: var(--muted); }
.plots { display: grid; grid-template-columns: 1fr 1fr; gap: 1.5rem 2.5rem; margin-bottom: 1rem; }
.small { grid-template-columns: repeat(4, 1fr); gap: 1.25rem 1.5rem; }
nav ol {
  list-style: none; padding: 0; display: flex; flex-wrap: wrap; gap: .2rem 1.25rem; font-size: .9rem; max-width: none;
}
nav li { margin: 0; }
footer { margin-top: 3rem; border-top: 1px solid var(--rule); padding-top: 1rem; }
@media screen and (max-width: 60rem) {
  .small { grid-template-columns: repeat(3, 1fr); }
  .stack .when { white-space: normal; }
}
@media screen and (max-width: 44rem) {
  body { padding: 1.5rem 1rem 3rem; }
  dl { display: block; }
  dt { padding: .5rem 0 0; }
  dd { border-top: 0; padding: 0 0 .5rem; }
  .plots { grid-template-columns: 1fr; }
  .small { grid-template-columns: 1fr 1fr; gap: 1rem; }
  .stack, .stack caption, .stack tbody, .stack tr { display: block; }
  .stack thead { position: absolute; width: 1px; height: 1px; overflow: hidden; clip-path: inset(50%); }
  .stack tr { border-top: 1px solid var(--rule); padding: .6rem 0; }
  .stack th, .stack td { display: block; border: 0; padding: .1rem 0 .1rem 7.5rem; white-space: normal; }
  .stack th { padding-left: 0; }
  .stack td.number { text-align: left; }
  .stack td::before { content: attr(data-label); color: var(--muted); float: left; width: 7rem; margin-left: -7.5rem; }
  .stack td.none { display: none; }
}
@page {
  size: A4; margin: 16mm 15mm 18mm;
  @bottom-right { content: counter(page) " / " counter(pages); font-size: 8pt; color: #595959; }
}
@media print {
  body { max-width: none; padding: 0; font-size: 9.5pt; line-height: 1.4; }
  nav { display: none; }
  h1 { font-size: 18pt; } h2 { font-size: 12.5pt; margin-top: 8mm; } h3 { font-size: 10pt; }
  h2, h3, caption, thead { break-after: avoid; }
  tr, figure, li, .problems { break-inside: avoid; }
  table { font-size: 8pt; }
  th, td { padding: 1.2mm 3mm 1.2mm 0; }
  .plots { grid-template-columns: 1fr 1fr; gap: 4mm 8mm; }
  .small { grid-template-columns: repeat(4, 1fr); gap: 4mm; }
  .note, figcaption, footer { font-size: 8.5pt; }
  .short { break-inside: avoid; }
  a { color: inherit; text-decoration: none; }
  details:not([open]) { display: none; }
}
"""
# Nothing is loaded, nothing runs, and of styles only the above counts.
POLICY = (
    "default-src 'none'; base-uri 'none'; form-action 'none'; style-src 'sha256-"
    + base64.b64encode(hashlib.sha256(STYLE.encode()).digest()).decode()
    + "'"
)
