"""The style sheet of the site, on top of the theme's."""

CSS = """\
/* Nothing makes the page itself scroll sideways: what is wide scrolls within itself. */
article { overflow-wrap: anywhere; }
article pre, article .table-wrapper, .cell_output, div.math, .output { overflow-wrap: normal; }
div.cell_output .output, div.math, .table-wrapper { max-width: 100%; overflow-x: auto; }
mjx-container[display="true"] { overflow-x: auto; overflow-y: hidden; }
article img { max-width: 100%; height: auto; background: #fff; }
div.cell_output table { display: table; margin-left: 0; font-size: 0.8rem; }
div.cell_output td, div.cell_output th { white-space: nowrap; }

/* Captions, and the command below one. */
figcaption { text-align: left; font-style: italic; }
p.made { font-size: var(--font-size--small); color: var(--color-foreground-secondary); }

/* Tables of numbers. */
table.main td, table.main th { white-space: nowrap; font-variant-numeric: tabular-nums; }
table.claims td { vertical-align: top; font-size: 0.8rem; }
.holds, .fails, .inconclusive { white-space: nowrap; font-weight: 600; }
.holds { color: #005a8c; }
.fails { color: #a34700; }
.inconclusive { color: #5a5a5a; font-weight: 400; }
body[data-theme="dark"] .holds { color: #7cc4f2; }
body[data-theme="dark"] .fails { color: #ffab6b; }
body[data-theme="dark"] .inconclusive { color: #b5b5b5; }

/* On a phone a claim is a card. */
@media (max-width: 46em) {
  table.claims, table.claims tbody, table.claims tr, table.claims td { display: block; width: auto; }
  table.claims thead { display: none; }
  table.claims tr { margin: 0 0 1rem; padding: 0.4rem 0; border-top: 2px solid var(--color-table-border); }
  table.claims td { border: 0; padding: 0.1rem 0.4rem; }
  table.claims td:nth-child(5)::before { content: "n: "; }
  table.claims td:nth-child(6)::before { content: "source: "; }
  table.claims td:nth-child(7)::before { content: "shown by: "; }
}
"""
