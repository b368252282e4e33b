#!/usr/bin/env python3
"""Draws docs/wan-rtt.svg and docs/wan-loss.svg from what `cargo bench --bench wan -- grid --json FILE` wrote.

    benches/wan/plot.py FILE [DIRECTORY]

Goodput over round trip without loss, and over loss at a round trip of 20 ms: ours and Linux's, both ways.
The plots have no background, and their ink follows the reader's light or dark.
"""

import json
import math
import pathlib
import sys

WIDTH, HEIGHT = 720, 400
LEFT, RIGHT, TOP, BOTTOM = 64, 150, 48, 56
LINE_RATE = 50
LOSS_AT_RTT = 20

STYLE = """
  text { font: 13px system-ui, sans-serif; fill: #333 }
  .title { font-size: 15px; font-weight: 600 }
  .axis { stroke: #888; fill: none } .grid { stroke: #8884; fill: none }
  .tund { stroke: #c2410c; fill: none } .linux { stroke: #2563eb; fill: none }
  .line { stroke-width: 2.5 } .U { stroke-dasharray: 7 4 }
  circle.tund { fill: #c2410c } circle.linux { fill: #2563eb }
  text.tund { fill: #c2410c; stroke: none } text.linux { fill: #2563eb; stroke: none }
  @media (prefers-color-scheme: dark) {
    text { fill: #ddd }
    .tund { stroke: #fb923c } .linux { stroke: #7aa7ff }
    circle.tund { fill: #fb923c } circle.linux { fill: #7aa7ff }
    text.tund { fill: #fb923c } text.linux { fill: #7aa7ff }
  }
"""


def main():
    if len(sys.argv) not in (2, 3):
        sys.exit(__doc__)
    run = json.loads(pathlib.Path(sys.argv[1]).read_text())
    docs = pathlib.Path(__file__).resolve().parents[2] / "docs"
    directory = pathlib.Path(sys.argv[2]) if len(sys.argv) == 3 else docs
    cells = [cell for cell in run["outcomes"] if cell["table"] == "grid" and not cell["reordered"]]
    draw(
        directory / "wan-rtt.svg",
        "Goodput over round trip, no loss",
        "round trip, ms",
        [cell for cell in cells if not cell["loss"]],
        "rtt",
    )
    draw(
        directory / "wan-loss.svg",
        f"Goodput over loss, round trip {LOSS_AT_RTT} ms",
        "lost each way, %",
        [cell for cell in cells if cell["rtt"] == LOSS_AT_RTT],
        "loss",
    )


def draw(file, title, label, cells, key):
    """One plot. The values of `key` stand at equal distances: they grow by factors."""
    places = sorted({cell[key] for cell in cells})
    if len(places) < 2:
        print(f"{file.name}: not drawn, the file has too few cells for it", file=sys.stderr)
        return
    right, bottom = WIDTH - RIGHT, HEIGHT - BOTTOM

    def x(value):
        return LEFT + 20 + (right - LEFT - 40) * places.index(value) / (len(places) - 1)

    def y(rate):
        return bottom - (bottom - TOP) * rate / LINE_RATE

    out = [f'<text class="title" x="{LEFT}" y="26">{title}</text>']
    for rate in range(0, LINE_RATE + 1, 10):
        out.append(f'<path class="grid" d="M{LEFT} {y(rate):.1f}H{right}"/>')
        out.append(f'<text x="{LEFT - 8}" y="{y(rate) + 4:.1f}" text-anchor="end">{rate}</text>')
    for value in places:
        out.append(f'<text x="{x(value):.1f}" y="{bottom + 20}" text-anchor="middle">{value:g}</text>')
    out.append(f'<path class="axis" d="M{LEFT} {TOP}V{bottom}H{right}"/>')
    middle = (LEFT + right) / 2
    out.append(f'<text x="{middle}" y="{HEIGHT - 12}" text-anchor="middle">{label}</text>')
    across = (TOP + bottom) / 2
    turn = f'transform="rotate(-90 20 {across})"'
    out.append(f'<text x="20" y="{across}" text-anchor="middle" {turn}>Mbit/s</text>')

    ends = []
    for stack, name in (("linux", "Linux"), ("tund", "tund")):
        for way, verb in (("D", "sends"), ("U", "receives")):
            points = sorted((cell[key], cell[stack]["median"]) for cell in cells if cell["direction"] == way)
            if not points or any(rate is None or math.isnan(rate) for _, rate in points):
                continue
            places_of = [(x(value), y(rate)) for value, rate in points]
            path = "L".join(f"{at:.1f} {height:.1f}" for at, height in places_of)
            out.append(f'<path class="line {stack} {way}" d="M{path}"/>')
            out += [f'<circle class="{stack}" cx="{at:.1f}" cy="{height:.1f}" r="3.5"/>' for at, height in places_of]
            ends.append([places_of[-1][1], stack, way, f"{name} {verb}"])
    legend(out, ends, right)
    said = f"{title}: tund and Linux, each sending and receiving"
    file.write_text(
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{said}">\n'
        f"<style>{STYLE}</style>\n" + "\n".join(out) + "\n</svg>\n"
    )
    print(file)


def legend(out, ends, right):
    """Names beside the ends of the lines, moved apart where these meet."""
    ends.sort()
    lowest = HEIGHT - BOTTOM
    for before, after in zip(ends, ends[1:]):
        after[0] = max(after[0], before[0] + 18)
    over = max(0, ends[-1][0] - lowest) if ends else 0
    for height, stack, way, text in ends:
        height -= over
        out.append(f'<path class="line {stack} {way}" d="M{right + 4} {height:.1f}h28"/>')
        out.append(f'<text class="{stack}" x="{right + 38}" y="{height + 4:.1f}">{text}</text>')


if __name__ == "__main__":
    main()
