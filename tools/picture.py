"""
Draws what a terminal shows as an SVG, for the README: `changeover demo --for 30 \
< /dev/null | python tools/picture.py > x.svg`.

Words of state get their colour; everything else is drawn as it was printed.
"""

from __future__ import annotations

import re
import sys
from html import escape
from textwrap import wrap

COLUMNS_MAX = 118
FONT_PX, LINE_PX, CHARACTER_PX = 13, 19, 7.83
COLOURS = {"red": "#ff6b6b", "orange": "#ffa94d", "yellow": "#ffe066", "ok": "#69db7c", "proven": "#69db7c"}
KEEP = {"replace_whitespace": False, "drop_whitespace": False, "subsequent_indent": "  "}
STATE = re.compile(r"\b(red|orange|yellow|ok|proven)\b")


def coloured(line: str) -> str:
    """Return one line as SVG text with its words of state coloured."""
    parts: list[str] = []
    for index, word in enumerate(STATE.split(line)):
        text = escape(word).replace(" ", "\u00a0")
        parts.append(f'<tspan fill="{COLOURS[word]}">{text}</tspan>' if index % 2 else text)
    return "".join(parts)


def picture(lines: list[str]) -> str:
    """Return an SVG of *lines*."""
    width = int(min(COLUMNS_MAX, max(map(len, lines))) * CHARACTER_PX) + 32
    height = len(lines) * LINE_PX + 48
    rows = "\n".join(
        f'<text xml:space="preserve" x="16" y="{40 + number * LINE_PX}">{coloured(line[:COLUMNS_MAX])}</text>'
        for number, line in enumerate(lines)
    )
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" viewBox="0 0 {width} {height}">\n'
        f'<rect width="{width}" height="{height}" rx="8" fill="#1b1f27"/>\n'
        '<circle cx="18" cy="14" r="5" fill="#ff6b6b"/><circle cx="34" cy="14" r="5" fill="#ffe066"/>'
        '<circle cx="50" cy="14" r="5" fill="#69db7c"/>\n'
        f'<g font-family="DejaVu Sans Mono, Menlo, Consolas, monospace" font-size="{FONT_PX}" fill="#d6dbe4">\n'
        f"{rows}\n</g>\n</svg>\n"
    )


if __name__ == "__main__":
    shown = [part for line in sys.stdin if line.strip() for part in wrap(line.rstrip(), COLUMNS_MAX, **KEEP)]
    sys.stdout.write(picture(shown))
