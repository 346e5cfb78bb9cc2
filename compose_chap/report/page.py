"""The page: its head, what is read first, and the sections in their order."""

from __future__ import annotations

from collections.abc import Iterator
from xml.etree.ElementTree import Element

from compose_chap import units
from compose_chap.report import growth, sections, work
from compose_chap.report.facts.known import BackupLine, CopyLine, ProofLine, ReportFacts
from compose_chap.report.facts.lines import last_change
from compose_chap.report.markup import Content, document, element
from compose_chap.report.style import POLICY, STYLE
from compose_chap.report.tables import UNKNOWN, age, facts, size, time

# What every report begins with, and no other page.
GENERATOR = "docker chap report"
MARK = f'<meta name="generator" content="{GENERATOR}'


def page(known: ReportFacts) -> str:
    """Return the report as an HTML document."""
    parts = [
        _section("glance", "At a glance", facts(_glance(known))),
        _section("promise", "Scheduled and done", sections.promise(known)),
        _section("runs", "What runs", sections.services(known)),
        _section("changes", "Changes of CHAP", sections.changes(known)),
        _section("backups", "Backups", sections.backups(known)),
        _section("copies", "Copies in a repository", sections.copies(known)),
        _section("drills", "Test restores and checks", sections.proofs(known)),
        _section("size", "Sizes and downtimes", growth.sizes(known)),
        _section("rows", "Rows of each table over time", growth.rows(known)),
        _section("history", "Everything that was done", work.history(known)),
    ]
    body = element("body", _header(known, parts), element("main", _problems(known), parts), _footer(known))
    return document(element("html", _head(known), body, lang="en"))


def _title(known: ReportFacts) -> str:
    return f"CHAP report: {known.project or known.directory}"


def _head(known: ReportFacts) -> Element:
    style = element("style")
    style.text = STYLE
    policy = element("meta", content=POLICY)
    policy.set("http-equiv", "Content-Security-Policy")
    return element(
        "head",
        element("meta", charset="utf-8"),
        element("meta", name="generator", content=f"{GENERATOR} {known.tool}"),
        policy,
        element("meta", name="viewport", content="width=device-width, initial-scale=1"),
        element("meta", name="referrer", content="no-referrer"),
        element("title", _title(known)),
        style,
    )


def _header(known: ReportFacts, parts: list[Element]) -> Element:
    period = [", with records from ", time(known.began), " on"] if known.began else []
    server = [f"On {known.server}. "] if known.server else []
    links = (element("li", element("a", part[0].text, href=f"#{part.get('id')}")) for part in parts)
    return element(
        "header",
        element("h1", _title(known)),
        element("p", server, "Made ", time(known.made_at), period, ".", class_="note"),
        element("nav", element("ol", links), aria_label="Sections"),
    )


def _problems(known: ReportFacts) -> Element:
    title = element("h2", "Problems open now", id="problems-title")
    if not known.problems:
        return element("section", title, element("p", "None."), aria_labelledby="problems-title")
    listed = element("ul", (element("li", _problem(problem)) for problem in known.problems))
    return element("section", title, listed, class_="problems", aria_labelledby="problems-title")


def _problem(text: str) -> Content:
    """Return a problem with the command that helps set apart."""
    about, colon, command = text.rpartition(": docker chap ")
    return [f"{about}: ", element("code", f"docker chap {command}")] if colon else text


def _section(name: str, title: str, *content: Content) -> Element:
    head = element("h2", title, id=f"{name}-title")
    return element("section", head, content, id=name, aria_labelledby=f"{name}-title")


def _glance(known: ReportFacts) -> Iterator[tuple[str, Content]]:
    last = last_change(known.changes)
    since: Content = [" since ", time(last.at)] if last else ""
    before = f", upgraded from {last.before}" if last and last.operation == "upgrade" and last.before else ""
    yield "CHAP", [known.chap_version or UNKNOWN, since, before]
    if known.live:
        yield "Health", known.health
        yield "Schema", known.schema or UNKNOWN
    yield "Database", size(known.database_size) or UNKNOWN
    yield "Newest proven backup", _backup(known, known.sound)
    yield "Newest copy in a repository", _copy(known, known.copy)
    yield "Last test restore of a backup", _proof(known, known.test)
    yield "Last test restore of a copy", _proof(known, known.drill)
    month = known.reached[0] if known.reached else None
    if month and month.nights:
        nights = "nights" if known.promise else "days"
        yield f"Last {month.days} days", f"{month.proven} of {month.nights} {nights} with a proven backup"
    free = [f"{units.size(known.database_free)} for the database"] if known.database_free is not None else []
    free += [f"{units.size(known.backups_free)} for backups"] if known.backups_free is not None else []
    if free:
        yield "Free space", ", ".join(free)


def _backup(known: ReportFacts, newest: BackupLine | None) -> Content:
    if newest is None:
        return "none"
    return [age(newest.made_at, known.made_at), f", {size(newest.size)}, {newest.proven_by}"]


def _copy(known: ReportFacts, newest: CopyLine | None) -> Content:
    if newest is None:
        return "none"
    made = newest.made_at or newest.copied_at
    return ["of the backup made ", age(made, known.made_at), f", in {newest.repository}" if newest.repository else ""]


def _proof(known: ReportFacts, last: ProofLine | None) -> Content:
    if last is None:
        return "none so far"
    counted = f", {last.tables} tables compared" if last.tables is not None else ""
    return [age(last.at, known.made_at), counted]


def _footer(known: ReportFacts) -> Element:
    asked = "CHAP itself was asked" if known.live else "CHAP could not be asked"
    return element(
        "footer",
        element(
            "p",
            f"{asked}; all else is from the records and backups beside {known.directory}. A backup is proven when"
            " PostgreSQL's own tools have read it from its first byte to its last (read back), or have restored it in a"
            " throwaway PostgreSQL, where the rows of every table were counted (test-restored). A test restore of a"
            " copy does the latter with a copy that was brought back from its repository.",
        ),
        element("p", f"Made by docker chap {known.tool}. This page loads nothing and runs nothing."),
    )
