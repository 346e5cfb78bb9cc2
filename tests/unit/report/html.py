"""A reader of pages that is stricter than browsers are: every element is closed where it should be."""

from __future__ import annotations

from dataclasses import dataclass, field
from html.parser import HTMLParser

VOID = {"meta", "br", "link"}


@dataclass
class Node:
    """An element: its name, its attributes, and the elements and texts in it."""

    tag: str
    attributes: dict[str, str] = field(default_factory=dict)
    children: list[Node | str] = field(default_factory=list)

    def all(self, tag: str = "") -> list[Node]:
        """Return this element and all below it, or those of a name."""
        nodes = [self, *(node for child in self.children if isinstance(child, Node) for node in child.all())]
        return [node for node in nodes if not tag or node.tag == tag]

    @property
    def text(self) -> str:
        """The text in it and in all below it."""
        return "".join(child if isinstance(child, str) else child.text for child in self.children)


class _Strict(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.root = Node("document")
        self.open = [self.root]

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        names = [name for name, _ in attrs]
        assert len(names) == len(set(names)) and all(value is not None for _, value in attrs), attrs
        node = Node(tag, {name: value or "" for name, value in attrs})
        self.open[-1].children.append(node)
        if tag not in VOID:
            self.open.append(node)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop().tag == tag

    def handle_data(self, data: str) -> None:
        self.open[-1].children.append(data)


def parse(page: str) -> Node:
    """Return the tree of a page; fail for one that is not well formed."""
    reader = _Strict()
    reader.feed(page)
    reader.close()
    assert reader.open == [reader.root] and page.startswith("<!doctype html>\n")
    return reader.root
