"""A shop whose jobs are put in the transactions of its orders. ``test_shop.py`` tests it, and commits nothing."""

from pq import PQ, After, Limit, Schedule
from pq.tasks import current

pq = PQ()  # the database that PQ_DSN or DATABASE_URL names
mails, stock = pq["mails"], pq["stock"]
orders = pq.streams["orders"]

#: Stands for a mail server.
sent: list[tuple[str, str]] = []


@mails.task(name="send", max_retries=2, retry_in="5m")
def send(job_id, to, subject):
    if "@" not in to:
        raise ValueError(f"{to!r} is no address")
    sent.append((to, subject))


@stock.task(name="reserve", key=lambda article: article, transactional=True)
def reserve(job_id, article):
    """One job at a time for each article, exactly once each."""
    current().cursor.execute("update article set stock = stock - 1 where name = %s and stock > 0", (article,))
    if current().cursor.rowcount == 0:
        raise ValueError(f"no {article} left")


@mails.task(name="report")
def report(job_id):
    total = current().step("count", lambda: len(sent))
    send("boss@example.org", f"{total} mails were sent")


@orders.on("paid", subscription="loyalty")
def thank(event):
    send(event.data["customer"], "Thank you")


def prepare(cursor):
    cursor.execute("create table article (name text primary key, stock int)")
    cursor.execute("create table orders (id serial primary key, customer text)")
    pq.limits["mails"] = Limit(running=10)
    pq.schedules["report"] = Schedule(mails, report.new_job().data, every="24h")


def order(cursor, customer, articles):
    """Store an order and put its jobs: when all articles are reserved, the customer gets a mail."""
    cursor.execute("insert into orders (customer) values (%s) returning id", (customer,))
    (number,) = cursor.fetchone()
    reserved = [reserve(article) for article in articles]
    send(customer, f"Order {number} is on its way", _after=After(reserved))
    return number


def pay(customer, number):
    orders.publish({"customer": customer, "order": number}, type="paid", key=customer)
