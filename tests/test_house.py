"""The house rules that a machine can check: locks, one definition each, stripped notebooks."""

from __future__ import annotations

import ast
import json
import re
import tomllib
from pathlib import Path

import pytest
import yaml
from clickstream_ingest import events
from exercises import exercises, wrong_answers
from packaging.requirements import Requirement
from rattler import MatchSpec

from clicklab import connect, course, servers

ROOT = Path(__file__).resolve().parents[1]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("[0-9][0-9]_*.ipynb"))


def pins(lock: str) -> dict[str, set[str]]:
    found: dict[str, set[str]] = {}
    for name, version in re.findall(r"^([a-z0-9._-]+)==(\S+)", (ROOT / lock).read_text(), re.M):
        found.setdefault(name, set()).add(version)
    return found


def course_requirements() -> list[str]:
    environment = yaml.safe_load((ROOT / "environment.yml").read_text())
    return next(entry["pip"] for entry in environment["dependencies"] if isinstance(entry, dict))


@pytest.mark.parametrize("line", course_requirements())
def test_each_package_of_the_environment_is_locked_within_its_bounds(line):
    wanted = Requirement(line)
    assert pins("requirements.lock")[wanted.name.lower()], f"make lock: {wanted.name} is not locked"
    for version in pins("requirements.lock")[wanted.name.lower()]:
        assert wanted.specifier.contains(version), f"make lock: {wanted.name} {version} is outside {wanted.specifier}"


@pytest.mark.only_checked("environment.yml: read by conda's own parser, not installed by conda")
def test_the_conda_lines_are_what_conda_understands():
    environment = yaml.safe_load((ROOT / "environment.yml").read_text())
    specs = [MatchSpec(entry) for entry in environment["dependencies"] if isinstance(entry, str)]
    assert {spec.name.normalized for spec in specs} == {"python", "pip"}


def test_every_locked_package_has_a_hash_and_no_registry_is_named():
    for lock in ("requirements.lock", "requirements-further.lock"):
        text = (ROOT / lock).read_text()
        blocks = re.split(r"^(?=[a-z0-9._-]+==)", text, flags=re.M)[1:]
        assert blocks and all("--hash=sha256:" in block for block in blocks)
        assert "://" not in text


@pytest.mark.parametrize("spec", sorted((ROOT / "compose" / "jars").rglob("jgo.toml")), ids=lambda path: path.parent.name)
def test_each_jar_is_locked_at_the_named_version_with_its_sha256(spec):
    locked = tomllib.loads(spec.with_name("jgo.lock.toml").read_text())["dependencies"]
    assert all(re.fullmatch("[0-9a-f]{64}", jar["sha256"]) for jar in locked)
    present = {(jar["groupId"], jar["artifactId"], jar["version"]) for jar in locked}
    for coordinates in tomllib.loads(spec.read_text())["dependencies"]["coordinates"]:
        group, artifact, *_, version = coordinates.split(":")
        assert (group, artifact, version) in present, f"make lock: {coordinates} is not in the lock"


def test_the_sinks_schema_is_the_event_contracts(capsys):
    connect.schema(write=False)
    assert "is the event contract's" in capsys.readouterr().out


def test_the_sink_keeps_the_five_minutes_and_one_task():
    chosen = json.loads(connect.CONFIG.read_text())
    assert chosen["iceberg.control.commit.interval-ms"] == "300000"
    assert chosen["tasks.max"] == "1"
    assert connect.config(7000) == chosen | {"iceberg.control.commit.interval-ms": "7000"}


@pytest.mark.only_checked("the configuration for Confluent's HDFS connector: compared with ours, not run")
def test_the_classics_configuration_reads_the_same_topic_as_often_and_keeps_the_offsets():
    ours, classic = (json.loads(connect.CONFIG.with_name(f"{connect.SINK}{kind}.json").read_text()) for kind in ("", ".confluent"))
    assert classic["topics"] == ours["topics"]
    assert classic["rotate.schedule.interval.ms"] == ours["iceberg.control.commit.interval-ms"]
    for key in ours:
        if key.startswith(("transforms", "errors.")):
            assert classic[key] == ours[key]


def test_every_variable_a_server_file_asks_for_has_a_default():
    defaults = set(servers._read_env(ROOT / "compose" / "defaults.env")) | {"CLICKSTREAM_STATE"}
    files = [*(ROOT / "compose" / "kafka").iterdir(), *(ROOT / "compose" / "hadoop").iterdir(), *(ROOT / "connect_configs").iterdir()]
    asked = {name for file in files for name in re.findall(r"\$\{env[:.]([A-Z_]+)", file.read_text())}
    assert asked and asked <= defaults


