"""The whole way with real servers: the course, each notebook alone, bad input, and what has to be refused."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import uuid
from pathlib import Path
from urllib.parse import unquote, urljoin, urlsplit

import exercises
import hdfs_native
import psutil
import pytest
import requests
from axe_playwright_python.sync_playwright import Axe
from bs4 import BeautifulSoup
from conftest import run_clicklab
from test_collector import REQUESTS, check, sent

from clicklab import (
    Trouble,
    blog,
    bootstrap,
    collector,
    connect,
    course,
    hdfs,
    landed,
    ledger,
    servers,
    topics,
    traffic,
)

pytestmark = pytest.mark.servers
HOPS = ("acknowledged", "in topic", "landed")


@pytest.fixture(scope="module")
def course_run(pipeline) -> dict:
    """All notebooks executed as `make run-all SITE_LANG=ko` does it; what it printed, and its record."""
    said = run_clicklab("run", "--all", SITE_LANG="ko")
    print(said.stdout[-6000:], said.stderr[-3000:], sep="\n")
    record = json.loads((servers.build_folder() / "notebooks" / "run.json").read_text())
    return {"status": said.returncode, "said": said.stdout, **record}


def test_the_course_runs_to_its_end_and_counts_the_same_clicks_at_each_hop(course_run):
    assert course_run["status"] == 0, course_run["said"]
    assert {entry["state"] for entry in course_run["notebooks"].values()} == {"passed"}
    for name, counts in course_run["clicks"].items():
        assert len({counts[hop] for hop in HOPS}) == 1, f"{name}: {counts}"


def test_the_course_makes_its_clicks_in_a_browser_and_over_http(course_run):
    assert course_run["clicks"]["01"]["landed"] >= 40
    assert course_run["clicks"]["05"]["landed"] >= 5000


def test_the_course_leaves_executed_notebooks_and_pages(course_run):
    for notebook in course.manifest():
        executed = servers.build_folder() / "notebooks" / notebook.file
        assert any(cell.get("outputs") for cell in json.loads(executed.read_text())["cells"])
        assert notebook.title in executed.with_suffix(".html").read_text()


def test_the_course_leaves_a_blog_with_its_figures_and_no_dead_link(course_run):
    site = servers.build_folder() / "site"
    dead, pictures = set(), set()
    for page in site.rglob("index.html"):
        assert page.relative_to(site).parts[0] == "ko" or (site / "ko" / page.relative_to(site)).exists(), "not in Korean"
        at = f"http://blog/{page.parent.relative_to(site).as_posix()}/"
        for element in BeautifulSoup(page.read_text(), "html.parser").select("a[href], link[href], img[src], script[src]"):
            wanted = urlsplit(urljoin(at, element.get("href") or element.get("src")))
            file = site / unquote(wanted.path).lstrip("/")
            if wanted.netloc == "blog" and not (file.is_file() or (file / "index.html").is_file()):
                dead.add(f"{at} {wanted.path}")
            if element.name == "img":
                pictures.add(wanted.path)
                assert element["alt"], f"{wanted.path} says nothing to those who cannot see it"
    assert not dead
    assert len(pictures) >= 30
    korean = (site / "ko" / "posts" / "04-land-the-clicks" / "index.html").read_text(encoding="utf-8")
    assert "no record twice, contents as posted" in korean and "필요한 것" in korean
    assert json.loads((site / "run.json").read_text())["versions"]["kafka_2.13"]


# In the dark only colors are others; the Korean pages have the colors of the English ones.
LOOKS = [pytest.param("light", "", {}, id="light"), pytest.param("dark", "", {"runOnly": ["color-contrast"]}, id="dark"),
         pytest.param("light", "ko", {"rules": {"color-contrast": {"enabled": False}}}, id="Korean")]


@pytest.mark.parametrize("scheme, part, rules", LOOKS)
def test_the_blog_is_accessible_to_those_who_cannot_see_or_point(course_run, scheme, part, rules):
    servers.need("blog")
    site = servers.build_folder() / "site"
    with blog.browser() as chromium:
        context = chromium.new_context(color_scheme=scheme)
        context.add_init_script(blog.NO_READER)
        page = context.new_page()
        for folder in sorted(path.parent for path in site.rglob("index.html") if (path.relative_to(site).parts[0] == "ko") == bool(part)):
            assert page.goto(f"{servers.url('blog')}/{folder.relative_to(site).as_posix()}/").ok
            found = Axe().run(page, options=rules).response["violations"]
            assert not [(folder.name, one["id"], one["nodes"][0]["html"]) for one in found if one["impact"] in ("serious", "critical")]


# The course has just run with its own parameters; here smaller ones do.
SMALLER = {"01": {"COST_CLICKS": 50, "CLICKS": 24}, "06": {"CLICKS": 1000, "MEANWHILE": 300}, "07": {"BURSTS": 3, "LARGEST": 1000}}


@pytest.mark.parametrize("notebook", course.manifest(), ids=lambda notebook: notebook.number)
def test_plain_papermill_runs_each_notebook_from_another_folder_and_its_exercises_are_judged(pipeline, course_run, notebook, tmp_path):
    papermill = Path(sys.executable).with_name("papermill")
    exercises.answered(notebook, tmp_path / "answered.ipynb")
    chosen = [word for name, value in SMALLER.get(notebook.number, {}).items() for word in ("-p", name, str(value))]
    ran = subprocess.run([papermill, "--no-progress-bar", *chosen, "answered.ipynb", "out.ipynb"], cwd=tmp_path, capture_output=True,
                         text=True, timeout=600)
    assert ran.returncode == 0, ran.stderr[-3000:]
    said = exercises.judgments(tmp_path / "out.ipynb")
    print(*said, sep="\n")
    assert len(said) == len(exercises.exercises(notebook))
    for one in said:
        assert one.untouched.startswith("Not answered yet. ")
        assert one.wrong.startswith("Not yet: ") and one.hint in one.wrong
        assert one.solution.startswith("Right. ")


def test_notebook_05_asks_the_clicks_of_ones_own_blog_and_makes_none(pipeline, tmp_path):
    host, run = f"{uuid.uuid4().hex}.example", ledger.new_run("96")
    own = [{key: value.replace(traffic.BLOG, f"https://{host}") if isinstance(value, str) else value for key, value in event.items()}
           | {"hostname": host, "tracker_version": "1.0.0"} for event in traffic.readers(300, 11)]
    collector.post(own, run, user_agent=traffic.USER_AGENT)
    ledger.check("the table", run, landed.sightings)
    known = {each.name for each in ledger.runs()}
    entry = next(entry for entry in course.manifest() if entry.number == "05")
    executed = course.execute(entry, {"HOSTNAME": host}, tmp_path)
    said = "".join("".join(output.get("text", "")) for cell in json.loads(executed.read_text())["cells"] for output in cell.get("outputs", []))
    people = sum(not event["is_webdriver"] for event in own)
    assert f"300 events, {people} of them of people" in said and "planted" not in said
    assert {each.name for each in ledger.runs()} == known
    with pytest.raises(Trouble, match=f"the hosts in the table are .*{host}"):
        course.execute(entry, {"HOSTNAME": "nobody.example"}, tmp_path)


@pytest.mark.parametrize("request_", [each for each in REQUESTS if "event" not in each.values[0]])
def test_each_request_gets_its_answer_and_what_is_accepted_is_in_the_topic(pipeline, request_):
    before = {name: sum(topics.end_offsets(name).values()) for name in (topics.CLICKS, topics.REJECTED)}
    answer = requests.request(request_["method"], f"{servers.url('ingest')}/ingest", data=sent(request_),
                              headers=request_["headers"], timeout=30)
    # CORS depends on the blog's port, which is another one here.
    check({**request_["expect"], "headers": {}}, answer.status_code, {}, answer.text)
    after = {name: sum(topics.end_offsets(name).values()) for name in before}
    told = answer.json() if answer.content else {}
    assert after[topics.CLICKS] - before[topics.CLICKS] == told.get("accepted", int(answer.status_code == 200))
    refused = len(told.get("rejected", [])) if sent(request_) else 0
    assert after[topics.REJECTED] - before[topics.REJECTED] == refused


def test_what_browsers_and_curl_send_is_in_the_ledger(pipeline):
    one = {"path": "/ledger/", "tag": "A", "timestamp": "2026-01-01T00:00:00Z", "event_id": str(uuid.uuid4())}
    bad = one | {"event_id": str(uuid.uuid4()), "x": "left"}
    requests.post(f"{servers.url('ingest')}/ingest", json=[one, bad], headers={"Origin": servers.url("blog")}, timeout=30)
    run = ledger.open_run(ledger.BROWSER)
    assert one["event_id"] in run.acknowledged and bad["event_id"] in run.refused
    assert any("landed" in line or "not yet" in line for line in ledger.where(one["event_id"]))
    assert "refused" in ledger.where(bad["event_id"])[-1]


def test_everything_listens_on_this_machine_only(pipeline):
    owned = [process for name in servers.SERVERS for process in servers.processes(name)]
    listening = [c.laddr for p in owned for c in p.net_connections("tcp") if c.status == psutil.CONN_LISTEN]
    assert len(listening) >= 8
    assert {address.ip.removeprefix("::ffff:") for address in listening} == {"127.0.0.1"}


# Sent by a page as a form would be, which browsers do without asking the server first; anything else they ask about.
FOREIGN_POSTS = """async posts => Promise.all(posts.map(([url, body]) => fetch(url, {method: 'POST', mode: 'no-cors', body}).then(answer => answer.type)))"""


def test_a_page_of_another_origin_changes_no_file_on_hdfs_and_no_connector(pipeline):
    client, file = hdfs.client(), "/of-nobody/file"
    client.mkdirs("/of-nobody")
    writer = client.create(file, hdfs_native.WriteOptions(overwrite=True))
    writer.write(b"x" * 100)
    writer.close()
    owner = client.get_file_info(file).owner
    servers.need("blog")
    name_node, connect_url = servers.url("namenode"), servers.url("connect")
    before = requests.get(f"{connect_url}/connectors?expand=info", timeout=30).json()
    with blog.browser() as chromium:
        page = chromium.new_page()
        page.goto(f"{servers.url('blog')}/long/")
        answered = page.evaluate(FOREIGN_POSTS, [
            [f"{name_node}/webhdfs/v1{file}?op=TRUNCATE&newlength=0&user.name={owner}", ""],
            [f"{name_node}/webhdfs/v1{file}?op=APPEND&noredirect=true&user.name={owner}", "y"],
            [f"{connect_url}/connectors", json.dumps({"name": "of-nobody", "config": connect.config()})],
        ])
    assert answered == ["opaque"] * 3, "the servers were not reached, so nothing was shown"
    assert client.get_file_info(file).length == 100
    assert requests.get(f"{connect_url}/connectors?expand=info", timeout=30).json() == before
    client.delete("/of-nobody", recursive=True)


def test_jupyterlab_asks_for_its_token(own_data):
    command = next(line for line in (Path(__file__).parents[1] / "Makefile").read_text().splitlines() if "-m jupyter lab" in line)
    assert "token" not in command.lower() and "password" not in command.lower()
    lab = subprocess.Popen([sys.executable, "-m", "jupyter", "lab", "--ip", "127.0.0.1", "--port", servers.setting("LAB_PORT"),
                            "--no-browser", "--allow-root"], cwd=own_data, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        url = f"http://127.0.0.1:{servers.setting('LAB_PORT')}/api"
        servers.wait_for("JupyterLab", lambda: "" if servers.port_user(int(servers.setting("LAB_PORT"))) else "it does not listen yet", 60)
        assert requests.get(url, timeout=30).ok, "its version is no secret"
        for method, path in (("GET", "/contents"), ("POST", "/contents"), ("POST", "/kernels"), ("POST", "/terminals")):
            assert requests.request(method, url + path, timeout=30).status_code == 403
    finally:
        lab.terminate()
        lab.wait(30)


def test_the_topic_is_the_table_after_all_that(pipeline, capsys):
    ledger.audit()
    assert "offset by offset" in capsys.readouterr().out


def test_up_refuses_topics_and_a_table_that_do_not_belong_together(second_state):
    pair = ("kafka", "namenode", "datanode", "connect")
    servers.need(*pair, "ingest")
    connect.register()
    run = ledger.new_run("90")
    collector.post(traffic.readers(50, 1), run)
    ledger.check("the table", run, landed.sightings)
    servers.down()
    assert not [p for p in psutil.process_iter(["environ"])
                if (p.info["environ"] or {}).get("CLICKSTREAM_SERVER_OF") == str(second_state)]
    for name in servers.SERVERS:
        for port in servers.SERVERS[name].ports:
            assert servers.port_user(int(servers.setting(port))) is None

    aside = second_state / "aside"
    aside.mkdir()
    (second_state / "kafka").rename(aside / "kafka")
    with pytest.raises(Trouble, match="Kafka is new") as caught:
        servers.need(*pair)
    assert "make clean" in caught.value.next
    servers.down()

    shutil.rmtree(second_state / "kafka")
    (aside / "kafka").rename(second_state / "kafka")
    (second_state / "hdfs").rename(aside / "hdfs")
    with pytest.raises(Trouble, match="HDFS is new"):
        servers.need(*pair)
    servers.down()

    shutil.rmtree(second_state / "hdfs")
    (aside / "hdfs").rename(second_state / "hdfs")
    servers.need("kafka", "namenode", "datanode")
    if sys.platform == "linux":  # where a process shows its files
        files = {file.path for process in servers.processes("kafka") for file in process.memory_maps()}
        assert any(file.endswith("/kafka.jsa") for file in files), "the classes of the first start are not used again"
    admin = topics.admin()
    admin.delete_topics([topics.CONTROL])
    servers.wait_for("the topic to go", lambda: topics.CONTROL if topics.CONTROL in admin.list_topics() else "", 30)
    admin.close()
    with pytest.raises(Trouble, match="clickstream-control was removed or made anew"):
        servers.need(*pair)


def test_make_clean_removes_the_data_and_says_so(second_state, tmp_path):
    (second_state / "ledger").mkdir()
    (tmp_path / "notebooks").mkdir()
    said = run_clicklab("clean", CLICKSTREAM_BUILD=str(tmp_path))
    assert said.returncode == 0 and f"removed {second_state.name}/" in said.stdout
    assert not second_state.exists() and not tmp_path.exists()


def test_doctor_is_well_while_the_pipeline_runs(pipeline):
    said = run_clicklab("doctor")
    assert said.returncode == 0, said.stdout
    assert os.path.exists(bootstrap.java()) and "sink       ready" in said.stdout
