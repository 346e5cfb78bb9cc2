"""The releases of chap-core that are put to the test, as their wheels on PyPI are."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Release:
    """A release: its version without the `v`, its wheel's SHA-256, and the head of its Alembic chain.

    Up to 2.1.0 the chain never runs to its end, and a database of such a release has no mark: the head is None.
    """

    version: str
    sha256: str
    head: str | None

    @property
    def tag(self) -> str:
        """The tag that its images have."""
        return f"v{self.version}"


RELEASES = {
    release.version: release
    for release in (
        Release("2.0.0", "75ce5036ba5b3b471971ae446be7ac50de7cf4211293881b8570a08c03445ddd", None),
        Release("2.1.0", "e2b5d52b1c25090f52247e0eeca4d4e041691096b887e6bd54f4bb5699e6bc0f", None),
        Release("2.2.0", "edbd9f73359f09dec88f750ed7ce878c12e90970fd9a6335d2698d1807ef7127", "e1f2a3b4c5d6"),
        Release("2.3.0", "9d637d0411e5de50bbbb206170ea4468214f3fe10aa025750653fbb07dcc4f6a", "f2a3b4c5d6e1"),
        Release("2.3.1", "f2673113949b81a7978b11529eb2eaf282282038de49615fbdd40a521715c917", "a3b4c5d6e7f2"),
        Release("2.4.0", "016eb3979e81722d69778b6a8d0374c4a4d0f97df80e43bbd9d295e8a42c56cc", "e7f8a3b4c5d6"),
        Release("2.5.1", "4dd1e52565e041ae8c8c4ec55306157824be16c13f3ad8986b58c74d2a9643e3", "de7478f3ff6d"),
    )
}
