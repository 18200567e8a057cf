"""The command line: one group, each command in a file of its own, loaded when it is named.

The only place that turns errors into text and an exit status. Results go to stdout,
everything else to stderr.
"""

from __future__ import annotations

import errno
import io
import os
import sys
from importlib import import_module
from typing import Any

import click

from evalkit import __version__
from evalkit.errors import EXIT_INTERRUPTED, EXIT_UNMEASURABLE, EXIT_USAGE, EvalkitError, shown

COMMANDS: dict[str, tuple[str, str]] = {
    "init": ("evalkit.cli.init", "Start a project that runs at once."),
    "run": ("evalkit.cli.run", "Run golden sets and store the scores."),
    "gate": ("evalkit.cli.gate", "Compare a run with its baseline and decide."),
    "report": ("evalkit.cli.report", "Write the HTML report of a run or a comparison."),
    "check": ("evalkit.cli.check", "Validate configuration, prompts, golden sets and judges."),
    "rescore": ("evalkit.cli.rescore", "Score a run's stored answers again; no model is called."),
    "tune": ("evalkit.cli.tune", "Say what a cascade scores and costs at each threshold."),
    "power": ("evalkit.cli.power", "Say what drop would be seen, and what it takes to see more."),
    "judge": ("evalkit.cli.judge", "Measure a judge against people, and against attacks."),
    "prompts": ("evalkit.cli.prompts", "List prompt versions, show one, compare two."),
    "replay": ("evalkit.cli.replay", "Decide a recorded call again, or ask another pair."),
    "drill": ("evalkit.cli.drill", "Fail providers on purpose, and see who answers."),
    "merge": ("evalkit.cli.merge", "Put the shards of one run together."),
    "baseline": ("evalkit.cli.baseline", "Choose which run others are compared with."),
    "show": ("evalkit.cli.show", "Show a case, a call or a run, with all that is known of it."),
    "query": ("evalkit.cli.query", "Ask the store in SQL."),
    "cache": ("evalkit.cli.cache", "Measure and empty the response caches."),
    "label": ("evalkit.cli.label", "Ask people: draw answers, label them, see who agrees."),
    "review": ("evalkit.cli.review", "Decide on answers that wait for a person."),
    "sample": ("evalkit.cli.sample", "Score production's calls, judges on a share of them."),
    "logs": ("evalkit.cli.logs", "Bring in calls that other tools logged."),
    "alerts": ("evalkit.cli.alerts", "Say what is wrong in production; for the clock to call."),
    "dashboard": ("evalkit.cli.dashboard", "Show production on one page."),
    "cost": ("evalkit.cli.cost", "Say what production's calls cost, and what was saved."),
    "import": ("evalkit.cli.import_", "Bring over golden sets and results of other tools."),
    "ci": ("evalkit.cli.ci", "Gate a change in CI: baseline, run, verdict, comment."),
    "drift": ("evalkit.cli.drift", "Say whether sampled quality has moved."),
    "purge": ("evalkit.cli.purge", "Forget old texts and calls, or those of one user."),
    "doctor": ("evalkit.cli.doctor", "Say what is missing for a run."),
    "completion": ("evalkit.cli.completion", "Print a shell's completion script."),
}
"""Command -> (module with a `command`, what it does), in the order of the work."""


class LazyGroup(click.Group):
    """A group that knows its commands' names, and imports one when it is called."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        command = import_module(COMMANDS[cmd_name][0]).command
        assert isinstance(command, click.Command)
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args and args[0] not in COMMANDS and not args[0].startswith("-"):
            from difflib import get_close_matches

            near = get_close_matches(args[0], COMMANDS, n=1)
            hint = f" Did you mean {near[0]!r}?" if near else ""
            ctx.fail(f"no command {args[0]!r}.{hint}")
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, text) for name, (_, text) in COMMANDS.items()])


@click.group(
    cls=LazyGroup,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog="Exit status: 0 pass, 1 regression, 2 usage or input error, 3 unmeasurable, "
    "130 interrupted.",
)
@click.version_option(__version__, "--version", prog_name="evalkit")
def cli() -> None:
    """Did the quality of your LLM feature drop? Run golden sets, score, compare, decide."""


def main(argv: list[str] | None = None) -> int:
    """Run one command line; returns the exit status."""
    _be_patient()
    try:
        status = cli.main(
            args=argv, prog_name="evalkit", standalone_mode=False, color=_color_wanted()
        )
        sys.stdout.flush()
        return status if isinstance(status, int) else 0
    except click.exceptions.Exit as exit_:
        return exit_.exit_code if _is_written() else EXIT_UNMEASURABLE
    except click.Abort:
        return EXIT_INTERRUPTED
    except click.ClickException as error:
        error.show()
        return EXIT_USAGE
    except KeyboardInterrupt:
        click.echo("interrupted", err=True)
        return EXIT_INTERRUPTED
    except EvalkitError as error:
        click.echo(f"error: {error}", err=True)
        return error.exit_code
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        click.echo(f"error: {shown(where)}{error.strerror or error}.", err=True)
        return EXIT_USAGE if error.errno in _OF_THE_PATH else EXIT_UNMEASURABLE
    except SystemExit as exit_:
        if "_EVALKIT_COMPLETE" in os.environ:  # so click ends what it tells a shell
            return exit_.code if isinstance(exit_.code, int) else 0
        said = f"error: code that evalkit called ended the process with {exit_.code!r}."
        click.echo(said, err=True)
        return EXIT_UNMEASURABLE
    except BaseException as failed:
        # Python's own status for this is 1, which says that quality fell.
        import traceback

        from evalkit.call.durable import explained

        told = explained(failed)
        if told is not None:
            click.echo(f"error: {told}", err=True)
            return told.exit_code
        click.echo(f"{traceback.format_exc()}error: evalkit itself failed.", err=True)
        return EXIT_UNMEASURABLE


def _color_wanted() -> bool | None:
    """False: no escapes, as rich does by itself; None: on a terminal."""
    plain = os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb"
    return False if plain else None


def _is_written() -> bool:
    try:
        sys.stdout.flush()
    except OSError as error:
        click.echo(f"error: {error.strerror or error}.", err=True)
        return False
    return True


_OF_THE_PATH = {
    errno.EACCES, errno.EISDIR, errno.ELOOP, errno.ENAMETOOLONG, errno.ENOENT, errno.ENOTDIR,
    errno.EPERM, errno.EROFS,
}  # fmt: skip
"""What a file system answers that somebody else than the disk is to put right."""


class _Patient(io.FileIO):
    """Goes on where nobody reads: `evalkit gate | head` must not change the exit status.

    A disk that is full is said once, not again by the interpreter as it ends.
    """

    _has_failed = False

    def write(self, data: Any) -> int:
        try:
            return super().write(data)
        except BrokenPipeError:
            return len(data)
        except OSError:
            if self._has_failed:
                return len(data)
            self._has_failed = True
            raise


def _be_patient() -> None:
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:
            # Closed by who called (`>&-`): a reader that went away before the first word.
            nobody = io.BufferedWriter(io.FileIO(os.devnull, "wb"))
            setattr(sys, name, io.TextIOWrapper(nobody, encoding="utf-8"))
            continue
        if stream is not getattr(sys, f"__{name}__") or stream.isatty():
            continue
        patient = io.TextIOWrapper(
            io.BufferedWriter(_Patient(stream.fileno(), "wb", closefd=False)),
            encoding=stream.encoding,
            errors=stream.errors,
            line_buffering=stream.line_buffering or stream.write_through,
        )
        setattr(sys, name, patient)


if __name__ == "__main__":
    sys.exit(main())
