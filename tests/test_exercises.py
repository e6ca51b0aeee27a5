"""The checkers of the exercises and what no learner should ever give them. Right and wrong answers are in test_pipeline.py."""

from __future__ import annotations

import threading

import pytest

from clicklab import exercises

# Four page views of four events each, as a visit leaves them.
VISIT = [{"page_view_id": view, "seq": seq, "event_id": f"{view}{seq}"} for view in "abcd" for seq in range(4)]


def fails(*given):
    raise ValueError("of the learner")


SILLY = {"None": None, "text": "abc", "a fraction": 1.5, "empty": {}, "bytes": b"x", "raises": fails, "takes nothing": lambda: 1,
         "gives text": lambda *given: "abc", "gives None": lambda *given: [1, None]}


@pytest.mark.parametrize("answer", SILLY.values(), ids=SILLY)
@pytest.mark.parametrize(("checker", "given"), [
    (exercises.gaps, (VISIT,)), (exercises.key_of_a_session, ([], "no-topic")), (exercises.script_on_one_line, ()),
    (exercises.half_a_pixel, ("nowhere",)), (exercises.seq_of_leaving, ("nowhere",)), (exercises.what_connect_refuses, ({},)),
], ids=lambda value: getattr(value, "__name__", ""))
def test_an_answer_of_a_wrong_kind_is_refused_in_words_before_any_server_is_asked(checker, given, answer, capsys):
    checker(answer, *given)
    said = capsys.readouterr().out
    assert said.startswith("Not yet: ") and "could not be judged" not in said


def test_losses_are_counted_by_page_view_without_repeats_and_in_any_order(capsys):
    def lost(events):
        seen = {}
        for event in events:
            seen.setdefault(event["page_view_id"], set()).add(event["seq"])
        return sum(max(numbers) + 1 - len(numbers) for numbers in seen.values())

    def lost_but_repeats_count(events):
        return lost(events) - (len(events) - len({event["event_id"] for event in events}))

    exercises.gaps(lost, VISIT)
    exercises.gaps(lost_but_repeats_count, VISIT)
    right, wrong = capsys.readouterr().out.splitlines()
    assert right.startswith("Right. It says 0 ") and "all 6 events" in right
    assert wrong.startswith("Not yet: ") and "sent again" in wrong


def test_a_function_that_never_ends_is_ended_in_words(monkeypatch):
    monkeypatch.setattr(exercises, "PATIENCE_S", 0.05)
    ended = threading.Event()
    made, reason = exercises._tried(exercises._in_time(lambda: ended.wait()))
    ended.set()
    assert made is None and "has not ended" in reason


def test_a_checker_that_cannot_judge_says_so_and_does_not_raise(capsys):
    exercises.gaps(lambda events: 0, [{"no": "event"}])
    assert capsys.readouterr().out.startswith("Not yet: this could not be judged. KeyError")