def test_no_address_is_written_where_a_setting_belongs():
    # The snippet's own default is the series' address; where the ports differ, the build says so to Jekyll.
    for file in [*(ROOT / "clicklab").glob("*.py"), *NOTEBOOKS, *(ROOT / "connect_configs").iterdir()]:
        text = file.read_text().replace("http://localhost:8000/ingest", "")
        found = re.findall(r"(?:127\.0\.0\.1|localhost):\d{4}", text)
        assert not found, f"{file.name} writes {found}: take it from servers.setting"


def test_the_manifest_lists_every_notebook_once():
    assert [notebook.file for notebook in course.manifest()] == [path.name for path in NOTEBOOKS]


def cells(path: Path, kind: str) -> list[dict]:
    return [cell for cell in json.loads(path.read_text())["cells"] if cell["cell_type"] == kind]


@pytest.fixture(params=NOTEBOOKS, ids=lambda path: path.stem)
def notebook(request) -> Path:
    return request.param


def test_notebooks_are_stripped_and_use_the_plain_kernel(notebook):
    content = json.loads(notebook.read_text())
    assert content["metadata"]["kernelspec"]["name"] == "python3"
    assert not any(cell["outputs"] or cell["execution_count"] for cell in cells(notebook, "code"))
    assert len({cell["id"] for cell in content["cells"]}) == len(content["cells"])


def test_every_cell_of_code_is_python(notebook):
    for cell in cells(notebook, "code"):
        ast.parse("".join(cell["source"]))


def test_notebooks_have_one_parameters_cell_of_plain_literals(notebook):
    tagged = [cell for cell in cells(notebook, "code") if "parameters" in cell["metadata"].get("tags", [])]
    assert len(tagged) == 1
    for statement in ast.parse("".join(tagged[0]["source"])).body:
        assert isinstance(statement, ast.AnnAssign)
        ast.literal_eval(statement.value)


def test_notebooks_run_nothing_whose_failure_stays_green(notebook):
    for cell in cells(notebook, "code"):
        source = "".join(cell["source"])
        assert not re.search(r"^\s*[!%]", source, re.M), "a failing !command stays green"
        assert "raises-exception" not in cell["metadata"].get("tags", [])
        assert not re.search(r"\bsleep\(", source), "wait for the thing itself"


def test_notebooks_begin_with_their_contract_and_end_with_a_summary(notebook):
    prose = ["".join(cell["source"]) for cell in cells(notebook, "markdown")]
    number = notebook.name[:2]
    entry = next(entry for entry in course.manifest() if entry.number == number)
    assert prose[0].startswith(f"# {entry.title}\n") and f" {entry.minutes} minutes. Left running:" in prose[0]
    assert "You finish with" in prose[0] and "**You can then**" in prose[0] and "| needs | why |" in prose[0]
    assert any(text.startswith("## Summary") for text in prose[-2:])


def test_notebooks_end_with_the_links_to_their_neighbors(notebook):
    entry = next(entry for entry in course.manifest() if entry.path == notebook)
    last = course.cells(entry)[-1]
    assert last["id"] == course.NEIGHBORS and "".join(last["source"]) == course.neighbors(entry)


def test_every_figure_says_in_words_what_it_shows(notebook):
    for cell in cells(notebook, "code"):
        source = "".join(cell["source"])
        shown = source.count("charts.show(") + source.count("Image(")
        assert shown == source.count("alt="), "each picture needs alt"
        assert "plt.show(" not in source


def test_what_a_lesson_teaches_is_typed_in_its_cells():
    taught = {"02": ["requests.post("], "03": ["KafkaProducer(", "KafkaConsumer(", "create_topics("], "04": ["requests.put("],
              "05": ["pd.read_parquet(", "plt.subplots("], "06": ["signal.SIGKILL", "ledger.check("],
              "07": ["session.sql(", "duckdb.connect(", "rewrite_data_files("],
              "08": ["create_function", "create_api(", "create_role"]}
    for number, calls in taught.items():
        path = next(path for path in NOTEBOOKS if path.name.startswith(number))
        source = "\n".join("".join(cell["source"]) for cell in cells(path, "code"))
        assert not [call for call in calls if call not in source]


