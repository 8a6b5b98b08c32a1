"""Invoice orders, each exactly once, even when the program fails halfway.

``python orders.py [FOLDER]`` starts a PostgreSQL of its own in the folder, ``pqdata`` by default.
"""

import sys

from pq import PQ, Queue


def invoice_next(orders: Queue, mails: Queue, *, fails_for: str = "") -> bool:
    """Take an order, write its invoice and put the mail about it, in one transaction; return False if none is left."""
    with orders as cursor:
        job = orders.get(timeout=0)
        if job is None:
            return False
        cursor.execute("insert into invoice (customer, total) values (%(customer)s, %(total)s)", job.data)
        mails.put({"to": job.data["customer"]})
        if job.data["customer"] == fails_for:
            raise RuntimeError("the power fails")  # everything above is rolled back, and the order is back
    return True


def main(folder: str = "pqdata") -> None:
    with PQ.embedded(folder) as pq:
        orders, mails = pq["orders"], pq["mails"]
        with orders as cursor:
            cursor.execute("create table if not exists invoice (customer text, total int)")
        orders.put_many({"customer": name, "total": total} for name, total in [("Ann", 10), ("Bea", 20), ("Cy", 30)])

        try:
            while invoice_next(orders, mails, fails_for="Bea"):
                pass
        except RuntimeError as error:
            print(f"{error}: {len(orders)} orders left, {len(mails)} mail to send")

        while invoice_next(orders, mails):
            pass
        with orders as cursor:
            cursor.execute("select count(*), count(distinct customer) from invoice")
            invoices, customers = cursor.fetchone()
        print(f"{invoices} invoices for {customers} customers, {len(mails)} mails to send")


if __name__ == "__main__":
    main(*sys.argv[1:])
