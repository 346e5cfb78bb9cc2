"""The package and README's own commands, in bare Debian and Ubuntu roots: only what these bring is there."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from build import deb, recipe
from compose_chap import __version__
from tests.install.roots import UBUNTU, UBUNTU_KEY, Root, has_archive

pytestmark = pytest.mark.install

README = (recipe.RECIPE.parent / "README.md").read_text()
PACKAGE = recipe.OUT / f"docker-chap_{deb.debian_version(__version__)}_all.deb"
VERSION = f"docker chap {__version__}"

# What Debian's own bash-completion does at Tab, without the terminal.
TAB = """
. /usr/share/bash-completion/bash_completion
_completion_loader docker 2>/dev/null || _comp_load docker
COMP_WORDS=(docker chap "$1"); COMP_CWORD=2; COMP_LINE="docker chap $1"; COMP_POINT=${#COMP_LINE}
COMP_TYPE=9; COMP_KEY=9
$(complete -p docker | sed "s/.*-F \\([^ ]*\\).*/\\1/") docker "$1" chap
printf "%s\\n" "${COMPREPLY[@]}"
"""


@pytest.fixture(scope="module", params=["bookworm", "trixie", UBUNTU])
def root(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Root]:
    """Give a bare root of Debian 12, Debian 13 and Ubuntu 24.04 in which docker-chap is not."""
    if os.geteuid() != 0 or not shutil.which("mmdebstrap"):
        pytest.fail("Root and mmdebstrap are needed: apt-get install mmdebstrap")
    if request.param == UBUNTU and not (UBUNTU_KEY.exists() or has_archive(UBUNTU)):
        # Not every Debian mirror has it.
        pytest.skip(f"The key of Ubuntu's packages is missing: apt-get install ubuntu-keyring, for {UBUNTU_KEY}")
    folder = tmp_path_factory.mktemp(request.param)
    root = Root(request.param, folder)
    shutil.copy(PACKAGE, folder / "tmp")
    root.write("tmp/tab.sh", TAB)
    yield root
    shutil.rmtree(folder)


def completed(root: Root, beginning: str) -> list[str]:
    """Return what a shell offers behind `docker chap BEGINNING`."""
    return [
        line.split()[0] for line in root.run(f"bash /tmp/tab.sh {beginning} 2>/dev/null").splitlines() if line.strip()
    ]


def test_apt_installs_the_package_with_docker_and_takes_all_of_it_away_again(root: Root) -> None:
    root.run("apt-get -qq update; apt-get -qq install -y bash-completion man-db")
    root.run(f"apt-get install -y /tmp/{PACKAGE.name}")  # and what it recommends

    assert root.run("docker chap version").strip() == VERSION
    assert re.search(r"^ +chap\*? +.*Back up, upgrade and restore CHAP", root.run("docker help"), re.MULTILINE)
    assert completed(root, "upgr") == ["upgrade"]
    assert "docker chap upgrade v2.1.0" in root.run("man docker-chap")
    assert root.run("dpkg --verify docker-chap") == ""
    root.run("apt-get remove -y docker-chap")
    assert "docker-chap" not in root.run("dpkg --list | grep docker-chap || true")

    before = root.files()
    assert not [path for path in before if "docker-chap" in path and not path.startswith("/root/.cache/")]
    root.run(f"apt-get install -y /tmp/{PACKAGE.name}; docker chap version; apt-get purge -y docker-chap")
    assert root.files() == before


def test_the_commands_of_readme_install_it_for_every_user(root: Root) -> None:
    needed, commands = install_commands()
    root.run(f"apt-get -qq update; apt-get -qq install -y sudo bash-completion man-db {needed}")
    root.run("command -v docker || apt-get -qq install -y docker-cli || apt-get -qq install -y docker.io")
    root.run("useradd --create-home --shell /bin/bash anna; echo 'anna ALL=(ALL) NOPASSWD: ALL' >>/etc/sudoers")
    root.trust()
    clone(root.folder / "home/anna/chap.git")
    root.run("chown -R anna: /home/anna")
    before = root.files()

    root.run(commands.replace("<this repository>", "~/chap.git").replace("<the folder>", "chap"), user="anna")
    assert not root.run("find /home/anna/chap -not -user anna")
    cron = "env -i PATH=/usr/bin:/bin HOME=/root docker chap version"
    for user, command in (("anna", "docker chap version"), ("anna", "sudo docker chap version"), ("root", cron)):
        assert root.run(command, user=user).strip() == VERSION
    assert completed(root, "roll") == ["rollback"]
    assert "docker chap upgrade v2.1.0" in root.run("man docker-chap", user="anna")

    root.run("cd chap; sudo make uninstall", user="anna")
    left = {path for path in root.files() - before if not re.match(r"/home/anna|/root/\.cache", path)}
    assert not left, left
    assert not root.run("docker help | grep -w chap || true")

    root.run("cd chap; make install; docker chap version", user="anna")
    assert not root.run("docker help | grep -w chap || true"), "it is not for root"
    root.run("cd chap; make uninstall", user="anna")


def install_commands() -> tuple[str, str]:
    """Return the packages that README names for the build, and its commands that install."""
    section = README.partition("## Install")[2].partition("\n## ")[0]
    block = re.search(r"```\nsudo apt-get install ([a-z0-9 -]+)\n(git clone .*?)```", section, re.DOTALL)
    assert block, section
    return block[1], block[2]


def clone(target: Path) -> None:
    """Make a bare clone of what is committed here."""
    git = ["git", "-c", "safe.directory=*", "clone", "-q", "--bare", f"file://{recipe.RECIPE.parent}"]
    subprocess.run([*git, target], check=True)
