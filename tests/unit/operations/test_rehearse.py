"""A rehearsal's containers: as Compose makes them, without the password of production's database."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import quote, quote_plus

import pytest

from compose_chap.operations.rehearse import _elsewhere, _recipe
from compose_chap.stack import observe
from tests.fakes import FakeEngine, world

ODD = "Pw/sl@sh%41\"q$HOME-it's"


@pytest.mark.parametrize("password", ["chap", "swordfish", ODD])
@pytest.mark.parametrize(
    "spell", [str, quote, lambda text: quote(text, safe=""), lambda text: text.replace("%", "%25").replace("@", "%40")]
)
def test_the_password_in_a_url_is_replaced(password: str, spell: object) -> None:
    assert callable(spell)
    written = spell(password)
    url = f"postgresql://chap:{written}@chap-postgres:5432/chap_core"
    assert _elsewhere("CHAP_DATABASE_URL", url, password, "other") == url.replace(f":{written}@", ":other@")


@pytest.mark.parametrize("written", ["password=swordfish", "password='swordfish'", 'password = "swordfish"'])
def test_the_password_in_a_dsn_is_replaced(written: str) -> None:
    dsn = f"host=db user=swordfish_reader {written} dbname=chap"
    assert _elsewhere("REPORT_DSN", dsn, "swordfish", "other") == dsn.replace(
        written, written.replace("swordfish", "other")
    )


@pytest.mark.parametrize("name", ["CHAP_DB_PWD", "POSTGRES_PASSWORD", "PGPASS"])
def test_a_setting_with_the_password_gets_another(name: str) -> None:
    assert _elsewhere(name, ODD, ODD, "other") == "other"


def test_what_is_no_password_stays() -> None:
    for name, value in (
        ("CELERY_BROKER", "redis://chap-redis:6379"),
        ("MODE", "chap"),
        ("OTHER_PASSWORD", "not that"),
        ("OTHER_URL", f"https://someone:{quote_plus('other one')}@example.org/chap"),
    ):
        assert _elsewhere(name, value, "chap", "other") == value
        assert _elsewhere(name, value, "", "other") == value


def test_a_copy_gets_a_dollar_where_compose_writes_two(tmp_path: Path) -> None:
    engine = FakeEngine(tmp_path)
    (tmp_path / "compose.yml").write_text("".join(f"{box.service} {box.image}\n" for box in engine.boxes.values()))
    stack = observe.refreshed(engine, "p")
    written = engine.compose_config(stack.project)
    written["services"][stack.api.name] |= {
        "entrypoint": ["sh", "-c"],
        "command": ["exec uvicorn --workers $${WORKERS:-1} --root-path /$$$$", "a$b"],
        "environment": {"WORKERS": "2", "GREETING": "$$HOME", "CHAP_DATABASE_URL": "of the files"},
        "user": "$$u",
        "tmpfs": ["/tmp/$$t"],
        "volumes": [{"type": "volume", "target": "/data/$$v"}, {"type": "bind", "target": "/host"}],
    }
    engine.compose_config = lambda project: written  # type: ignore[method-assign]
    made = _recipe(world(engine), stack, "image", "database", "other")
    assert made.entrypoint == ["sh", "-c"]
    assert made.command == ["exec uvicorn --workers ${WORKERS:-1} --root-path /$$", "a$b"]
    assert (made.environment["WORKERS"], made.environment["GREETING"]) == ("2", "$HOME")
    assert (made.user, made.tmpfs, made.volumes) == ("$u", ["/tmp/$t"], ["/data/$v"])
