"""The command line. Each command's module is imported only when that command runs."""

import sys
from importlib import import_module
from typing import Any

import click

from worker.cli.stdout import watch_stdout
from worker.errors import CancelqError, ConfigError

COMMANDS = {
    "demo": "worker.cli.demo",
    "up": "worker.cli.up",
    "flower": "worker.cli.up",
    "worker": "worker.cli.serve",
    "migrate": "worker.cli.records",
    "enqueue": "worker.cli.intake",
    "status": "worker.cli.intake",
    "why": "worker.cli.why",
    "pause": "worker.cli.steer",
    "resume": "worker.cli.steer",
    "drain": "worker.cli.steer",
    "cancel-all": "worker.cli.mass",
    "redrive": "worker.cli.amend",
    "resolve": "worker.cli.amend",
    "report": "worker.cli.report",
    "verify": "worker.cli.records",
    "policy": "worker.cli.rules",
    "doctor": "worker.cli.doctor",
    "simulator": "worker.cli.simulate",
}


class LazyGroup(click.Group):
    """Knows every command's name, imports none before it is called."""

    def main(self, *args: Any, **extra: Any) -> Any:
        watch_stdout()
        return super().main(*args, **extra)

    def list_commands(self, _ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, _ctx: click.Context, name: str) -> click.Command | None:
        if name not in COMMANDS:
            return None
        command: click.Command = getattr(import_module(COMMANDS[name]), name.replace("-", "_"))
        return command

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except ConfigError as error:
            click.echo(f"cancelq: {error}", err=True)
            sys.exit(2)
        except CancelqError as error:
            click.echo(f"cancelq: {error}", err=True)
            sys.exit(1)


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="cancelq")
def main() -> None:
    """Durable cancel requests: said once, sent fast, ended in a proven fact."""
