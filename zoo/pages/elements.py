"""HTML that needs nothing else: escaped text, tables, lists of facts; a whole page, or a piece for a notebook.

A page holds its style and its images, loads nothing, and runs no script: it opens from a disk, in a mail and behind a
proxy. Light and dark follow the reader's system; a table that is wider than a phone scrolls by itself.
"""

import html
from base64 import b64encode
from collections.abc import Mapping, Sequence

from zoo._console import NUMBER
from zoo._text import clean
from zoo.pages.style import STYLE


class Markup(str):
    """Text that is HTML already."""

    __slots__ = ()


def escape(text: object) -> Markup:
    """Return text as HTML that shows it as it is; what is `Markup` stays so."""
    return text if isinstance(text, Markup) else Markup(html.escape(clean(str(text))))


def join(parts: Sequence[object], between: str = "\n") -> Markup:
    """Return several texts after each other."""
    return Markup(between.join(map(escape, parts)))


def make_table(
    rows: Sequence[Mapping[str, object]], totals: Mapping[str, object] | None = None, *, most: int = 200
) -> Markup:
    """Return rows as a table; its columns are their keys, and those that hold numbers are aligned on the right.

    Args:
        rows: One mapping per row, from column to text; a missing key leaves the cell empty.
        totals: A last row, set apart.
        most: Rows that are shown; below the table stands how many there are.
    """
    names = list(dict.fromkeys(name for row in rows for name in row))
    numeric = {name for name in names if all(_is_number(row.get(name, "-")) for row in rows)}

    def line(tag: str, row: Mapping[str, object]) -> str:
        cells = ((' class="number"' if name in numeric else "", escape(row.get(name, ""))) for name in names)
        return "<tr>" + "".join(f"<{tag}{kind}>{text}</{tag}>" for kind, text in cells) + "</tr>"

    head = line("th", dict(zip(names, names, strict=True)))
    body = "".join(line("td", row) for row in rows[:most])
    foot = f"<tfoot>{line('td', totals)}</tfoot>" if totals else ""
    more = f"<p>the first {most} of {len(rows):,}</p>" if len(rows) > most else ""
    return Markup(
        f'<div class="scroll"><table class="rows"><thead>{head}</thead><tbody>{body}</tbody>{foot}</table></div>{more}'
    )


def list_facts(facts: Mapping[str, object]) -> Markup:
    """Return names with what is to be said of them."""
    return Markup(
        "<dl>" + "".join(f"<dt>{escape(name)}</dt><dd>{escape(text)}</dd>" for name, text in facts.items()) + "</dl>"
    )


def code(text: object) -> Markup:
    """Return text in a typewriter's letters."""
    return Markup(f"<code>{escape(text)}</code>")


def embed_image(content: bytes, kind: str, text: str, *, style: str = "") -> Markup:
    """Return an image that the page holds itself.

    Args:
        content: Of the file.
        kind: Of the file, `png` or `jpeg`.
        text: Read aloud to those who do not see it.
        style: Its CSS class.
    """
    data = b64encode(content).decode("ascii")
    return Markup(f'<img class="{style}" alt="{escape(text)}" src="data:image/{kind};base64,{data}">')


def make_fragment(title: object, *parts: object) -> str:
    """Return a heading and parts with their style, for a notebook."""
    body = join(parts, "")
    return f'<style>{STYLE}</style><div class="zoo fragment"><p><b>{escape(title)}</b></p>{body}</div>'


def make_page(title: str, style: str, parts: Sequence[object]) -> str:
    """Return a whole page.

    Args:
        title: Of its window.
        style: CSS besides what every page has.
        parts: Its content.
    """
    return f"""<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width,initial-scale=1">
<meta name="color-scheme" content="light dark"><meta name="referrer" content="no-referrer">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; img-src data:; style-src 'unsafe-inline'">
<title>{escape(title)}</title><style>{STYLE}{style}</style></head>
<body class="zoo"><main>
{join(parts)}
</main></body></html>
"""


def _is_number(value: object) -> bool:
    return NUMBER.fullmatch(str(value)) is not None
