"""The front page: what it names is there, what is generated is what it is generated from."""

from __future__ import annotations

import base64
import json
import re

import pytest

from clicklab import Trouble, course, korean, readme

ROOT = readme.README.parent
PAGES = ["README.md", "README.ko.md", "CONTRIBUTING.md", "CHANGELOG.md"]


def text(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


def test_the_table_of_notebooks_is_what_the_manifest_gives():
    readme.update(check=True)
    for notebook in course.manifest():
        assert f"[{notebook.number} {notebook.title}](notebooks/{notebook.file}) | {notebook.gets} |" in text("README.md")
        assert f"[{notebook.number} {notebook.title_ko}](notebooks/{notebook.file}) | {notebook.gets_ko} |" in text("README.ko.md")


def test_the_minutes_stated_are_those_of_reading_and_of_the_last_run():
    assert {notebook.number: notebook.minutes for notebook in course.manifest()} == {
        notebook.number: readme.minutes(notebook) for notebook in course.manifest()}


def test_the_korean_page_shows_the_same_commands_and_leads_to_the_same_places():
    def commands(page):
        return set(re.findall(r"\b(?:make [a-z-]+|python -m clicklab [a-z-]+|install\.sh)", text(page)))

    def places(page):
        return {place for place in re.findall(r"\]\(([^)\s]+)\)", text(page)) if not place.startswith("README")}

    assert commands("README.ko.md") == commands("README.md")
    assert places("README.ko.md") == places("README.md")


def test_another_manifest_is_noticed_with_the_next_command(monkeypatch):
    monkeypatch.setattr(course, "manifest", lambda: [course.Notebook("00_other.ipynb", "Other", "nothing", 1)])
    with pytest.raises(Trouble, match="make readme"):
        readme.update(check=True)


@pytest.mark.parametrize("page", PAGES)
def test_every_relative_link_and_image_is_there(page):
    links = re.findall(r"\]\(([^)\s]+)\)", text(page)) + re.findall(r'(?:src|href)="([^"]+)"', text(page))
    missing = [link for link in links if not re.match(r"https?:|#|mailto:", link) and not (ROOT / link.split("#")[0]).exists()]
    assert links or page == "CHANGELOG.md"
    assert not missing


def test_every_image_says_in_words_what_it_shows():
    images = re.findall(r"!\[([^]]*)\]\(", text("README.md")) + re.findall(r'<img [^>]*alt="([^"]*)"', text("README.md"))
    assert len(images) > len(course.manifest())
    assert all(len(words) > 20 for words in images)


@pytest.mark.parametrize("page", PAGES)
def test_every_make_target_named_exists(page):
    commands = "\n".join(re.findall(r"```.*?\n(.*?)```", text(page), re.DOTALL) + re.findall(r"`([^`\n]+)`", text(page)))
    named = set(re.findall(r"\bmake ([a-z][a-z-]*)", commands))
    assert named or page == "CHANGELOG.md"
    assert named <= set(re.findall(r"^([a-z][a-z-]*):", text("Makefile"), re.MULTILINE))


def test_every_file_named_in_code_marks_is_there():
    named = re.findall(r"`((?:blog_snippet|compose|notebooks|clicklab|tests|lambda_src|connect_configs)/[\w./-]+)`",
                       text("README.md") + text("CONTRIBUTING.md"))
    assert [name for name in named if not (ROOT / name).exists()] == []


def test_every_message_of_the_table_of_symptoms_is_one_the_code_gives():
    code = "\n".join(path.read_text() for path in (ROOT / "clicklab").glob("*.py"))
    rows = text("README.md").split("| what you read | what to do |")[1].split("\n\n")[0].splitlines()[2:]
    messages = [re.findall(r"`([^`]+)`", row.split("|")[1])[0] for row in rows]
    assert len(messages) > 5
    for message in messages:
        for part in message.split("…"):
            assert message.startswith("make ") or part.strip() in code, f"nothing says {message!r} any more"


def test_the_measures_say_on_which_machine():
    measured = readme.block(text("README.md"), "measured")
    assert re.search(r"All usable [\d.]+ s after `make up`", measured) and re.search(r"on \d+ cores, \d+ GB", measured)


def test_the_memory_that_is_asked_for_is_stated_everywhere_and_covers_the_servers_after_the_course():
    needed_mb = int(re.search(r"^MEMORY_NEEDED_MB=(\d+)$", text("compose/defaults.env"), re.MULTILINE)[1])
    held_mb = sum(map(int, re.findall(r"^\| \w+ \| (\d+) MB \|", readme.block(text("README.md"), "measured"), re.MULTILINE)))
    assert 0 < held_mb <= needed_mb
    contracts = {notebook.number: korean.prose(course.cells(notebook))[0] for notebook in course.manifest()}
    places = [line for page in ("README.md", "README.ko.md") for line in text(page).splitlines() if "`Too little memory" in line]
    for notebook in course.manifest():
        for words in (contracts[notebook.number], korean.pieces(notebook)[korean.key(contracts[notebook.number])]):
            places += re.findall(r"[\d.]+ GB of memory|메모리 [\d.]+ GB", words)
    assert len(places) == 6 and all(f"{needed_mb / 1000:.1f} GB" in place for place in places), places


def test_both_licenses_are_whole():
    assert "Version 2.0, January 2004" in text("LICENSE") and "END OF TERMS AND CONDITIONS" in text("LICENSE")
    prose = text("LICENSE-prose")
    assert all(f"Section {number} -- " in prose for number in range(1, 9))


def executed(folder, *outputs):
    cells = [{"cell_type": "code", "outputs": [{"data": {"text/html": [html]}}]} for html in outputs]
    path = folder / "04_land_the_clicks.ipynb"
    path.write_text(json.dumps({"cells": [{"cell_type": "markdown"}, *cells]}))
    return path


def image(alt, png=b"png"):
    return f'<figure><img alt="{alt}" src="data:image/png;base64,{base64.b64encode(png).decode()}"></figure>'


def test_the_last_figure_that_is_not_the_pipeline_stands_for_a_notebook(tmp_path):
    path = executed(tmp_path, image("The pipeline; Connect is lit."), image("First bars", b"1"),
                    image("Delays &lt; 10 s", b"2"), image("The pipeline with counts"), "<table></table>")
    found = readme.figures_of(path)
    assert len(found) == 4
    assert readme.choose(found) == readme.Figure("Delays < 10 s", b"2")
    assert readme.choose(found[:1]).alt.startswith("The pipeline")


def test_figures_and_table_are_written_from_executed_notebooks(tmp_path, monkeypatch):
    page = tmp_path / "README.md"
    page.write_text("# T\n<!-- notebooks:begin -->\nExecuted in one go before.\n<!-- notebooks:end -->\n"
                    "<!-- measured:begin -->\nkept\n<!-- measured:end -->\n")
    monkeypatch.setattr(readme, "README", page)
    monkeypatch.setattr(readme, "KOREAN", tmp_path / "README.ko.md")
    readme.KOREAN.write_text(page.read_text())
    monkeypatch.setattr(readme, "DOCS", tmp_path / "docs")
    monkeypatch.setattr(readme, "WORDS", tmp_path / "docs" / "figures.json")
    monkeypatch.setattr(readme, "is_measurable", lambda: False)
    monkeypatch.setattr(course, "build_folder", lambda: tmp_path)
    with pytest.raises(Trouble, match="make run"):
        readme.figures()
    executed(tmp_path, image("Delays, one | two", b"2"))
    readme.figures()
    assert (tmp_path / "docs" / "04.png").read_bytes() == b"2"
    assert (tmp_path / "docs" / "pipeline.png").stat().st_size > 1000
    assert 'alt="Delays, one &#124; two"' in page.read_text()
    assert "Executed in one go before." in page.read_text() and "kept" in page.read_text()
    once = page.read_text()
    readme.update()
    readme.update(check=True)
    assert page.read_text() == once
    (tmp_path / "run.json").write_text(json.dumps({"at": "2026-01-02 03:04:05+0000", "notebooks": {
        notebook.number: {"state": "passed", "seconds": 2.4} for notebook in course.manifest()}}))
    readme.update()
    assert "Executed in one go on 2026-01-02" in page.read_text() and "04 2 s" in page.read_text()
    assert "2026-01-02에 한 번에 실행" in readme.KOREAN.read_text()
