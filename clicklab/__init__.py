"""What the notebooks use but do not teach: starting servers, waiting for them, counting clicks, drawing."""


class Trouble(Exception):
    """Something a person has to know about: what happened, why, and the next command to try.

    Parameters
    ----------
    what : str
        What did not work, in one line.
    why : str
        The cause, as far as it is known; may have several lines.
    next : str
        The command to try next.
    """

    def __init__(self, what: str, why: str = "", next: str = ""):
        super().__init__(what)
        self.what, self.why, self.next = what, why, next

    def __str__(self) -> str:
        lines = [self.what]
        if self.why:
            lines.append(f"Why:  {self.why}")
        if self.next:
            lines.append(f"Next: {self.next}")
        return "\n".join(lines)

    def _render_traceback_(self) -> list[str]:
        # IPython shows this instead of a stack trace, which would bury the message in a notebook.
        return [f"{type(self).__name__}: {self}"]


class Missing(Trouble):
    """A program that has to be on this machine is not: what needs it cannot be executed here."""
