"""Pieces of Markdown that several pages share."""

from lib.book.found import Found
from lib.book.links import near
from lib.book.notebooks import plain


def row(values: list) -> str:
    """A row of a table."""
    return "| " + " | ".join(map(str, values)) + " |"


def cell(text: str) -> str:
    """Plain text for a cell of a table: nothing in it is markup."""
    return "".join(f"\\{mark}" if mark in "\\`*_[]{}<>|$#" else mark for mark in text)


def figure(there: Found, dataset: str, name: str, page: str, named: bool = True) -> str:
    """A figure with its caption, what draws it, and the command that does so again.

    named: give it the anchor <data set>-<name>, which one page only may.
    """
    from lib import captions

    caption = captions.CAPTIONS.get(name)
    text = caption.text if caption else f"{name}, on {dataset}."
    up = "../" * page.count("/")
    lines = [f"```{{figure}} {up}figures/{dataset}-{name}.svg", *[f":name: {dataset}-{name}"] * named,
             f":alt: {plain(text)}", "", " ".join(text.split()), "```"]
    if caption:
        notebook = near(there.stage_page(caption.stage, dataset), page)
        drawn = f"[{caption.stage}]({notebook})" if notebook else f"`{caption.stage}`"
        lines += ["", "{.made}", f"Drawn by stage {drawn}; again with "
                  f"`{captions.command(name, there.profile, dataset)}`"]
    return "\n".join(lines)
