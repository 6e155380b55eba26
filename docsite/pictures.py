"""`python -m docsite.pictures`: draw what docs/method.md shows, as SVG files in docs/pictures.

Knows shapes and words; knows nothing of pages. Colours have names, which a page may set; alone, a file follows what
its reader prefers, light or dark.
"""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from docsite.sources import DOCS
from prorec_core.artifacts import write_bytes

FOLDER = DOCS / "pictures"
_COLOURS = {
    "ink": ("#1b1f24", "#e6e9ee"),
    "muted": ("#69707a", "#9aa3ae"),
    "line": ("#8d96a1", "#7d8792"),
    "text": ("#2f86c5", "#5aa9e6"),
    "behaviour": ("#d9642b", "#f08a54"),
    "both": ("#7b5ea7", "#a78bd6"),
}
"""Light and dark."""
_FONT = "font-family:system-ui,sans-serif"
_HEAD = 7


def _style() -> str:
    light, dark = ("; ".join(f"--{name}: {of[place]}" for name, of in _COLOURS.items()) for place in (0, 1))
    return f"<style>\nsvg {{ {light} }}\n@media (prefers-color-scheme: dark) {{ svg {{ {dark} }} }}\n</style>"


class Drawing:
    """Boxes, arrows and words on a sheet; `svg` gives them as a file."""

    def __init__(self, width: int, height: int) -> None:
        self.width, self.height = width, height
        self._parts: list[str] = []

    def box(self, x: float, y: float, width: float, height: float, words: str, colour: str = "line") -> None:
        """A rounded box with centred lines of words; a colour other than `line` also tints it."""
        tint = "none" if colour == "line" else f"var(--{colour})"
        self._parts.append(
            f'<rect x="{x:g}" y="{y:g}" width="{width:g}" height="{height:g}" rx="7" '
            f'style="fill:{tint};fill-opacity:.14;stroke:var(--{colour});stroke-width:1.4"/>'
        )
        lines = words.split("\n")
        for place, line in enumerate(lines):
            self.words(x + width / 2, y + height / 2 + 4.5 + 16 * (place - (len(lines) - 1) / 2), line)

    def words(
        self, x: float, y: float, words: str, colour: str = "ink", *, size: float = 13, anchor: str = "middle"
    ) -> None:
        """A line of words; `_X` writes X lower."""
        spans, lowered = [], False
        for part in words.replace("_", "\0_").split("\0"):
            low = part.startswith("_")
            shown = escape(part[1:2] if low else part)
            rest = escape(part[2:]) if low else ""
            shift = '<tspan dy="4" font-size="80%">' if low else '<tspan dy="-4">' if lowered else "<tspan>"
            spans.append(f"{shift}{shown}</tspan>")
            if low and rest:
                spans.append(f'<tspan dy="-4">{rest}</tspan>')
            lowered = low and not rest
        self._parts.append(
            f'<text x="{x:g}" y="{y:g}" text-anchor="{anchor}" '
            f'style="{_FONT};font-size:{size:g}px;fill:var(--{colour})">{"".join(spans)}</text>'
        )

    def line(self, points: Sequence[tuple[float, float]], colour: str = "line", *, dashed: bool = False) -> None:
        """A line through points."""
        path = "M" + " L".join(f"{x:g} {y:g}" for x, y in points)
        dash = ";stroke-dasharray:5 4" if dashed else ""
        self._parts.append(f'<path d="{path}" style="fill:none;stroke:var(--{colour});stroke-width:1.5{dash}"/>')

    def arrow(
        self, points: Sequence[tuple[float, float]], colour: str = "line", *, dashed: bool = False, both: bool = False
    ) -> None:
        """The same with a head at its end, or at both."""
        self.line(points, colour, dashed=dashed)
        self._head(points[-2], points[-1], colour)
        if both:
            self._head(points[1], points[0], colour)

    def dot(self, x: float, y: float, colour: str, radius: float = 5) -> None:
        """A filled circle."""
        self._parts.append(f'<circle cx="{x:g}" cy="{y:g}" r="{radius:g}" style="fill:var(--{colour})"/>')

    def cell(self, x: float, y: float, size: float, colour: str, share: float) -> None:
        """A square, the fuller the larger `share`."""
        self._parts.append(
            f'<rect x="{x:g}" y="{y:g}" width="{size:g}" height="{size:g}" '
            f'style="fill:var(--{colour});fill-opacity:{share:g};stroke:var(--line);stroke-width:.8"/>'
        )

    def svg(self) -> str:
        """The whole as SVG."""
        size = f'viewBox="0 0 {self.width} {self.height}" width="{self.width}" height="{self.height}"'
        return "\n".join([f'<svg xmlns="http://www.w3.org/2000/svg" {size}>', _style(), *self._parts, "</svg>", ""])

    def _head(self, before: tuple[float, float], tip: tuple[float, float], colour: str) -> None:
        dx, dy = tip[0] - before[0], tip[1] - before[1]
        length = (dx * dx + dy * dy) ** 0.5
        ux, uy = dx / length * _HEAD, dy / length * _HEAD
        ends = [(tip[0] - ux + side * uy * 0.55, tip[1] - uy - side * ux * 0.55) for side in (1, -1)]
        points = " ".join(f"{x:.4g},{y:.4g}" for x, y in [tip, *ends])
        self._parts.append(f'<polygon points="{points}" style="fill:var(--{colour})"/>')


