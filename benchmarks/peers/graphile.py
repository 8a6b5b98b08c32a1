"""graphile-worker, where there is Node.js: the child is graphile.js beside this file."""

from __future__ import annotations

from .base import Peer


class Graphile(Peer):
    name = "graphile"
    home = "graphile"
    packages = ("graphile-worker",)
    node = True
    tables = "graphile_worker._private_jobs"
    fill = (
        "select graphile_worker.add_jobs(array_agg(json_populate_record(null::graphile_worker.job_spec,"
        ' \'{"identifier": "noop", "payload": {}}\'))) from generate_series(1, %(n)s)'
    )
    remaining = "select count(*) from graphile_worker._private_jobs"
    guess = 40_000

    #: What graphile.js can do.
    commands = ("create", "work")

    def able(self, what: str) -> bool:
        return what in self.commands
