"""HTML as a tree: whatever is put into it is text, so nothing in a record can become markup."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Union
from xml.etree.ElementTree import Element, tostring

from compose_chap.redact import redact

Content = Union[str, Element, None, Iterable["Content"]]

# No browser shows these, or they turn the letters around them: a name could pretend to be another.
_HIDDEN = re.compile("[\0-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff\ufffe\uffff]")


def element(tag: str, *content: Content, **attributes: str | None) -> Element:
    """Return an element with text and elements in it; an attribute that is None is left out.

    `class_` is the attribute class, `aria_label` is aria-label.
    """
    known = {name.rstrip("_").replace("_", "-"): value for name, value in attributes.items()}
    made = Element(tag, {name: clean(value) for name, value in known.items() if value is not None})
    _fill(made, content)
    return made


def clean(text: str) -> str:
    """Return a text without secrets and without what cannot be seen."""
    return _HIDDEN.sub("\ufffd", redact(text))


def document(root: Element) -> str:
    """Return the tree as an HTML document."""
    return f"<!doctype html>\n{tostring(root, encoding='unicode', method='html')}\n"


def _fill(parent: Element, content: Iterable[Content]) -> None:
    for part in content:
        if isinstance(part, str):
            _add_text(parent, clean(part))
        elif isinstance(part, Element):
            parent.append(part)
        elif part is not None:
            _fill(parent, part)


def _add_text(parent: Element, text: str) -> None:
    if len(parent):
        parent[-1].tail = (parent[-1].tail or "") + text
    else:
        parent.text = (parent.text or "") + text