def overview() -> str:
    """From interactions and texts to recommendations."""
    sheet = Drawing(900, 330)
    sheet.words(10, 22, "Stage I: one embedding", "muted", anchor="start")
    sheet.box(10, 40, 110, 46, "interactions")
    sheet.arrow([(120, 63), (150, 63)])
    sheet.box(150, 40, 120, 46, "sequential\nmodel")
    sheet.arrow([(270, 63), (420, 63)])
    sheet.box(420, 40, 60, 46, "E_C", "behaviour")
    sheet.box(10, 150, 110, 46, "item texts")
    sheet.arrow([(120, 173), (150, 173)])
    sheet.box(150, 150, 80, 46, "text\nencoder")
    sheet.arrow([(230, 173), (250, 173)])
    sheet.box(250, 150, 50, 46, "E_S", "text")
    sheet.arrow([(300, 173), (320, 173)])
    sheet.box(320, 150, 80, 46, "adapter\n(AdaLN)")
    sheet.arrow([(400, 173), (420, 173)])
    sheet.box(420, 150, 60, 46, "E_T", "text")
    sheet.arrow([(450, 88), (450, 148)], "both", dashed=True, both=True)
    sheet.words(442, 122, "InfoNCE", "both", anchor="end")
    sheet.arrow([(480, 63), (530, 104)])
    sheet.arrow([(480, 173), (530, 132)])
    sheet.box(530, 95, 70, 46, "E_I", "both")
    sheet.arrow([(600, 118), (640, 118)])
    sheet.box(640, 95, 100, 46, "quantizer")
    sheet.arrow([(740, 118), (780, 118)])
    sheet.box(780, 95, 110, 46, "codes\n7 · 0 · 11 · 0", "both")
    sheet.words(10, 244, "Stage II: generate", "muted", anchor="start")
    sheet.box(10, 262, 110, 46, "a history")
    sheet.arrow([(120, 285), (200, 285)])
    sheet.box(200, 262, 110, 46, "generator")
    sheet.arrow([(310, 285), (360, 285)])
    sheet.box(360, 262, 130, 46, "beam search\nover the trie")
    sheet.arrow([(490, 285), (540, 285)])
    sheet.box(540, 262, 130, 46, "ranker")
    sheet.arrow([(670, 285), (720, 285)])
    sheet.box(720, 262, 170, 46, "the next items")
    sheet.arrow([(565, 141), (565, 222), (255, 222), (255, 260)], "both", dashed=True)
    sheet.words(410, 216, "distillation, node scores", "both")
    sheet.arrow([(835, 141), (835, 234), (425, 234), (425, 260)])
    return sheet.svg()


def alignment() -> str:
    """The adapter, and what InfoNCE pulls together."""
    sheet = Drawing(900, 250)
    sheet.words(10, 22, "The adapter", "muted", anchor="start")
    sheet.box(10, 96, 56, 46, "E_S", "text")
    for y, words in ((40, "E_S W + b"), (96, "scale, from 1"), (152, "shift, from 0")):
        sheet.arrow([(66, 119), (100, y + 23)])
        sheet.box(100, y, 120, 46, words)
    sheet.arrow([(220, 63), (250, 63)])
    sheet.box(250, 40, 100, 46, "layer norm")
    sheet.arrow([(350, 63), (392, 107)])
    sheet.arrow([(220, 119), (388, 119)])
    sheet.arrow([(220, 175), (392, 131)])
    sheet.words(400, 124, "⊙ +", size=15)
    sheet.arrow([(416, 119), (440, 119)])
    sheet.box(440, 96, 56, 46, "E_T", "text")
    sheet.words(560, 22, "Alignment, over the items of a batch", "muted", anchor="start")
    size, left, top = 34, 610, 56
    for row in range(4):
        for column in range(4):
            shade = 0.85 if row == column else 0.06 + 0.05 * ((row * 3 + column * 5) % 3)
            sheet.cell(left + size * column, top + size * row, size, "both", shade)
        sheet.words(left - 12, top + size * row + 22, f"item {row + 1}", "text", size=12, anchor="end")
        sheet.words(left + size * row + size / 2, top - 8, str(row + 1), "behaviour", size=12)
    sheet.words(left + 2 * size, top + 4 * size + 24, "cosine of E_T (rows) and E_C (columns) / τ", size=12)
    sheet.words(left + 4 * size + 16, top + 60, "up on the diagonal,", "muted", size=12, anchor="start")
    sheet.words(left + 4 * size + 16, top + 78, "down beside it", "muted", size=12, anchor="start")
    return sheet.svg()


