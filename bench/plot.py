"""A small line plot as SVG."""

from html import escape
from math import ceil, log10

WIDTH, HEIGHT, MARGIN = 640, 360, 60
TICKS = 5
COLOURS = ("#767676", "#1a73b8", "#c0504d")


def lines(title: str, x: str, y: str, series: dict[str, list[tuple[float, float]]]) -> str:
    """Lines of points, each series in the order of its points; both axes begin at zero."""
    right = TICKS * step(max(point[0] for points in series.values() for point in points))
    top = TICKS * step(max(point[1] for points in series.values() for point in points))

    def place(point: tuple[float, float]) -> tuple[float, float]:
        across = MARGIN + point[0] / right * (WIDTH - 2 * MARGIN)
        up = HEIGHT - MARGIN - point[1] / top * (HEIGHT - 2 * MARGIN)
        return round(across, 1), round(up, 1)

    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" '
        'font-family="sans-serif" font-size="12">',
        '<rect width="100%" height="100%" fill="white"/>',
        text(WIDTH / 2, 24, title, "middle", size=14),
        text(WIDTH / 2, HEIGHT - 14, x, "middle"),
        text(16, MARGIN - 16, y, "start"),
    ]
    for tick in range(TICKS + 1):
        across, up = place((right * tick / TICKS, top * tick / TICKS))
        parts += [
            f'<path d="M{MARGIN} {up}H{WIDTH - MARGIN}" stroke="#ddd"/>',
            text(across, HEIGHT - MARGIN + 18, f"{right * tick / TICKS:,.0f}", "middle"),
            text(MARGIN - 6, up + 4, f"{top * tick / TICKS:,.0f}", "end"),
        ]
    for (label, points), colour in zip(series.items(), COLOURS, strict=False):
        placed = [place(point) for point in points]
        path = " ".join(f"{across},{up}" for across, up in placed)
        parts.append(f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="2"/>')
        parts += [f'<circle cx="{a}" cy="{u}" r="3" fill="{colour}"/>' for a, u in placed]
        across, up = placed[-1]
        parts.append(text(across + 8, up, label, "start", colour))
    return "\n".join([*parts, "</svg>"]) + "\n"


def step(most: float) -> float:
    """A round distance between ticks, so that TICKS of them reach the maximum."""
    unit = float(10 ** ceil(log10(most / TICKS) - 1))
    return unit * ceil(most / TICKS / unit)


def text(x: float, y: float, words: str, anchor: str, colour: str = "#333", size: int = 12) -> str:
    return (
        f'<text x="{x}" y="{y}" text-anchor="{anchor}" fill="{colour}" '
        f'font-size="{size}">{escape(words)}</text>'
    )
