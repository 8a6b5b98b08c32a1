"""Arguments and options of the commands, in each order."""

from __future__ import annotations

import argparse
from collections.abc import Iterator

import pytest

from pq._cli import main as cli

Command = tuple[tuple[str, ...], list[str]]


def commands(parser: argparse.ArgumentParser, path: tuple[str, ...] = ()) -> Iterator[Command]:
    """The names of each command, and words for its arguments: two where there may be any number."""
    words = []
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for name, inner in action.choices.items():
                yield from commands(inner, (*path, name))
            return
        if not action.option_strings:
            words += ["1", "2"] if action.nargs == "*" else ["1"]
    yield path, words


COMMANDS = dict(commands(cli._parser("pq")))
#: Each command that has arguments, but demo, takes one of these.
OPTIONS = ("--dsn=x", "--table=t", "--log-level=info", "--at=5")
WITH_WORDS = [path for path, words in COMMANDS.items() if words and path[0] != "demo"]


@pytest.mark.parametrize("path", WITH_WORDS, ids=" ".join)
def test_options_may_stand_between_arguments(path: tuple[str, ...]) -> None:
    words, parser = COMMANDS[path], cli._parser("pq")

    def accepted(option: str) -> bool:
        try:
            parser.parse_args([*path, option, *words])
            return True
        except SystemExit:
            return False

    option = next(each for each in OPTIONS if accepted(each))
    first = vars(parser.parse_args([*path, option, *words]))
    for at in range(len(words) + 1):
        for given in ([option], option.split("=")):
            assert vars(parser.parse_args([*path, *words[:at], *given, *words[at:]])) == first


def test_behind_two_hyphens_all_are_arguments() -> None:
    args = cli._parser("pq").parse_args(["put", "--table", "t", "--", "mail", "--dsn"])
    assert (args.queue, args.data, args.table) == ("mail", "--dsn", "t")


def test_what_is_missing_and_what_is_too_much_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    for args, message in {
        ("move", "a", "--dsn", "x"): "the following arguments are required: TARGET",
        ("put", "a", "--dsn", "x", "1", "2"): "unrecognized arguments: 2",
        ("cancel", "a", "--none", "1"): "unrecognized arguments: --none",
        ("move", "a", "--all", "x", "y"): "argument ID: invalid int value: 'x'",
    }.items():
        with pytest.raises(SystemExit, match="2"):
            cli._parser("pq").parse_args(args)
        assert message in capsys.readouterr().err