def quantization() -> str:
    """What an embedding is the sum of, and the codes that name the parts."""
    sheet = Drawing(900, 250)
    start, first, second, third, item = (40, 210), (230, 90), (350, 120), (385, 78), (398, 70)
    others = [(120, 60), (300, 200), (170, 170), (420, 190)]
    for x, y in others:
        sheet.dot(x, y, "line", 4)
    for begin, end, words, dx, dy in (
        (start, first, "code 0 = 7", -44, -6),
        (first, second, "code 1 = 0", 8, -12),
        (second, third, "code 2 = 11", 74, 6),
    ):
        sheet.arrow([begin, end], "both")
        sheet.words((begin[0] + end[0]) / 2 + dx, (begin[1] + end[1]) / 2 + dy, words, "both", size=12)
    sheet.line([third, item], "muted", dashed=True)
    sheet.dot(*item, "ink", 5)
    sheet.words(item[0] + 10, item[1] - 8, "E_I of an item; what is left is lost", "ink", size=12, anchor="start")
    sheet.words(start[0], start[1] + 22, "0", "muted", size=12)
    sheet.words(640, 30, "The code table", "muted", anchor="start")
    rows = (("window box", "7 · 0 · 11 · 0"), ("grow bag", "7 · 0 · 11 · 1"), ("baking mat", "7 · 9 · 10 · 0"))
    for place, (name, codes) in enumerate(rows):
        y = 66 + 34 * place
        sheet.words(640, y, name, anchor="start")
        sheet.words(880, y, codes, "both", anchor="end")
        sheet.line([(640, y + 10), (880, y + 10)])
    sheet.words(640, 186, "The last code tells apart", "muted", size=12, anchor="start")
    sheet.words(640, 203, "what shares all others.", "muted", size=12, anchor="start")
    return sheet.svg()


def search() -> str:
    """Beams on the trie of codes: only what exists, and only what the user lacks."""
    sheet = Drawing(900, 300)
    root = (60, 150)
    level_0 = [(240, 60), (240, 150), (240, 240)]
    level_1 = [[(450, 35), (450, 85)], [(450, 125), (450, 175)], [(450, 240)]]
    kept = {(0, 0), (1, 0)}
    for top, node in enumerate(level_0):
        beam = top < 2
        sheet.line([root, node], "both" if beam else "line", dashed=not beam)
        sheet.dot(*node, "both" if beam else "line")
        for below, child in enumerate(level_1[top]):
            inside = (top, below) in kept
            sheet.line([node, child], "both" if inside else "line", dashed=not inside)
            sheet.dot(*child, "both" if inside else "line")
    sheet.dot(*root, "ink")
    for (x, y), words in zip(level_0, ("7   −0.4", "2   −1.3", "5   −4.1"), strict=True):
        sheet.words(x - 4, y - 12, words, size=12)
    for children, labels in zip(level_1, (("0   −0.9", "9"), ("4   −1.5", "1   −5.0"), ("3   −4.2",)), strict=True):
        for (x, y), words in zip(children, labels, strict=True):
            sheet.words(x - 2, y - 10, words, size=12)
    had_already = "already in the history"
    items = (
        ((0, 0), 35, "window box", "−1.1"),
        ((0, 1), 85, "baking mat", had_already),
        ((1, 0), 125, "cake tin", "−1.8"),
    )
    for (top, below), y, name, told in items:
        had = told == had_already
        sheet.arrow([level_1[top][below], (640, y)], "line" if had else "both", dashed=had)
        sheet.words(652, y + 5, name, "muted" if had else "ink", anchor="start")
        sheet.words(760, y + 5, told, "muted" if had else "both", size=12, anchor="start")
    sheet.words(60, 180, "history", "muted", size=12)
    for x, words in ((240, "code 0"), (450, "code 1"), (680, "items")):
        sheet.words(x, 290, words, "muted", size=12)
    return sheet.svg()


PICTURES = {"overview": overview, "alignment": alignment, "quantization": quantization, "search": search}


def main() -> None:
    """Write all of them."""
    for name, draw in PICTURES.items():
        write_bytes(FOLDER / f"{name}.svg", draw().encode())


if __name__ == "__main__":
    main()
