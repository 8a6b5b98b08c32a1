"""Book payments: each exactly once, however often this program is killed.

``python consumer.py URL``, where the URL is ``postgresql+psycopg2://…`` or ``postgresql+psycopg://…``.
"""

import sys

from sqlalchemy import create_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column

from pq import PQ, LeaseLost, Queue


class Base(DeclarativeBase):
    pass


class Booking(Base):
    __tablename__ = "booking"
    id: Mapped[int] = mapped_column(primary_key=True)
    payment: Mapped[str]


def book(session: Session, payments: Queue) -> None:
    for job in payments.jobs(lease="30s"):
        if job is None:
            break  # there was none for a second; or go on waiting
        try:
            # whatever takes long comes here: no transaction is open
            with job, session.begin():
                session.add(Booking(payment=job.data["payment"]))
                job.done(conn=session)
        except LeaseLost:
            pass  # it took too long, and somebody else has the job: the booking was rolled back


def main(url: str) -> None:
    engine = create_engine(url)
    with Session(engine) as session:
        book(session, PQ(engine)["payments"])


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    Base.metadata.create_all(create_engine(sys.argv[1]))
    PQ(create_engine(sys.argv[1])).create()
    main(*sys.argv[1:])
