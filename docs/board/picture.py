#!/usr/bin/env python3
"""Run a program on a terminal of its own and take pictures of its screen, as SVG.

usage: picture.py COLUMNSxROWS WHEN=FILE.svg ... -- COMMAND [ARGUMENT ...]

A picture is taken once WHEN, a regular expression, is found in the text of the screen and has been
for SETTLE seconds. After the last one the program is sent `q` and has to end. FILE.txt beside it
gets the text alone. Python's standard library is all that it needs.

What is understood is what full-screen programs write through crossterm: cursor positions, erasing,
the alternate screen, and the attributes bold, dim, reversed, and the sixteen colours.
"""
import codecs
import fcntl
import os
import pty
import re
import select
import signal
import struct
import sys
import termios
import time
import xml.sax.saxutils

SETTLE = 1.5  # seconds that a text has to be on the screen
PATIENCE = 240  # seconds until a text has to appear, and until the program has to end
CELL = (8.4, 18)  # width and height of a character, in pixels of the picture
FONT = "ui-monospace, 'SF Mono', Menlo, Consolas, 'DejaVu Sans Mono', monospace"
PAPER, INK, FAINT = "#0d1117", "#d7dde4", "#7d8590"
COLORS = ["#484f58", "#ff7b72", "#56d364", "#e3b341", "#79c0ff", "#d2a8ff", "#56d4dd", "#d7dde4"]
SEQUENCE = re.compile(r"\x1b(?:\[([?<=>]?)([\d;]*)([@-~])|[()].|[@-Z\\-_=>78])")
PLAIN = (None, None, False, False, False)  # foreground, background, bold, dim, reversed


class Screen:
    """A grid of (character, style), driven by what a program writes."""

    def __init__(self, columns, rows):
        self.columns, self.rows = columns, rows
        self.style, self.alternate = PLAIN, False
        self.rest = ""
        self.clear()

    def clear(self):
        self.cells = [[(" ", PLAIN)] * self.columns for _ in range(self.rows)]
        self.x = self.y = 0

    def feed(self, text):
        text, self.rest = self.rest + text, ""
        while text:
            if text[0] != "\x1b":
                self.put(text[0])
                text = text[1:]
                continue
            found = SEQUENCE.match(text)
            if found is None:
                if len(text) < 32:  # the end of a sequence that is still to come
                    self.rest = text
                    return
                raise ValueError(f"not understood: {text[:32]!r}")
            if found.group(3):
                self.control(*found.groups())
            text = text[found.end():]

    def put(self, character):
        if character == "\r":
            self.x = 0
        elif character == "\n":
            self.y = min(self.y + 1, self.rows - 1)
        elif character >= " ":
            if self.x < self.columns:
                self.cells[self.y][self.x] = (character, self.style)
            self.x += 1

    def control(self, private, numbers, final):
        values = [int(number or 0) for number in numbers.split(";")]
        if private:
            if private == "?" and values == [1049]:
                self.alternate = final == "h"
                self.clear()
            return  # cursor, keys, mouse: not to be seen
        if final == "H":
            row, column = (values + [1, 1])[:2] if numbers else (1, 1)
            self.y = min(max(row, 1), self.rows) - 1
            self.x = min(max(column, 1), self.columns) - 1
        elif final == "J":
            if values[0] != 2:
                raise ValueError(f"erasing is understood for the whole screen only: {numbers}J")
            at = self.x, self.y
            self.clear()
            self.x, self.y = at
        elif final == "m":
            self.attributes(values)
        elif final not in "nct":  # questions to the terminal
            raise ValueError(f"not understood: {numbers}{final}")

    def attributes(self, values):
        fore, back, bold, dim, reverse = self.style
        while values:
            value = values.pop(0)
            if value == 0:
                fore, back, bold, dim, reverse = PLAIN
            elif value in (1, 2, 7):
                bold, dim, reverse = bold or value == 1, dim or value == 2, reverse or value == 7
            elif value == 22:
                bold = dim = False
            elif value == 27:
                reverse = False
            elif value in (38, 48):
                color = COLORS[values[1] % 8] if values[0] == 5 else None
                fore, back = (color, back) if value == 38 else (fore, color)
                del values[:2]
            elif 30 <= value <= 37:
                fore = COLORS[value - 30]
            elif value == 39:
                fore = None
            elif value == 49:
                back = None
            elif value != 59:  # the default colour of lines under the text
                raise ValueError(f"attribute not understood: {value}")
        self.style = fore, back, bold, dim, reverse

    def text(self):
        return "\n".join("".join(c for c, _ in row).rstrip() for row in self.cells) + "\n"


def number(value):
    return f"{value:.2f}".rstrip("0").rstrip(".")


