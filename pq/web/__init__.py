"""A page in the browser that shows the queues of a table: ``pq web``, or an `App` inside of your own program.

    app         class App: routing, and what goes wrong
    request     what a browser has sent, and what it gets
    security    tokens of forms, where requests may come from, headers
    jobs        jobs as the pages show them
    view        what a page is made with; kept: what is looked at every few seconds at most
    overview    the page of all queues
    pages       queue, running, retrying, dead, finished, search, workers, health
    beside      schedules, limits, streams
    job         one job
    actions     what the forms do
    charts      small pictures, as SVG
    words       how times, numbers and data are written
    serve       the server of ``pq web``

It needs the extra ``pq[web]``.
"""

from .app import App
from .request import Answer

__all__ = ["Answer", "App"]
