"""The page that reports are written on: one self-contained HTML file that runs nothing and loads nothing."""

from __future__ import annotations

import base64
from collections.abc import Iterable, Sequence
from html import escape
from importlib import resources
from string import Template
from typing import NamedTuple


class Section(NamedTuple):
    """Of a page; one without ``content`` is left out."""

    place: str
    name: str
    """In the list of contents."""
    title: str
    content: str


def page(title: str, overview: str, sections: Sequence[Section]) -> bytes:
    """A page with ``overview`` on top. Contents are ready HTML, in which whatever comes from data is escaped."""
    shown = [section for section in sections if section.content]
    links = "".join(f'<a href="#{section.place}">{section.name}</a>' for section in shown)
    main = "\n".join(f'<section id="{s.place}">\n<h2>{s.title}</h2>\n{s.content}\n</section>' for s in shown)
    template = Template(resources.files("pipelines").joinpath("report.html").read_text("utf-8"))
    text = template.substitute(title=escape(title), overview=overview.replace("<nav/>", f"<nav>{links}</nav>"), main=main)
    return text.encode()


def table(head: Sequence[str], rows: Iterable[str]) -> str:
    """A table; columns whose heading begins with ``#`` hold numbers. ``rows`` are ready ``<tr>`` elements."""
    cells = "".join(f'<th class="n">{name[1:]}</th>' if name.startswith("#") else f"<th>{name}</th>" for name in head)
    return f'<div class="scroll"><table><thead><tr>{cells}</tr></thead><tbody>{"".join(rows)}</tbody></table></div>'


def picture(data: bytes, about: str, kind: str = "jpeg") -> str:
    """A picture of a ``kind`` that browsers know, with what it is ``about`` below."""
    text, about = base64.b64encode(data).decode("ascii"), escape(about)
    return f'<figure><img alt="{about}" src="data:image/{kind};base64,{text}"><figcaption>{about}</figcaption></figure>'
