"""The command line: `python -m clicklab COMMAND`. The Makefile's targets are its everyday names."""

import sys

import typer

from clicklab import Trouble, connect, servers

app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False)


@app.command()
def up() -> None:
    """Start all servers and wait until they are usable."""
    print(f"usable after {servers.up():.1f} s")


@app.command()
def down() -> None:
    """Stop all servers; their data stays."""
    servers.down()


@app.command()
def belong_together() -> None:
    """Wait for Kafka and HDFS, then refuse a pair that does not belong together (compose/serve calls it)."""
    connect.wait_for_pair()
    connect.belong_together()


@app.command()
def guard() -> None:
    """Watch the sink's tasks and restart failed ones, until stopped."""
    connect.guard()


def main() -> None:
    try:
        app()
    except Trouble as trouble:
        print(trouble, file=sys.stderr)
        sys.exit(1)
    except KeyboardInterrupt:
        sys.exit(130)


if __name__ == "__main__":
    main()
