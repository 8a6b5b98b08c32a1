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


@pytest.mark.parametrize("hyphens", range(4))
def test_two_hyphens_may_stand_between_arguments(hyphens: int) -> None:
    words = ["move", "--table", "t", "mail", "1", "--key", "k", "2", "--all"]
    at = (3, 4, 7, 8)[hyphens]
    behind = [word for word in words[at:] if word not in ("--key", "k")]
    args = cli._parser("pq").parse_args([*words[:at], "--", *behind])
    assert (args.queue, args.ids, args.target) == ("mail", [1, 2], "--all")
    assert (args.all, args.table, args.key) == (False, "t", "k" if at > 4 else None)


def test_two_hyphens_are_an_argument_behind_others() -> None:
    args = cli._parser("pq").parse_args(["move", "--", "--", "-1", "--"])
    assert (args.queue, args.ids, args.target) == ("--", [-1], "--")


@pytest.mark.parametrize("option", ["--key", "--table"])
def test_two_hyphens_are_no_value(option: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        cli._parser("pq").parse_args(["cancel", "--yes", option, "--", "mail", "1"])
    assert "expected one argument" in capsys.readouterr().err


@pytest.mark.parametrize("id", ["3_7", " 37 ", "\u0663", "1.0", "0x1", "", "1" * 5000])
def test_an_id_has_digits_alone(id: str, capsys: pytest.CaptureFixture[str]) -> None:
    for args in (["cancel", "a", id], ["show", "a", id], ["list", "a", "--limit", id], ["show", "a", "--", id]):
        with pytest.raises(SystemExit):
            cli._parser("pq").parse_args(args)
        assert "must be a whole number" in capsys.readouterr().err


def test_what_is_missing_and_what_is_too_much_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    for args, message in {
        ("move", "a", "--dsn", "x"): "the following arguments are required: TARGET",
        ("put", "a", "--dsn", "x", "1", "2"): "unrecognized arguments: 2",
        ("cancel", "a", "--none", "1"): "unrecognized arguments: --none",
        ("move", "a", "--all", "x", "y"): "argument ID: must be a whole number, not 'x'",
    }.items():
        with pytest.raises(SystemExit, match="2"):
            cli._parser("pq").parse_args(args)
        assert message in capsys.readouterr().err
