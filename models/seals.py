"""The seals: no fact of a cancel's life, and no part of a writer's chain."""

from datetime import datetime

from sqlalchemy import BigInteger, Text
from sqlalchemy.orm import Mapped, mapped_column

from models.base import Base, UtcDateTime
from models.facts import positive


class Sealed(Base):
    """The heads of the writers' chains were bound together: numbered without gaps, in a chain of its own."""

    __tablename__ = "seals"
    __table_args__ = (positive("number"),)
    number: Mapped[int] = mapped_column(BigInteger, primary_key=True, autoincrement=False)
    prev: Mapped[str] = mapped_column(Text)
    digest: Mapped[str] = mapped_column(Text)
    environment: Mapped[str] = mapped_column(Text)
    sealed_at: Mapped[datetime] = mapped_column(UtcDateTime)
    heads: Mapped[str] = mapped_column(Text)  # [[writer, seq, digest], …], as JSON
