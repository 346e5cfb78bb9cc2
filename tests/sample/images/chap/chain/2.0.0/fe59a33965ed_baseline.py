"""baseline"""

revision = "fe59a33965ed"
down_revision = None


def upgrade() -> None:
    pass
