"""Pieces of Markdown that several pages share."""

from lib.book.found import Found, plain
from lib.book.links import near


def row(values: list) -> str:
    """A row of a table."""
    return "| " + " | ".join(map(str, values)) + " |"


def cell(text: str) -> str:
    """Plain text for a cell of a table: nothing in it is markup."""
    return "".join(f"\\{mark}" if mark in "\\`*_[]{}<>|$#" else mark for mark in text)


def figure(there: Found, dataset: str, name: str, page: str, named: bool = True) -> str:
    """A figure with its caption, what draws it, and the command that does so again.

    page: one at the top of the site. A click on the figure opens it alone. named: give it the anchor
    <data set>-<name>, which one page only may.
    """
    from lib import captions

    caption = captions.CAPTIONS.get(name)
    text = caption.text if caption else f"{name}, on {dataset}."
    file = f"{dataset}-{name}.svg"
    lines = [f"```{{figure}} figures/{file}", *[f":name: {dataset}-{name}"] * named, f":alt: {plain(text)}",
             f":target: _images/{file}", "", " ".join(text.split()), "```"]
    if caption:
        notebook = near(there.stage_page(caption.stage, dataset), page)
        drawn = f"[{caption.stage}]({notebook})" if notebook else f"`{caption.stage}`"
        lines += ["", "{.made}", f"Drawn by stage {drawn}; again with "
                  f"`{captions.command(name, there.profile, dataset)}`"]
    return "\n".join(lines)
