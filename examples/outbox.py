"""Take an order, and let the mail about it be sent: both, or neither.

``python outbox.py URL CUSTOMER``, where the URL is ``postgresql+psycopg2://…`` or ``postgresql+psycopg://…``.
"""

import sys

from sqlalchemy import create_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column

from pq import PQ


class Base(DeclarativeBase):
    pass


class Order(Base):
    __tablename__ = "orders"
    id: Mapped[int] = mapped_column(primary_key=True)
    customer: Mapped[str]


def take_order(session: Session, pq: PQ, customer: str) -> None:
    with session.begin(), pq.using(session):
        order = Order(customer=customer)
        session.add(order)
        session.flush()  # now it has its id
        pq["mails"].put({"order": order.id})


def main(url: str, customer: str) -> None:
    engine = create_engine(url)
    with Session(engine) as session:
        take_order(session, PQ(engine), customer)


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    Base.metadata.create_all(create_engine(sys.argv[1]))
    PQ(create_engine(sys.argv[1])).create()
    main(*sys.argv[1:])