def test_notebook_04_explains_every_key_of_the_sink_and_no_other():
    path = next(path for path in NOTEBOOKS if path.name.startswith("04"))
    table = next(source for cell in cells(path, "code") if (source := "".join(cell["source"])).startswith("BREAKS ="))
    explained = [line.split(": ", 1)[0] for line in table.split('"""')[1].strip().splitlines()]
    assert explained == list(json.loads(connect.CONFIG.read_text()))


def test_the_contract_lists_its_required_fields():
    required = {field["field"] for field in events.connect_schema()["fields"] if not field["optional"]}
    assert required == {"path", "tag", "timestamp", "event_id", "event_name", "received_at", "corrected_at", "schema_version",
                        "request_id", "collector", "is_bot"}


def workflow_commands() -> list[str]:
    """What the repository's own workflows run, the choices of a matrix in place."""
    commands = []
    for file in (ROOT / ".github" / "workflows").glob("*.yml"):
        for job in yaml.safe_load(file.read_text())["jobs"].values():
            commands += [step["run"] for step in job["steps"] if "run" in step and "matrix." not in step["run"]]
            commands += [choice["command"] for choice in job.get("strategy", {}).get("matrix", {}).get("include", [])]
    return commands


@pytest.mark.only_checked("the GitHub workflows: read and linted, not run by GitHub")
def test_the_workflows_run_make_targets_that_exist():
    targets = set(re.findall(r"^([a-z-]+):.*## ", (ROOT / "Makefile").read_text(), re.M))
    called = {name for command in workflow_commands() for name in re.findall(r"\bmake ([a-z-]+)", command)}
    assert {"test", "run-all", "test-drills", "test-order", "test-browsers", "lock"} <= called <= targets


def test_no_file_names_a_path_of_somebodys_machine():
    told = re.compile(r"(?<![\w.~$}])/(?:home|Users|root|work)/[\w.-]+")
    for folder in ("clicklab", "lambda_src", "notebooks", "compose", "connect_configs", "blog_snippet", "demo_blog", "tests"):
        for file in (ROOT / folder).rglob("*"):
            if file.is_file() and file.suffix in (".py", ".ipynb", ".sh", ".yml", ".toml", ".env", ".md", ".json", ".html", ".conf"):
                assert not told.search(file.read_text(errors="replace")) or file == Path(__file__), file


# Not words of the field: parts of the template, and labels that end in a colon or a full stop.
LABELS = {"You can then", "In production", "Next"}


def test_a_notebook_brings_at_most_five_new_terms():
    known: set[str] = set()
    for path in NOTEBOOKS:
        bold = {term for cell in cells(path, "markdown") for term in re.findall(r"\*\*(.+?)\*\*", "".join(cell["source"]))}
        new = {term for term in bold - LABELS - known if term[-1] not in ".:"}
        assert len(new) <= 5, f"{path.name}: {', '.join(sorted(new))}"
        known |= new


def test_no_cell_of_code_is_longer_than_a_screen(notebook):
    for cell in cells(notebook, "code"):
        # A table in a string is read as a table.
        source = re.sub(r'"""\n.*?"""', '""', "".join(cell["source"]), flags=re.DOTALL)
        assert len([line for line in source.splitlines() if line.strip()]) <= 24, source


def test_no_line_of_code_is_wider_than_a_page(notebook):
    # Beyond that, JupyterLab and the blog's posts hide what a line ends in.
    code = {cell["id"]: "".join(cell["source"]) for cell in cells(notebook, "code")}
    solutions = {cell["id"]: "\n".join(re.findall(r"^```\w+\n(.*?)^```", "".join(cell["source"]), re.MULTILINE | re.DOTALL))
                 for cell in cells(notebook, "markdown")}
    for name, source in (code | solutions).items():
        assert not [line for line in source.splitlines() if len(line) > 120], name


def test_each_notebook_has_exercises_with_a_hidden_solution_and_a_wrong_answer_to_try(notebook):
    entry = next(entry for entry in course.manifest() if entry.path == notebook)
    found = exercises(entry)
    assert 2 <= len(found) <= 4
    for number, one in enumerate(found, 1):
        assert one.text.startswith(f"### Exercise {number}. ") and one.solution
        assert one.checker.startswith("exercises.") and one.name in wrong_answers()
        assert "..." in one.cell.removesuffix(one.checker), "an untouched exercise has three dots where the answer goes"
