"""Judge the exercises of the notebooks in words: what is right, what is not yet, and where to look again.

A checker takes what the learner made, and what it needs to know from the notebook. It prints, and never raises: a notebook whose
exercises are untouched runs to its end.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any


def _say(answer: Any, hint: str, reason: str | None, right: str) -> None:
    """Print the judgment: the hint for an untouched exercise, the reason of a wrong answer, or what the right one shows."""
    if answer is ...:
        print(f"Not answered yet. {hint}")
    elif reason:
        print(f"Not yet: {reason}")
    else:
        print(f"Right. {right}")


def _tried(function: Callable[..., Any], *given: Any) -> tuple[Any, str | None]:
    """What a learner's function returns; or `...` when it is untouched; or the reason in words when it fails."""
    try:
        made = function(*given)
    except Exception as error:
        return None, f"your function stops with {type(error).__name__}: {error}"
    return (..., None) if made is None else (made, None)
