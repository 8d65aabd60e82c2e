"""`fb completion`: the script that makes a shell complete commands, options and names."""

from __future__ import annotations

import click
from click.shell_completion import BashComplete, FishComplete, ZshComplete

from fusionbench_core.cli.help import examples


class _Bash(BashComplete):
    @staticmethod
    def _check_version() -> None:
        """The script is often made on another machine than it runs on, so ask no bash here."""


_SHELLS = {"bash": _Bash, "zsh": ZshComplete, "fish": FishComplete}


@click.command(
    "completion",
    epilog=examples(
        'eval "$(fb completion bash)"',
        "fb completion zsh > ~/.zfunc/_fb",
        "fb completion fish > ~/.config/fish/completions/fb.fish",
    ),
)
@click.argument("shell", type=click.Choice(list(_SHELLS)))
@click.pass_context
def command(context: click.Context, shell: str) -> None:
    """Print the completion script for a shell; names of methods and presets complete too."""
    script = _SHELLS[shell](context.find_root().command, {}, "fb", "_FB_COMPLETE")
    click.echo(script.source())
