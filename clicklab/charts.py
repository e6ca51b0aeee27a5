"""One look for all figures: fonts, sizes and colors in one place, and words for those who cannot see them."""

from __future__ import annotations

import base64
import contextlib
import io
import logging
from collections.abc import Iterator
from html import escape
from pathlib import Path

import matplotlib
import matplotlib.pyplot as plt
from cycler import cycler
from IPython.display import HTML, display
from matplotlib import font_manager
from matplotlib.figure import Figure
from matplotlib.patches import FancyBboxPatch

# Okabe and Ito's colors: told apart by color-blind readers too.
BLUE, ORANGE, GREEN, YELLOW, SKY, PINK = "#0072B2", "#D55E00", "#009E73", "#E69F00", "#56B4E9", "#CC79A7"
# The first of these that the machine has: titles of Korean pages need a font with Hangul.
HANGUL_FONTS = ("NanumGothic", "Noto Sans CJK KR", "Apple SD Gothic Neo", "Malgun Gothic", "NanumBarunGothic")
HOPS = ("blog", "collector", "Kafka", "Connect", "HDFS", "pandas")


def hangul_font() -> str | None:
    """A font of this machine that has Hangul, None without one (its letters are then boxes, and a note says so)."""
    present = {font.name for font in font_manager.fontManager.ttflist}
    return next((name for name in HANGUL_FONTS if name in present), None)


@contextlib.contextmanager
def style() -> Iterator[None]:
    """The look of the course's figures, for the block: `with charts.style(): fig, ax = plt.subplots()`."""
    font = hangul_font()
    # It says on stderr that a Hangul font calls its bold 600: nothing a reader can do about.
    logging.getLogger("matplotlib.font_manager").setLevel(logging.ERROR)
    with matplotlib.rc_context({
        "figure.figsize": (8, 3.6), "figure.dpi": 110, "figure.constrained_layout.use": True,
        "font.family": ([font] if font else []) + ["DejaVu Sans"], "font.size": 10,
        "axes.titlesize": 12, "axes.titlelocation": "left", "axes.titleweight": "bold",
        "axes.spines.top": False, "axes.spines.right": False, "axes.grid": True, "axes.axisbelow": True,
        "grid.color": "#dddddd", "axes.prop_cycle": cycler(color=[BLUE, ORANGE, GREEN, YELLOW, SKY, PINK]),
        "axes.unicode_minus": False, "svg.fonttype": "path",
    }):
        yield


def show(fig: Figure, alt: str, save: Path | str | None = None) -> None:
    """Show a figure with a sentence that carries the same fact for who cannot see it, then close it.

    Parameters
    ----------
    alt : str
        What the figure says, in words and numbers; read aloud by screen readers, and printed under the picture.
    save : path
        A PNG file to write too.
    """
    buffer = io.BytesIO()
    fig.savefig(buffer, format="png", dpi=110)
    if save:
        Path(save).parent.mkdir(parents=True, exist_ok=True)
        Path(save).write_bytes(buffer.getvalue())
    plt.close(fig)
    data = base64.b64encode(buffer.getvalue()).decode()
    display(HTML(f'<figure style="margin:0"><img alt="{escape(alt, quote=True)}" style="max-width:100%" '
                 f'src="data:image/png;base64,{data}"><figcaption>{escape(alt)}</figcaption></figure>'))


def pipeline(lit: str, counts: dict[str, int] | None = None) -> Figure:
    """Draw the pipeline with one hop lit, and the clicks counted at each hop when they are known.

    Parameters
    ----------
    lit : str
        One of `charts.HOPS`, or "" for none.
    counts : dict
        Hop → clicks counted there.
    """
    with style():
        fig, ax = plt.subplots(figsize=(8, 1.3))
        ax.set_axis_off()
        ax.set(xlim=(-0.1, len(HOPS) - 0.1), ylim=(-0.15 if counts else 0.15, 0.85))
        for number, hop in enumerate(HOPS):
            is_lit = hop == lit
            ax.add_patch(FancyBboxPatch((number, 0.25), 0.72, 0.5, boxstyle="round,pad=0.02", linewidth=2.4 if is_lit else 1,
                                        facecolor=YELLOW if is_lit else "white", edgecolor="black" if is_lit else "#777777"))
            ax.text(number + 0.36, 0.5, hop, ha="center", va="center", fontsize=11, weight="bold" if is_lit else "normal")
            if number + 1 < len(HOPS):
                ax.annotate("", (number + 0.98, 0.5), (number + 0.74, 0.5),
                            arrowprops={"arrowstyle": "->", "color": "#777777"})
            if counts and hop in counts:
                ax.text(number + 0.36, 0.05, f"{counts[hop]:,}", ha="center", va="center", fontsize=10)
    return fig
