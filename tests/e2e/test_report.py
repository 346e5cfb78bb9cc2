"""The audit report of a real stack: while CHAP runs, and from the records alone while its engine is away."""

from __future__ import annotations

from pathlib import Path

from tests.e2e.calls import as_promised, chap
from tests.sample.stack import SampleStack, environment, run_in


def test_a_report_says_what_runs_and_what_was_proven(small: SampleStack, tmp_path: Path) -> None:
    note = "<script>alert('note')</script>"
    made = chap(small, "backup", "--reason", note)["backup"]
    file = tmp_path / "report.html"
    known = chap(small, "report", "-o", str(file))
    page = file.read_text()
    assert known["file"] == str(file) and known["live"] and file.stat().st_mode & 0o777 == 0o600
    services = {service["name"]: service for service in known["services"]}
    assert services["chap"]["version"] == known["chap_version"] and services["chap"]["since"]
    assert all(service["digest"].startswith("sha256:") and service["digest"] in page for service in known["services"])
    last = known["backups"][-1]
    assert last["id"] == made["id"] and last["proven_by"] == "read back" and last["tables"] == made["tables"]
    assert known["problems"] and all(name.removeprefix("public.") in page for name in made["tables"])
    assert note not in page and "&lt;script&gt;alert('note')" in page

    # Its own report is replaced, in the same place; nothing else is.
    away = {**environment(), "DOCKER_HOST": f"unix://{tmp_path}/nobody.sock"}
    done = run_in(small.folder, "docker", "chap", "report", "-o", str(file), "--json", env=away)
    from_records = as_promised(done.stdout, "report", done.returncode)
    assert not from_records["live"] and from_records["backups"] == known["backups"]
    assert "made from its records alone" in from_records["problems"][0] and "records alone" in file.read_text()
    letter = tmp_path / "letter.html"
    letter.write_text("a letter")
    refused = chap(small, "report", "-o", str(letter), expect=1)
    assert "is not a report of this tool" in refused["error"]["message"] and letter.read_text() == "a letter"

    printed = run_in(
        small.folder, "sh", "-c", "docker chap --progress quiet report -o - | head -c 100", env=environment()
    )
    assert printed.stdout.startswith("<!doctype html>") and not printed.stderr
