"""Upgrade CHAP to another version: pull and back up while it serves, then one transaction."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from compose_chap.backups import backup, catalogue
from compose_chap.backups.catalogue import Backup
from compose_chap.check import Check
from compose_chap.engine.pull import pull
from compose_chap.engine.world import World
from compose_chap.errors import ChapError, EngineError, RolledBack
from compose_chap.image import Reference
from compose_chap.operations.upgrade_plan import UpgradePlan
from compose_chap.preflight import roads
from compose_chap.processes.process import check as succeeded
from compose_chap.records import lock, run_records
from compose_chap.records.run_records import Journal
from compose_chap.records.steps import Step
from compose_chap.stack import databases, model_schema, releases
from compose_chap.stack.jobs import wait_for_jobs
from compose_chap.transaction import forward, prepare
from compose_chap.transaction.containers import server_of
from compose_chap.transaction.data.previous_data import previous_data_of
from compose_chap.transaction.file_changes import file_changes_of
from compose_chap.transaction.run import kept
from compose_chap.transaction.run.baseline import Baseline
from compose_chap.transaction.run.change import Change, begin, describe, images_of
from compose_chap.transaction.run.facts import facts_of


@dataclass(frozen=True)
class Upgraded:
    """The result of an upgrade. The old data are kept as database `kept`, or if that is empty, as `backup`."""

    run: str
    before: str
    after: str
    backup: Backup
    kept: str
    downtime: float
    checks: tuple[Check, ...]


def execute(world: World, plan: UpgradePlan, credentials: Mapping[str, str]) -> Upgraded:
    """Carry out an upgrade. On a failure, undo everything first.

    Raise RolledBack, NeedsPerson or Cancelled once the writers were stopped; before that any ChapError,
    and then nothing has changed.
    """
    change = _change(world, plan, run_records.run_id(world.clock()))
    with lock.single_interruption():
        journal = _open_journal(world, plan, change)
        change = replace(change, kept=kept.kept_name(change.live, kept.BEFORE, journal.id))

        def clean_up() -> None:
            file_changes_of(change).revert(world, journal)
            kept.untag_kept_images(world, journal.id, change.project.name)

        with prepare.preparing(change, journal, clean_up, _unchanged(plan.baseline)):
            prepared, taken = _prepare(world, plan, change, journal)
        try:
            done = forward.run(world, prepared, journal, credentials)
        except RolledBack as error:
            road = roads.hint_after(error.message, plan.baseline.version, plan.target, plan.repairs)
            error.hint = "\n".join(filter(None, (road, error.hint)))
            raise
    facts = facts_of(journal)
    if facts.kept_dump:
        taken = catalogue.load(facts.kept_dump)
    kept_as = previous_data_of(prepared, facts).database
    return Upgraded(journal.id, plan.baseline.version, plan.target, taken, kept_as, done.downtime, done.checks)


def _open_journal(world: World, plan: UpgradePlan, change: Change) -> Journal:
    directory, name = plan.stack.project.directory, plan.stack.project.name
    facts = {**change.to_facts(), "backups": str(plan.backups), "sources": [str(path) for path in plan.project_files]}
    about = {
        "stack": world.engine.origin(name).to_json(),
        "from": plan.baseline.version,
        "to": plan.target,
        "expected_downtime": round(plan.downtime, 1),
        "database_bytes": plan.size,
        "overridden": list(plan.overridden),
        "repairs": list(plan.repairs),
    }
    return run_records.begin_run(directory, "upgrade", facts, world.clock, **about)


def _prepare(world: World, plan: UpgradePlan, change: Change, journal: Journal) -> tuple[Change, Backup]:
    """Do everything that is possible while CHAP serves. Return the change with its new images, and the backup."""
    for service in plan.stack.writers:
        kept.protect_image(world, service.containers[0].image_id, change.project.name, journal.id, service.name)
    if not plan.move:
        change = _with_images(world, change, _pull(world, plan, journal))
    if plan.by_dump or plan.no_copy:
        # Without a mark, because somebody writes right now, it is as if they wrote later.
        change = replace(change, mark=server_of(world, change).mark() or "somebody writes")
    taken = _back_up(world, plan, journal)
    if plan.move:
        # The backup holds the previous files and their commit, so the checkout comes after it.
        change = _with_images(world, change, _build(world, plan, change, journal))
    journal.learn(backup=str(taken.folder), **change.to_facts())
    _refuse_new_jobs(world, plan)
    return change, taken


def _with_images(world: World, change: Change, images: Mapping[str, Mapping[str, str]]) -> Change:
    """Return the change with these images. The schema that the new image needs is read now, which takes seconds."""
    model_schema.of_image(world, images[change.writers[0]]["id"])
    return replace(change, images_after=images)


def _refuse_new_jobs(world: World, plan: UpgradePlan) -> None:
    # A pull over a slow link takes an hour, and CHAP serves all the while: somebody may have begun a prediction.
    if plan.drain is None:
        return
    jobs = wait_for_jobs(world, plan.stack, plan.drain)
    if jobs.running or jobs.waiting:
        raise ChapError(
            f"Jobs were started during pull and backup: {len(jobs.running)} running, {len(jobs.waiting)} waiting."
            " Stopping CHAP now would lose them.",
            hint="Run the command again: the images are here now, so it is quick. Wait for jobs with --drain,"
            " or lose them with --abandon-jobs.",
        )


def _back_up(world: World, plan: UpgradePlan, journal: Journal) -> Backup:
    begin(world, journal, Step.BACKUP)
    reason = f"before upgrade to {plan.target}"
    return backup.take(world, backup.Scope(plan.stack, plan.project_files, reason), plan.backups)


def _change(world: World, plan: UpgradePlan, run: str) -> Change:
    described = describe(plan.stack, databases.server_of(world.engine, plan.stack))
    return Change(
        operation="upgrade",
        **described,
        kept=kept.kept_name(described["live"], kept.BEFORE, run),
        incoming="",
        edits=plan.edits,
        recreate=True,
        images_after={},
        expected=releases.reported_version(plan.target),
        tables={},
        baseline=plan.baseline,
        by_dump=plan.by_dump,
        move=plan.move,
        repairs=plan.repairs,
    )


def _build(world: World, plan: UpgradePlan, change: Change, journal: Journal) -> dict[str, dict[str, str]]:
    """Check the release out and build it, while the old containers serve. Return reference and id of each image."""
    project, writers = plan.stack.project, [service.name for service in plan.stack.writers]
    file_changes_of(change).apply(world, journal)
    begin(world, journal, Step.BUILD, ", ".join(writers))
    finished = world.engine.compose(
        project,
        "build",
        *(["--no-cache"] if plan.no_cache else []),
        *writers,
        on_line=lambda line: world.notify("build", line),
    )
    succeeded(finished, f"Building {', '.join(writers)}")

    images = {name: world.engine.image(str(reference)) for name, reference in plan.images.items()}
    if missing := [str(plan.images[name]) for name, image in images.items() if image is None]:
        raise EngineError(f"The build succeeded, but the engine does not have {', '.join(missing)}.")
    return {name: {"reference": str(plan.images[name]), "id": image.id} for name, image in images.items() if image}


def _pull(world: World, plan: UpgradePlan, journal: Journal) -> dict[str, dict[str, str]]:
    """Pull every new image, and return reference and id of each writer's."""
    journal.begin(Step.PULL)
    ids: dict[Reference, str] = {}
    for reference in dict.fromkeys(plan.images.values()):
        world.notify("pull", str(reference))
        ids[reference] = pull(world, reference, plan.platform).id
    after = {name: {"reference": str(reference), "id": ids[reference]} for name, reference in plan.images.items()}
    journal.note(digests={"before": _digests(world, images_of(plan.stack)), "after": _digests(world, after)})
    return after


def _digests(world: World, images: Mapping[str, Mapping[str, str]]) -> dict[str, list[str]]:
    images_now = {name: world.engine.image(image["id"]) for name, image in images.items()}
    return {name: list(image.digests) if image else [] for name, image in images_now.items()}


def _unchanged(baseline: Baseline) -> prepare.Unchanged:
    return prepare.Unchanged(
        f"Nothing was changed: CHAP {baseline.version or ''} still runs as before.".replace("  ", " "),
        "The run could not clean up after itself",
        "When the engine answers again",
    )
