"""The command line: `python -m clicklab COMMAND`. The Makefile's targets are its everyday names."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path
from typing import Annotated, Any

try:
    import typer
    import yaml
except ModuleNotFoundError as error:
    sys.exit(f"This Python lacks the course's packages ({error.name}).\nWhy:  {sys.executable} is not the course's own\n"
             "Next: the same with .venv/bin/python instead; without that file, make prepare first")

from clicklab import Trouble, servers

app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False, help=__doc__)
Name = Annotated[str, typer.Argument(help="of: " + " ".join(servers.SERVERS))]


@app.command()
def up() -> None:
    """Start all servers and wait until they are usable."""
    names = tuple(name for name in servers.SERVERS if name != "blog" or shutil.which("jekyll"))
    seconds = servers.up(names)
    print(f"usable after {seconds:.1f} s: {', '.join(names)}")
    if len(names) < len(servers.SERVERS):
        print("not started: blog, because Jekyll is not on this machine. make doctor says how to install it")


@app.command()
def down() -> None:
    """Stop all servers; their data stays."""
    servers.down()


@app.command()
def status(measured: bool = False) -> None:
    """Say of each server whether it is usable, where it listens and what memory it holds; exit 1 when one that runs is not."""
    table = servers.status()
    if measured:
        print(servers.measured(table))
        return
    for row in table:
        print(f"{row['server']:<10} {row['state']:<11} {row['memory MB']:>5} MB  {row['address']:<16} {row['what']}")
    if servers.usable("connect"):
        from clicklab import connect

        for what, state, cause in connect.tasks():
            print(f"sink       {state:<11} {what} {cause}")
    if any(row["state"] == "not usable" for row in table):
        sys.exit(1)


@app.command()
def doctor() -> None:
    """Look at everything the course needs on this machine; exit 1 when something is missing."""
    from clicklab import doctor

    lines = doctor.look()
    print("\n".join(lines))
    sys.exit(0 if doctor.is_well(lines) else 1)


@app.command()
def run(numbers: Annotated[list[str] | None, typer.Argument(help="notebooks, two digits each; default 00 to 05")] = None,
        further: Annotated[bool, typer.Option("--all", help="the further notebooks too")] = False,
        parameter: Annotated[list[str] | None, typer.Option("--parameter", "-p", help="NAME=VALUE")] = None) -> None:
    """Execute notebooks in order with papermill; exit 1 when one fails, 3 when one could not be executed."""
    from clicklab import course

    results = course.run(tuple(numbers or ()), dict(_parameter(text) for text in parameter or ()), further=further)
    sys.exit(course.exit_status(results))


def _parameter(text: str) -> tuple[str, Any]:
    name, sign, value = text.partition("=")
    if not sign:
        raise Trouble(f"{text} is no parameter.", "a parameter is NAME=VALUE", "write  -p CLICKS=200")
    return name, yaml.safe_load(value)


@app.command(hidden=True)
def setting(name: str) -> None:
    """Print one setting (the Makefile calls it)."""
    print(servers.setting(name))


@app.command()
def site() -> None:
    """Build the executed course as a blog, into build/site; with SITE_LANG=ko in Korean too, under ko/."""
    from clicklab import course

    course.site()
    root = course.LANGUAGES[servers.setting("SITE_LANG")]["baseurl"]
    print(f"built build/site{root}/; the server blog shows it at {servers.url('blog')}{root}/")


@app.command(hidden=True)
def lab_folder() -> None:
    """Print the folder of notebooks that JupyterLab opens (the Makefile calls it)."""
    from clicklab import course

    print(course.lab_folder())


@app.command()
def korean() -> None:
    """Name what notebooks/ko/ lacks of the course's prose and the checkers' messages, and what is out of date; exit 1 when there is something."""
    from clicklab import korean

    lines = korean.report()
    print("\n".join(lines) or "every piece of prose and every message is there in Korean, and none is out of date")
    sys.exit(1 if lines else 0)


@app.command()
def figures() -> None:
    """Take the front page's figures from the notebooks last executed."""
    from clicklab import readme

    readme.figures()


@app.command()
def readme() -> None:
    """Write the generated parts of README.md again."""
    from clicklab import readme

    readme.update()


@app.command(hidden=True)
def usable(name: Name) -> None:
    """Exit 0 when a server does its job, else say why not and exit 1 (docker's health check)."""
    if reason := servers.reason_not_usable(name):
        print(f"{name}: {reason}")
        sys.exit(1)


@app.command()
def where(event_id: str) -> None:
    """Say how far one click got, and why not farther."""
    from clicklab import ledger

    print("\n".join(ledger.where(event_id)))


@app.command()
def watch(seconds: Annotated[float | None, typer.Option(help="stop after so long; default: at Ctrl-C")] = None) -> None:
    """Show live what is at each hop, the newest snapshot's age, dead letters, servers, tasks and the guard."""
    from clicklab import watch

    watch.watch(seconds)


@app.command()
def ledger() -> None:
    """Show all runs at each hop, then compare the whole topic with the whole table."""
    from clicklab import ledger

    print(ledger.table().to_string())
    ledger.audit()