def rectangle(x, y, width, height, color, opacity=None):
    shade = "" if opacity is None else f' opacity="{opacity}"'
    return (f'<rect x="{number(x)}" y="{number(y)}" width="{number(width)}" '
            f'height="{number(height)}" fill="{color}"{shade}/>')


def block(character, length, x, y, color):
    """A run of characters that are drawn and not written, so that no font has to fit; or None."""
    width, height = CELL
    wide = width * length
    if "▁" <= character <= "█":
        part = height * (ord(character) - ord("▁") + 1) / 8
        return rectangle(x, y + height - part, wide, part, color)
    if character == "░":
        return rectangle(x, y + height * 0.12, wide, height * 0.76, color, 0.3)
    if character == "─":
        return rectangle(x, y + height / 2, wide, 1, color, 0.6)
    if character == "┃":
        return "".join(rectangle(x + width * (i + 0.35), y - 2, width * 0.3, height + 4, color)
                       for i in range(length))
    return None


def runs(row):
    """(column, text, style) of neighbours that look alike; what is drawn stands alone."""
    start = 0
    for column in range(1, len(row) + 1):
        before = row[column - 1]
        if column < len(row) and row[column][1] == before[1]:
            drawn = {row[column][0], before[0]} & set("▁▂▃▄▅▆▇█░─┃")
            if not drawn or row[column][0] == before[0]:
                continue
        yield start, "".join(c for c, _ in row[start:column]), before[1]
        start = column


def picture(screen):
    width, height = CELL
    margin = 14
    wide, high = screen.columns * width + 2 * margin, screen.rows * height + 2 * margin
    out = [f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {number(wide)} {number(high)}" '
           f'width="{number(wide)}" height="{number(high)}" font-family="{FONT}" '
           f'font-size="14">',
           f'<rect width="100%" height="100%" rx="8" fill="{PAPER}"/>']
    for line, row in enumerate(screen.cells):
        y = margin + line * height
        for column, text, (fore, back, bold, dim, reverse) in runs(row):
            x, wide = margin + column * width, width * len(text)
            ink, paper = fore or (FAINT if dim else INK), back
            if reverse:
                ink, paper = paper or PAPER, ink
            if paper:
                out.append(rectangle(x, y, wide, height, paper))
            drawn = block(text[0], len(text), x, y, ink)
            if drawn:
                out.append(drawn)
                continue
            weight = ' font-weight="bold"' if bold else ""
            # Each group of words stands at its own column, whatever the font's width is.
            for words in re.finditer(r"\S+(?: \S+)*", text):
                at, long = x + words.start() * width, len(words.group()) * width
                out.append(f'<text x="{number(at)}" y="{number(y + height * 0.76)}" fill="{ink}" '
                           f'textLength="{number(long)}"{weight}>'
                           f'{xml.sax.saxutils.escape(words.group())}</text>')
    return "\n".join(out + ["</svg>", ""])


def start(columns, rows, command):
    """Starts the program; its process id, and the other end of its terminal."""
    child, terminal = pty.fork()
    if child == 0:
        os.environ["TERM"] = "xterm-256color"
        fcntl.ioctl(0, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
        os.execvp(command[0], command)
    return child, terminal


def run(columns, rows, wanted, command):
    """Runs `command` and takes the pictures; its exit code."""
    screen, decoder = Screen(columns, rows), codecs.getincrementaldecoder("utf-8")()
    child, terminal = start(columns, rows, command)
    asked, seen, deadline = False, None, time.monotonic() + PATIENCE
    while True:
        now = time.monotonic()
        if now > deadline:
            os.kill(child, signal.SIGTERM)
            os.waitpid(child, 0)
            sys.exit(f"not within {PATIENCE} s: {wanted or 'its end'}\n{screen.text()}")
        if select.select([terminal], [], [], 0.1)[0]:
            try:
                written = os.read(terminal, 65536)
            except OSError:  # the program has closed its end
                break
            if not written:
                break
            screen.feed(decoder.decode(written))
        if wanted and re.search(wanted[0][0], screen.text()):
            seen = seen or now
            if now - seen >= SETTLE:
                take(screen, wanted.pop(0)[1])
                seen, deadline = None, now + PATIENCE
        if not wanted and not asked:
            os.write(terminal, b"q")
            asked = True
    if wanted:
        sys.exit(f"it ended before {wanted[0][0]!r} was seen:\n{screen.text()}")
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def take(screen, path):
    for name, content in ((path, picture(screen)), (path[:-4] + ".txt", screen.text())):
        with open(name, "w", encoding="utf-8") as file:
            file.write(content)


def main(arguments):
    if "--" not in arguments or len(arguments) < 4:
        sys.exit(__doc__)
    cut = arguments.index("--")
    columns, rows = (int(size) for size in arguments[0].split("x"))
    wanted = [tuple(pair.rsplit("=", 1)) for pair in arguments[1:cut]]
    return run(columns, rows, wanted, arguments[cut + 1:])


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
