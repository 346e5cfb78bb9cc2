"""A rehearsal's containers do not know the password of production's database, however it was written."""

from __future__ import annotations

from urllib.parse import quote, quote_plus

import pytest

from compose_chap.operations.rehearse import _elsewhere

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
