"""The commands for streams: streams; stream create, info, read, publish, subscribe, seek, pause, resume, unsubscribe,
rotate, rebase, drop."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import Any

from .._args import UNSET
from .._streams import Event, Stream, StreamInfo, Subscription
from .._times import TimeSpec
from ..errors import EventsLeft, PQError
from . import parser as forms
from .exact import dumps, loads
from .output import confirm, one_line, print_json, print_table, print_text
from .parser import Commands, database_options, json_value, looks, opened, positive, span, span_or_none, table_options

COLUMNS = ("subscription", "events", "age", "types", "partitions", "shared", "paused")


def add(commands: Any) -> None:
    """Declare the commands."""
    parents = [database_options(), table_options()]
    Commands(commands, parents).add(_list, "streams", "show the streams, and how far their subscriptions are", "--json")
    parser = commands.add_parser("stream", help="create a stream, look at it, publish, move its subscriptions, drop it")
    actions = parser.add_subparsers(metavar="ACTION", required=True, dest="action")
    command = Commands(actions, parents).add
    create = command(_create, "create", "create a stream, or change how long its events are kept", "stream")
    kept: dict[str, Any] = {"default": UNSET, "metavar": "TIME"}
    create.add_argument("--retain", type=span, **kept, help="how long events are kept that all have read")
    create.add_argument("--retain-unread", type=span_or_none, **kept, help="how long unread ones are; or 'none'")
    command(_info, "info", "show a stream and its subscriptions", "stream", "--json")
    read = command(_read, "read", "show events, whoever has read them", "stream", "--json")
    read.add_argument("--after", type=int, default=0, metavar="ID", help="only events behind this one")
    read.add_argument("--limit", type=positive, default=100, metavar="N", help="at most so many (default: 100)")
    read.add_argument("--type", action="append", metavar="TYPE", help="only events of this type; can be repeated")
    publish = command(_publish, "publish", "publish an event, and print its id", "stream")
    publish.add_argument("data", metavar="DATA", help="JSON; - reads it from the standard input")
    publish.add_argument("--type", default="", metavar="TYPE", help="the type of the event")
    publish.add_argument("--key", metavar="KEY", help="the key of the event")
    subscribe = command(_subscribe, "subscribe", "make a subscription, unless it is there", "stream", "subscription")
    subscribe.add_argument(
        "--start", type=_place, default="new", metavar="FROM",
        help="'new' (default), 'beginning', an id, or a time: 2h is two hours ago",
    )  # fmt: skip
    subscribe.add_argument("--type", action="append", metavar="TYPE", help="only events of this type; can be repeated")
    subscribe.add_argument("--partitions", type=positive, default=1, metavar="N", help="so many are read side by side")
    subscribe.add_argument("--shared", action="store_true", help="several consumers at a time read it, in no order")
    seek = command(_seek, "seek", "move a subscription, forward or back", "stream", "subscription", "--yes")
    seek.add_argument("to", type=_place, metavar="TO", help="'new', 'beginning', an id, or a time: 2h is two hours ago")
    command(_pause, "pause", "deliver nothing to a subscription", "stream", "subscription")
    command(_resume, "resume", "deliver events to a paused subscription again", "stream", "subscription")
    gone = command(_unsubscribe, "unsubscribe", "drop a subscription", "stream", "subscription", "--yes")
    command(_rotate, "rotate", "remove old events that all have read, as consumers do each minute", "stream")
    command(_rebase, "rebase", "let a stream from a restored dump be read again", "stream")
    drop = command(_drop, "drop", "drop a stream with all its events", "stream", "--yes")
    for parser in (gone, drop):
        parser.add_argument("--force", action="store_true", help="also if there are unread events")


def _place(text: str) -> TimeSpec | int:
    text = forms.plain(text)
    if text in ("new", "beginning"):
        return text
    try:
        return int(text) if text.isdecimal() else forms.time(text)
    except argparse.ArgumentTypeError:
        raise argparse.ArgumentTypeError(f"'new', 'beginning', an id, or a time such as 2h, not {text!r}") from None


def _list(args: argparse.Namespace) -> None:
    with looks(args) as pq:
        found = [pq.streams[name].info() for name in pq.streams]
    if args.json:
        print_json([_as_json(info) for info in found])
    else:
        rows = [[info.name, *row] for info in found for row in _rows(info) or [["-"] * len(COLUMNS)]]
        print_table([["stream", *COLUMNS], *rows])


def _rows(info: StreamInfo) -> list[list[Any]]:
    return [
        [
            each.name, each.lag.events, each.lag.age and str(each.lag.age).partition(".")[0],
            None if each.types is None else ", ".join(each.types), each.partitions, each.shared,
            each.paused_at is not None,
        ]
        for each in info.subscriptions
    ]  # fmt: skip


def _as_json(info: StreamInfo) -> dict[str, Any]:
    return {
        "name": info.name, "version": info.version, "retain": info.retain.total_seconds(),
        "retain_unread": info.retain_unread and info.retain_unread.total_seconds(),
        "events": info.events, "size": info.size, "oldest_at": info.oldest_at,
        "subscriptions": [
            {
                "name": each.name, "types": each.types, "partitions": each.partitions, "shared": each.shared,
                "created_at": each.created_at, "paused_at": each.paused_at, "events": each.lag.events,
                "age": each.lag.age and each.lag.age.total_seconds(),
            }
            for each in info.subscriptions
        ],
    }  # fmt: skip


def _stream(pq: Any, args: argparse.Namespace) -> Stream:
    found: Stream = pq.streams[args.stream]
    found._codec.encode, found._codec.decode = dumps, loads
    return found


def _create(args: argparse.Namespace) -> None:
    with opened(args) as pq:
        stream = _stream(pq, args)
        stream.create(retain=args.retain, retain_unread=args.retain_unread)
        print_text(f"stream {stream.name!r}: version {stream.version()}")


def _info(args: argparse.Namespace) -> None:
    with looks(args) as pq:
        info = _stream(pq, args).info()
    if args.json:
        print_json(_as_json(info))
        return
    print_table([
        ["events", info.events], ["bytes", info.size],
        ["oldest", info.oldest_at and info.oldest_at.replace(tzinfo=None)], ["retain", info.retain],
        ["retain unread", info.retain_unread], ["version", info.version],
    ])  # fmt: skip
    if info.subscriptions:
        print_text("")
        print_table([COLUMNS, *_rows(info)])


def _read(args: argparse.Namespace) -> None:
    with looks(args) as pq:
        found = _stream(pq, args).read(args.after, args.limit, args.type)
    if args.json:
        names = ("id", "at", "type", "key", "data", "headers")
        print_json([{name: getattr(event, name) for name in names} for event in found])
    else:
        print_table([["id", "at", "type", "key", "data"], *(_line(event) for event in found)])


def _line(event: Event) -> list[Any]:
    return [event.id, event.at.replace(tzinfo=None), event.type, event.key, one_line(dumps(event.data))]


def _publish(args: argparse.Namespace) -> None:
    data = json_value(args.data, "DATA")
    with opened(args) as pq:
        print_text(str(_stream(pq, args).publish(data, args.type, args.key)))


def _subscribe(args: argparse.Namespace) -> None:
    with opened(args) as pq:
        subscription = _stream(pq, args).subscribe(
            args.subscription, args.start, types=args.type, partitions=args.partitions, shared=args.shared
        )
        print_text(f"subscription {args.subscription!r}: {subscription.lag(exact=True).events} events unread")


def _seek(args: argparse.Namespace) -> None:
    confirm(args, f"Move subscription {args.subscription!r} of stream {args.stream!r} to {args.to}?")
    with opened(args) as pq:
        subscription = _stream(pq, args).subscription(args.subscription)
        subscription.seek(args.to)
        print_text(f"subscription {args.subscription!r}: {subscription.lag(exact=True).events} events unread")


def _pause(args: argparse.Namespace) -> None:
    with opened(args) as pq:
        _stream(pq, args).subscription(args.subscription).pause()
    print_text(f"subscription {args.subscription!r} paused")


def _resume(args: argparse.Namespace) -> None:
    with opened(args) as pq:
        _stream(pq, args).subscription(args.subscription).resume()
    print_text(f"subscription {args.subscription!r} resumed")


def _rotate(args: argparse.Namespace) -> None:
    with opened(args) as pq:
        print_text("old events were removed" if _stream(pq, args).rotate() else "there was nothing to remove")


def _rebase(args: argparse.Namespace) -> None:
    with opened(args) as pq:
        was_restored = _stream(pq, args).rebase()
    print_text(f"stream {args.stream!r} " + ("can be read again" if was_restored else "is not from a dump"))


def _unsubscribe(args: argparse.Namespace) -> None:
    what = f"subscription {args.subscription!r} of stream {args.stream!r}"
    _dropped(args, what, lambda stream: stream.subscription(args.subscription))


def _drop(args: argparse.Namespace) -> None:
    _dropped(args, f"stream {args.stream!r}", lambda stream: stream)


def _dropped(args: argparse.Namespace, what: str, chosen: Callable[[Stream], Stream | Subscription]) -> None:
    confirm(args, f"Drop {what}?")
    with opened(args) as pq:
        try:
            chosen(_stream(pq, args)).drop(args.force)
        except EventsLeft as error:
            raise PQError(str(error).replace("force=True", "--force")) from None
    print_text(f"{what} dropped")
