"""The sections about what was promised, what runs, what changed, and what was kept and proven."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import timedelta

from compose_chap import units
from compose_chap.report.facts.known import (
    BackupLine,
    ChangeLine,
    CopyLine,
    ProofLine,
    Reached,
    ReportFacts,
    ServiceLine,
)
from compose_chap.report.markup import Content, element
from compose_chap.report.tables import Heading, age, count, folded, headings, number, size, table, time, verdict, when

_SHOWN = 14  # lines of a table, before older ones are folded
_SAME_TIME = timedelta(hours=1)  # a proof that came with the backup needs no time of its own
_NEXT = {"nightly": "every night", "weekly": "every week", "monthly": "every month"}


def promise(known: ReportFacts) -> Content:
    """Return what the schedule promises, and what came of it."""
    plan = known.promise
    if plan is None:
        about: Content = element("p", "No work is scheduled. This was done by hand.")
    else:
        to = f" Copies go to {plan.repository}." if plan.repository else " No copies are made."
        about = element("p", f"The work is started by {plan.by}, every night at {plan.at} by this server's clock.{to}")
    rows = _promised(known)
    heads = headings("What", "Scheduled", "Last", *(number(f"{window.days} days") for window in known.reached))
    upcoming = [
        [
            _NEXT[kind].capitalize(),
            time(moment) if moment else element("strong", "never: its timer is gone", class_="bad"),
        ]
        for kind, moment in (plan.upcoming.items() if plan else ())
    ]
    following = table("When the work begins next", headings("Work", "Next"), upcoming) if upcoming else None
    return [about, table("What is scheduled, and what was done", heads, rows), following]


def _promised(known: ReportFacts) -> list[list[Content]]:
    plan, now, windows = known.promise, known.made_at, known.reached
    nightly, elsewhere = plan is not None, bool(plan and plan.repository)
    last = [
        known.sound.made_at if known.sound else None,
        known.copy.made_at if known.copy else None,
        known.test.at if known.test else None,
        known.drill.at if known.drill else None,
    ]
    ages: list[Content] = [age(moment, now) if moment else "never" for moment in last]
    return [
        ["Proven backup", "every night" if nightly else "", ages[0], *(_part(of, of.proven) for of in windows)],
        [
            "Copy in a repository",
            "every night" if elsewhere else "",
            ages[1],
            *(_part(of, of.copied) for of in windows),
        ],
        [
            "Test restore of a backup",
            "every week" if nightly else "",
            ages[2],
            *(str(of.tests) for of in known.reached),
        ],
        [
            "Test restore of a copy",
            "every month" if elsewhere else "",
            ages[3],
            *(str(of.drills) for of in known.reached),
        ],
    ]


def _part(of: Reached, reached: int) -> str:
    return f"{reached} of {of.nights}" if of.nights else ""


def services(known: ReportFacts) -> Content:
    """Return what runs, or what ran when the newest backup was made."""
    if not known.services:
        return element("p", "Not known: CHAP could not be asked, and there is no backup that says it.")
    rows: list[list[Content]] = [
        [line.name, line.role, line.version, _image(line), line.state, time(line.since)] for line in known.services
    ]
    caption = "Each service, with the image that it runs and the digest of that image"
    seen = "" if known.live else ", as it was when the newest backup was made: "
    heads = headings("Service", "Role", "Version", "Image and digest", "State", when("Runs since"))
    made = table(caption, heads, rows)
    made[0].text = caption + seen
    if not known.live and known.services_at:
        made[0].append(time(known.services_at))  # type: ignore[arg-type]
    return made


def _image(line: ServiceLine) -> Content:
    return [line.image, element("code", line.digest)]


def changes(known: ReportFacts) -> Content:
    """Return every upgrade, rollback and restore, with how long CHAP was down."""
    if not known.changes:
        return element("p", "CHAP was not changed with this tool so far.")
    heads = headings(when("When"), "What", "Result", number("CHAP down"), number("Expected"), "By")
    return _newest_first(
        "Upgrades, rollbacks and restores, the newest first", heads, [_change(line) for line in known.changes]
    )


def _change(line: ChangeLine) -> list[Content]:
    versions = " to ".join(filter(None, (line.before, line.after)))
    about = versions if line.operation == "upgrade" and versions else line.about
    message = element("div", units.clipped(line.message, 300), class_="note") if line.message else None
    return [
        time(line.at),
        [f"{line.operation} {about}".rstrip(), message],
        verdict(line.result),
        "" if line.downtime is None else units.stopwatch(line.downtime),
        "" if line.expected is None else units.stopwatch(line.expected),
        line.by,
    ]


def backups(known: ReportFacts) -> Content:
    """Return every backup with its proof; those that are gone are counted by month."""
    if not known.backups:
        return element("p", "There are no backups, and none was made so far.")
    kept = [line for line in known.backups if line.folder]
    gone = [line for line in known.backups if not line.folder]
    heads = headings(
        when("Made"),
        "CHAP",
        number("All files"),
        number("Dump"),
        number("Database"),
        "Proof",
        "Why",
    )
    parts: list[Content] = []
    if kept:
        parts.append(
            _newest_first(
                f"{len(kept)} on this server; a proof without a time came with the backup",
                heads,
                [_backup(line) for line in kept],
            )
        )
    else:
        parts.append(element("p", "There are no backups on this server now."))
    if gone:
        months = _by_month(gone)
        rows: list[list[Content]] = [
            [month, count(len(lines)), count(_tested(lines)), size(max((line.size or 0 for line in lines)) or None)]
            for month, lines in months
        ]
        monthly = headings("Month", number("Proven backups"), number("Of these restored as a test"), number("Largest"))
        caption = "Backups that were made and proven, and have been removed since"
        parts.append(folded(f"{caption}: {len(gone)}", table(caption, monthly, rows)))
    return parts


def _tested(lines: Iterable[BackupLine]) -> int:
    return sum(1 for line in lines if line.proven_by == "test-restored")


def _by_month(lines: Sequence[BackupLine]) -> list[tuple[str, list[BackupLine]]]:
    months: dict[str, list[BackupLine]] = {}
    for line in reversed(lines):
        months.setdefault(f"{line.made_at.astimezone():%Y-%m}", []).append(line)
    return list(months.items())


def _backup(line: BackupLine) -> list[Content]:
    return [
        time(line.made_at),
        line.chap_version,
        size(line.size),
        size(line.dump_size),
        size(line.database_size),
        _proven(line),
        line.reason + (", pinned" if line.pinned else ""),
    ]


def _proven(line: BackupLine) -> Content:
    if line.fault:
        return element("strong", f"BAD: {line.fault}", class_="bad")
    later = line.proven_at is not None and line.proven_at - line.made_at > _SAME_TIME
    return [line.proven_by, " ", time(line.proven_at)] if later else line.proven_by


def copies(known: ReportFacts) -> Content:
    """Return every copy that the records know of."""
    if not known.copies:
        return element("p", "There are no copies in a repository, as far as the records say.")
    stay = [line for line in known.copies if line.removed_at is None]
    gone = len(known.copies) - len(stay)
    heads = headings(
        when("Backup made"), when("Copied"), number("Sent"), number("As SQL"), when("Last test restore"), "Where"
    )
    places = {line.repository for line in stay}
    # A place that is the same for all is named once.
    rows = [[*_copy(line), line.repository if len(places) > 1 else ""] for line in stay]
    about = f", in {min(places)}" if len(places) == 1 and min(places) else ""
    about += f"; {gone} removed since by the rules" if gone else ""
    caption = f"Copies, as the records say: {len(stay)} kept{about}"
    note = "A copy counts when the repository has confirmed all of it. Sent is what was new to it, of the whole as SQL."
    return [
        _newest_first(caption, heads, rows) if rows else element("p", f"{caption}."),
        element("p", note, class_="note"),
    ]


def _copy(line: CopyLine) -> list[Content]:
    made: Content = time(line.made_at) if line.made_at else line.backup
    return [made, time(line.copied_at), size(line.sent), size(line.sql_size), time(line.drilled_at)]


def proofs(known: ReportFacts) -> Content:
    """Return every test restore, and every check of a repository."""
    if not known.proofs:
        return element("p", "There was no test restore so far, of a backup or of a copy.")
    heads = headings(when("When"), "What", "Result", number("Tables compared"), number("Rows compared"))
    caption = f"{len(known.proofs)} in all, the newest first; {_good(known.proofs)} went well"
    return _newest_first(caption, heads, [_proof(line) for line in known.proofs])


_KINDS = {
    "copy": "test restore of the copy of {}",
    "backup": "test restore of backup {}",
    "dump": "test restore of the file {}",
    "repository": "check of {}",
}


def _proof(line: ProofLine) -> list[Content]:
    about = _KINDS.get(line.kind, "{}").format(line.name) + (f": {line.proof}" if line.kind == "repository" else "")
    message = element("div", units.clipped(line.message, 300), class_="note") if line.message else None
    return [time(line.at), [about, message], verdict(line.result), count(line.tables), count(line.rows)]


def _good(lines: Sequence[ProofLine]) -> int:
    return sum(1 for line in lines if line.result == "done")


def _newest_first(caption: str, heads: Sequence[Heading], rows: Sequence[Sequence[Content]]) -> Content:
    # Few more are not worth a fold.
    most = _SHOWN if len(rows) > _SHOWN * 1.5 else len(rows)
    newest, older = rows[::-1][:most], rows[::-1][most:]
    shown = table(caption, heads, newest)
    if not older:
        return shown
    return [shown, folded(f"{len(older)} older", table("Older, the newest first", heads, older))]