@app.command()
def drill(name: Annotated[str | None, typer.Argument(help="of those that --list names")] = None,
          clicks: int = 20_000, seed: int = 1,
          list_: Annotated[bool, typer.Option("--list", help="name the faults, what has to hold, and what cannot")] = False,
          all_: Annotated[bool, typer.Option("--all", help="kill every server, in a seeded random order")] = False,
          rounds: Annotated[int, typer.Option(help="with --all: how often each server is killed")] = 1) -> None:
    """Break a server while clicks are produced, then count them."""
    from clicklab import faults

    if list_:
        for each, fault in faults.FAULTS.items():
            print(f"{each:<18} {fault.how}\n{'':<18} has to hold: {fault.expected}")
        for what, bound in faults.LIMITS.items():
            print(f"{'cannot hold':<18} {what}: {bound}")
    elif all_ or name:
        faults.drill("everything" if all_ else name, clicks, seed, rounds)
    else:
        raise Trouble("Which drill?", "no name was given", "python -m clicklab drill --list")


@app.command()
def package(output: Annotated[Path | None, typer.Argument(help="default build/clickstream-ingest.zip")] = None) -> None:
    """Build the zip that AWS Lambda runs; the same sources give the same bytes."""
    from clicklab import aws

    made = aws.package(output)
    print(f"{made}  {made.stat().st_size:,} bytes, python{aws.PYTHON} on arm64, SHA-256 {aws.digest(made)}")


@app.command()
def replay(file: Annotated[Path | None, typer.Argument(help="a web server's access log in the combined format, plain or .gz")] = None,
           log_group: Annotated[str | None, typer.Option(help="CloudWatch log group, such as /aws/lambda/clickstream-ingest")] = None,
           since: Annotated[str | None, typer.Option(help="of a log group: 2026-11-01, or with a time; UTC unless it names a zone")] = None,
           region: Annotated[str, typer.Option(help="of a log group")] = "ap-northeast-2",
           run: Annotated[str | None, typer.Option(help="the ledger's run and the checkpoint's name")] = None,
           endpoint_url: Annotated[str | None, typer.Option(help="a stand-in for AWS")] = None) -> None:
    """Bring the clicks that a log kept into the topic; running it again adds only what is new."""
    from clicklab import access_log, replay

    if (file is None) == (log_group is None):
        raise Trouble("Replay which log?", "it takes a file or a log group, and one of them",
                      "python -m clicklab replay access.log, or  python -m clicklab replay --log-group NAME")
    print(access_log.from_file(file, run=run or access_log.RUN) if file else
          replay.from_log_group(log_group, since=replay.instant(since), region=region, run=run, endpoint=endpoint_url))


@app.command()
def forget(session_id: str) -> None:
    """Erase one session from the table and from every file on HDFS; say what the topics still hold of it."""
    from clicklab import upkeep

    upkeep.forget(session_id)


@app.command()
def expire(keep: Annotated[int, typer.Option(help="snapshots to keep, at least 1")] = 10) -> None:
    """Let go of old snapshots of the table and of the files that only they name."""
    from clicklab import upkeep

    upkeep.expire(keep)


@app.command()
def sweep(older_than_h: Annotated[float, typer.Option(help="hours, at least 1")] = 24) -> None:
    """Remove files that no snapshot names and the sink has not announced: what killed programs left."""
    from clicklab import upkeep

    upkeep.sweep(older_than_h)


@app.command()
def compact() -> None:
    """Write the small files of each hour of the table into one."""
    from clicklab import upkeep

    upkeep.compact()


@app.command()
def schema(write: Annotated[bool, typer.Option("--write", help="put the contract's into the sink's file")] = False,
           put: Annotated[bool, typer.Option("--put", help="give the file to the sink")] = False) -> None:
    """Compare the sink's schema with the event contract and say what kind of change each difference is."""
    from clicklab import connect

    connect.schema(write, put)


@app.command()
def clean() -> None:
    """Stop the servers and remove .state and build, saying what is removed."""
    servers.down()
    for folder in (servers.state_folder(), servers.build_folder()):
        if folder.exists():
            size_mb = sum(path.lstat().st_size for path in folder.rglob("*") if path.is_file()) / 1e6
            shutil.rmtree(folder)
            print(f"removed {folder.name}/  ({size_mb:,.0f} MB: "
                  f"{'topics, table, ledger, logs' if folder.name != 'build' else 'executed notebooks and pages'})")
        else:
            print(f"{folder.name}/ was not there")


@app.command(hidden=True)
def build_blog() -> None:
    """Build the demo blog into the state folder (compose/serve calls it)."""
    from clicklab import course

    course.build_blog()


@app.command(hidden=True)
def belong_together() -> None:
    """Wait for Kafka and HDFS, then refuse a pair that does not belong together (compose/serve calls it)."""
    from clicklab import connect

    connect.wait_for_pair()
    connect.belong_together()


@app.command(hidden=True)
def guard() -> None:
    """Watch the sink's tasks and restart failed ones, until stopped."""
    from clicklab import connect

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
