"""`evalkit completion`: the scripts, and what they complete."""

from __future__ import annotations

import subprocess
import sys

import pytest

from evalkit.cli.main import COMMANDS, main


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_a_script_asks_evalkit_what_fits(shell: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["completion", shell]) == 0

    assert f"_EVALKIT_COMPLETE={shell}_complete" in capsys.readouterr().out


def test_commands_are_completed() -> None:
    done = subprocess.run(
        [sys.executable, "-c", "import sys; from evalkit.cli.main import main; sys.exit(main())"],
        env={
            "PATH": "", "_EVALKIT_COMPLETE": "bash_complete",
            "COMP_WORDS": "evalkit ba", "COMP_CWORD": "1",
        },
        capture_output=True,
        text=True,
        check=False,
    )  # fmt: skip

    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.split() == [f"plain,{name}" for name in COMMANDS if name.startswith("ba")]
