"""The style sheet of the site, on top of the theme's."""

CSS = """\
/* Nothing makes the page itself scroll sideways: what is wide scrolls within itself. */
article { overflow-wrap: anywhere; }
article pre, article .table-wrapper, .cell_output, div.math, .output { overflow-wrap: normal; }
div.cell_output .output, div.math, .table-wrapper { max-width: 100%; overflow-x: auto; }
mjx-container[display="true"] { overflow-x: auto; overflow-y: hidden; }
article img { max-width: 100%; height: auto; background: #fff; }

/* Room for a line of code of 100 letters where the window has it. */
article pre { font-size: 0.76rem; line-height: 1.45; }
@media (min-width: 74em) { .content { width: 52em; } }

/* Code that waits behind a button: the button is quiet. */
div.cell details.admonition.hide { border: 0; background: none; box-shadow: none; padding: 0; margin: 0; }
div.cell details.hide > summary > p.admonition-title {
  background: none; padding: 0.1rem 0 0.1rem 0.2rem; margin: 0; font-size: 0.75rem; font-weight: 400;
  color: var(--color-foreground-secondary); list-style-position: inside; }
div.cell details.hide > summary > p.admonition-title::before { display: none; }
div.cell details.hide > summary:hover > p.admonition-title { color: var(--color-brand-content); }

/* Captions, and the command below one. */
figcaption { text-align: left; font-style: italic; }
p.made { font-size: var(--font-size--small); color: var(--color-foreground-secondary); }

/* Tables: to the left, numbers smaller; a method stays in view while its numbers are scrolled. */
table.docutils, div.cell_output table { margin-left: 0; margin-right: auto; }
div.cell_output table { display: table; font-size: 0.8rem; border: 0; border-collapse: collapse; }
div.cell_output td, div.cell_output th {
  white-space: nowrap; border: 0; border-bottom: 1px solid var(--color-table-border); padding: 0.15rem 0.5rem; }
table.main td, table.main th { white-space: nowrap; font-variant-numeric: tabular-nums; font-size: 0.78rem; }
table.main td:first-child { position: sticky; left: 0; background: var(--color-background-primary); }
table.claims td, table.claims th { vertical-align: top; font-size: 0.8rem; }
table.claims td:nth-child(1), table.claims td:nth-child(5) { white-space: nowrap; }
.holds, .fails, .inconclusive { white-space: nowrap; font-weight: 600; }
.holds { color: #005a8c; }
.fails { color: #a34700; }
.inconclusive { color: #5a5a5a; font-weight: 400; }
body[data-theme="dark"] .holds { color: #7cc4f2; }
body[data-theme="dark"] .fails { color: #ffab6b; }
body[data-theme="dark"] .inconclusive { color: #b5b5b5; }
@media (prefers-color-scheme: dark) {
  body:not([data-theme="light"]) .holds { color: #7cc4f2; }
  body:not([data-theme="light"]) .fails { color: #ffab6b; }
  body:not([data-theme="light"]) .inconclusive { color: #b5b5b5; }
}

/* On a phone a figure keeps the size at which its text can be read, and a claim is a card. */
@media (max-width: 46em) {
  figure { overflow-x: auto; }
  article figure img, article .cell_output img { max-width: none; }
  table.claims, table.claims tbody, table.claims tr, table.claims td { display: block; width: auto; }
  table.claims thead { display: none; }
  table.claims tr { margin: 0; padding: 0.5rem 0; border-top: 2px solid var(--color-table-border); }
  table.claims td { border: 0; padding: 0.1rem 0.4rem; font-size: 0.85rem; }
  table.claims td p { display: inline; margin: 0; }
  table.claims td:nth-child(1) { font-weight: 600; }
  table.claims td:nth-child(5)::before { content: "n: "; }
  table.claims td:nth-child(6)::before { content: "source: "; }
  table.claims td:nth-child(7)::before { content: "shown by: "; }
}
"""
