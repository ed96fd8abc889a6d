"""The seals: at intervals they bind the heads of all chains together."""

from alembic import op
from sqlalchemy import TIMESTAMP, BigInteger, CheckConstraint, Column, PrimaryKeyConstraint, Text

from migrations.append_only import defend

revision: str = "0002"
down_revision: str | None = "0001"
branch_labels: str | None = None
depends_on: str | None = None


def upgrade() -> None:
    op.create_table(
        "seals",
        Column("number", BigInteger, nullable=False, autoincrement=False),
        Column("prev", Text, nullable=False),
        Column("digest", Text, nullable=False),
        Column("environment", Text, nullable=False),
        Column("sealed_at", Text().with_variant(TIMESTAMP(timezone=True), "postgresql"), nullable=False),
        Column("heads", Text, nullable=False),
        PrimaryKeyConstraint("number", name=op.f("pk_seals")),
        CheckConstraint("number > 0", name=op.f("ck_seals_number")),
    )
    for statement in defend(op.get_context().dialect.name, "seals", ["number"]):
        op.execute(statement)


def downgrade() -> None:
    op.drop_table("seals")
