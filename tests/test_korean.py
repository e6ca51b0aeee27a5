"""The notebooks in Korean keep what is not language: code, links, tables and headings of the English they translate."""

from __future__ import annotations

import re
from collections import Counter

import nbformat
import pytest

from clicklab import course, exercises, korean

TRANSLATED = [notebook for notebook in course.manifest() if korean.file_of(notebook).exists()]
FENCE = re.compile(r"^```.*?^```$", re.MULTILINE | re.DOTALL)


def skeleton(text: str) -> dict[str, object]:
    """What a translation may not change: the words are gone, everything else is still there."""
    prose = FENCE.sub("", text)
    return {
        "code blocks": FENCE.findall(text),
        "code spans": Counter(re.findall(r"`[^`\n]+`", prose)),
        "targets of links and images": Counter(re.findall(r"(?:\]\(|(?:href|src)=\")([^)\"\s]+)", prose)),
        "levels of headings": re.findall(r"^(#+) ", prose, re.MULTILINE),
        "cells of each table row": [row.count("|") for row in prose.splitlines() if row.startswith("|")],
        "items of lists": re.findall(r"^ *(-|\d+\.) ", prose, re.MULTILINE),
        "quotes": len(re.findall(r"^> ", prose, re.MULTILINE)),
        "bold terms": len(re.findall(r"\*\*[^*\n]+\*\*", prose)),
        "folds": re.findall(r"</?(?:details|summary)>", prose),
    }


@pytest.mark.parametrize("notebook", TRANSLATED, ids=lambda notebook: notebook.number)
def test_a_translation_keeps_what_is_not_language(notebook):
    translated, english = korean.pieces(notebook), korean.prose(course.cells(notebook))
    pairs = [(text, translated[korean.key(text)]) for text in english if korean.key(text) in translated]
    assert pairs
    assert list(translated) == list(dict.fromkeys(korean.key(text) for text, _ in pairs)), "another order, or out of date"
    for text, words in pairs:
        assert skeleton(words) == skeleton(text), f"cell {korean.key(text)}"
        assert re.search("[가-힣]", words), f"cell {korean.key(text)} is not Korean"
    assert pairs[0][1].splitlines()[0] == f"# {notebook.title_ko}" and f" {notebook.minutes}분. " in pairs[0][1]


def test_no_translation_tells_an_old_lesson_or_another_order():
    assert [line for line in korean.report() if "not translated" not in line] == []


def test_the_korean_course_is_complete():
    assert korean.report() == []


@pytest.mark.parametrize(("change", "told"), [
    (lambda known: known.pop("Right. {}"), "not translated: 'Right. {}'"),
    (lambda known: known.update({"Wrong.": "틀리다."}), "out of date: 'Wrong.'"),
    (lambda known: known.update({"Right. {}": "맞다."}), "other values than in 'Right. {}'"),
], ids=("missing", "old", "values"))
def test_a_message_of_a_checker_without_its_korean_is_named(change, told, monkeypatch):
    known = dict(korean.messages())
    change(known)
    monkeypatch.setattr(korean, "messages", lambda: known)
    assert [line for line in korean.report() if told in line] == korean.report() != []


def test_a_checker_speaks_korean_in_the_korean_lab_and_english_where_the_korean_is_missing(monkeypatch, capsys):
    monkeypatch.delenv("EXERCISES_LANG", raising=False)
    monkeypatch.setenv("SITE_LANG", "ko")
    exercises.gaps(1.5, [])
    assert capsys.readouterr().out.startswith("아직 아니다: 함수가 TypeError 오류로 멈춘다: ")
    monkeypatch.setattr(korean, "messages", dict)
    exercises.gaps(1.5, [])
    assert capsys.readouterr().out.startswith("Not yet: your function stops with TypeError: ")


def test_the_hint_of_an_untouched_exercise_is_korean_on_the_korean_page():
    hint = "Post one and the same click two times, then set event_id to its id."
    cell = nbformat.v4.new_code_cell("...", outputs=[nbformat.v4.new_output("stream", text=f"Not answered yet. {hint}\n")])
    korean.translate(course.manifest()[2], nbformat.v4.new_notebook(cells=[cell]))
    assert cell.outputs[0].text == f"아직 답하지 않았다. {korean.messages()[hint]}\n"


@pytest.fixture
def lab(tmp_path, monkeypatch):
    """The Korean copies as `make lab SITE_LANG=ko` left them before the course changed: number → path."""
    monkeypatch.setenv("SITE_LANG", "ko")
    monkeypatch.setenv("CLICKSTREAM_BUILD", str(tmp_path))
    read = korean.pieces
    monkeypatch.setattr(korean, "pieces", lambda notebook: {digits: f"{text}\n\n옛 글" for digits, text in read(notebook).items()})
    folder = course.lab_folder()
    monkeypatch.setattr(korean, "pieces", read)
    return {notebook.number: folder / notebook.file for notebook in course.manifest()}


def change(path, work):
    content = nbformat.read(path, as_version=4)
    work(content)
    nbformat.write(content, path)


def executed(content):
    content.cells[1].outputs = [nbformat.v4.new_output("stream", text="ran")]
    content.metadata["kernelspec"] = {"name": "python3", "display_name": "other"}


def typed_into(content):
    content.cells[1].source += "\nMINE = 1"


def test_a_korean_copy_is_made_anew_when_the_course_has_changed_unless_somebody_typed_into_it(lab, capsys):
    change(lab["01"], executed)
    change(lab["02"], typed_into)
    lab["03"].unlink()
    lab["04"].write_text("{cut off")
    course.lab_folder()
    told = capsys.readouterr()
    assert "옛 글" not in "".join(lab[number].read_text() for number in ("00", "01", "03", "05"))
    assert "MINE = 1" in lab["02"].read_text() and "옛 글" in lab["02"].read_text() and lab["04"].read_text() == "{cut off"
    assert [line.split()[0] for line in told.err.splitlines()] == [lab["02"].name, lab["04"].name] and told.out == ""


def test_a_korean_copy_of_the_present_course_keeps_what_it_printed_and_what_was_typed(lab, capsys):
    course.lab_folder()
    change(lab["01"], executed)
    change(lab["02"], typed_into)
    before = {number: path.read_bytes() for number, path in lab.items()}
    capsys.readouterr()
    course.lab_folder()
    assert {number: path.read_bytes() for number, path in lab.items()} == before and capsys.readouterr().err == ""
