"""A backup for a disk that is not plugged in does not fill the system's own disk."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from compose_chap.errors import StateError
from compose_chap.records.files import mounted

FSTAB = """# a comment
UUID=1  /  ext4  defaults 0 1
UUID=2  /srv/my\\040disk  ext4  nofail 0 2
server:/export  /data  nfs  _netdev 0 0
tmpfs swap swap defaults
/swapfile none swap sw 0 0
"""


def on(*places: str) -> Callable[[Path], bool]:
    return lambda path: str(path) in places


def test_the_places_of_fstab_are_read() -> None:
    assert mounted.mount_points(FSTAB) == [Path("/srv/my disk"), Path("/data")]


@pytest.mark.parametrize(
    ("folder", "is_mounted_at", "missing"),
    [
        ("/srv/my disk/backups", on(), "/srv/my disk"),
        ("/srv/my disk", on(), "/srv/my disk"),
        ("/srv/my disk/backups", on("/srv/my disk"), None),
        ("/srv/my disks", on(), None),
        ("/data/a/../b", on(), "/data"),
        ("/var/backups", on(), None),
    ],
)
def test_a_disk_of_fstab_has_to_be_mounted(
    folder: str, is_mounted_at: Callable[[Path], bool], missing: str | None
) -> None:
    result = mounted.unmounted(Path(folder), mounted.mount_points(FSTAB), is_mounted_at)
    assert result == (Path(missing) if missing else None)


@pytest.fixture
def media(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder for disks, as /mnt is one."""
    monkeypatch.setattr(mounted, "_FOR_DISKS", (tmp_path,))
    return tmp_path


def test_an_empty_mount_point_is_refused_for_a_backup(media: Path) -> None:
    usb = media / "usb"
    assert mounted.unmounted(usb, (), on()) == mounted.unmounted(usb / "chap" / "x", (), on()) == usb
    usb.mkdir()
    assert mounted.unmounted(usb, (), on()) == mounted.unmounted(usb / "chap", (), on()) == usb
    assert mounted.unmounted(usb / "chap", (), on(str(usb))) is None
    # What somebody put there on purpose says that this is the place.
    (usb / "backups").mkdir()
    assert mounted.unmounted(usb, (), on()) is None


def test_a_user_s_disk_is_mounted_a_folder_deeper(media: Path) -> None:
    disk = media / "anna" / "USB"
    disk.mkdir(parents=True)
    assert mounted.unmounted(disk / "chap", (), on(str(disk))) is None


def test_a_folder_for_disks_may_be_a_disk_itself(media: Path) -> None:
    assert mounted.unmounted(media / "backups", (), on(str(media))) is None


def test_the_refusal_says_what_to_do(media: Path) -> None:
    with pytest.raises(StateError, match="No disk is mounted at") as refused:
        mounted.refuse_unmounted(media / "usb")
    assert f"mount {media / 'usb'}\n" in refused.value.hint and "--allow-unmounted" in refused.value.hint
