"""Start anywhere, run anything again: each notebook alone on empty state, each twice, and all in reverse (make test-order)."""

from __future__ import annotations

import pytest
from conftest import run_clicklab

from clicklab import course

pytestmark = pytest.mark.order


def execute(number: str) -> None:
    said = run_clicklab("run", number)
    assert said.returncode == 0, said.stdout[-4000:] + said.stderr[-2000:]


@pytest.mark.parametrize("notebook", course.manifest(), ids=lambda notebook: notebook.number)
def test_a_notebook_runs_alone_on_empty_state_and_again_on_what_it_left(second_state, notebook):
    execute(notebook.number)
    execute(notebook.number)


def test_the_notebooks_run_from_the_last_to_the_first(second_state):
    for notebook in reversed(course.manifest()):
        execute(notebook.number)
