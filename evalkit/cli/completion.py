"""`evalkit completion`: the script that has a shell complete commands and options."""

from __future__ import annotations

import click

from evalkit.errors import EXIT_PASS

SHELLS = ("bash", "zsh", "fish")


@click.command("completion")
@click.argument("shell", type=click.Choice(SHELLS))
def command(shell: str) -> int:
    """Print the completion script of SHELL.

    \b
        eval "$(evalkit completion bash)"      in ~/.bashrc
        eval "$(evalkit completion zsh)"       in ~/.zshrc, after compinit
        evalkit completion fish | source       in ~/.config/fish/config.fish
    """
    from click.shell_completion import get_completion_class

    from evalkit.cli.main import cli

    completer = get_completion_class(shell)
    assert completer is not None
    click.echo(completer(cli, {}, "evalkit", "_EVALKIT_COMPLETE").source())
    return EXIT_PASS
