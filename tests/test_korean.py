"""The notebooks in Korean keep what is not language: code, links, tables and headings of the English they translate."""

from __future__ import annotations

import re
from collections import Counter

import pytest

from clicklab import course, korean

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
