"""The colours of charts: for light and dark, for print and for colour-blind people.

    style(with_dark=True)      # CSS for the classes s0 ... s5, track, whisker, small ...

Each colour has a contrast of at least 3 to its background. Any two are at least 15 apart in CIELAB, also as people see
them who lack one of the three kinds of cones; a test computes it.
"""

from __future__ import annotations

BACK = "back"
# Of series: blue, orange, green, purple, brown or yellow, grey.
LIGHT = ("#047ddf", "#df761d", "#08583c", "#91137e", "#68500f", "#8c8b8b")
DARK = ("#2f8df5", "#ee6a1f", "#b4f5da", "#e77fdc", "#ffe27a", "#827b7b")
LIGHT_INK = {"back": "#ffffff", "text": "#1c1d1f", "soft": "#5d6269", "track": "#e9e9e4"}
DARK_INK = {"back": "#1c1f22", "text": "#e6e7e8", "soft": "#a2a9b1", "track": "#30363b"}
FONTS = 'system-ui, -apple-system, "Segoe UI", Roboto, "Noto Sans", sans-serif'


def style(*, with_dark: bool) -> str:
    """The style sheet of charts."""
    shapes = f"text {{ font-family: {FONTS}; font-size: 13px; }} .small {{ font-size: 11px; }}"
    shapes += " .title { font-size: 18px; font-weight: 600; } .strong { font-weight: 600; } .end { stroke-width: 1.5; }"
    shapes += " .join { fill: none; stroke-width: 2; } .thin { stroke-width: 1.5; } .halo { stroke-width: 2.5; }"
    shapes += " .rule { stroke-width: 1; } .reference { stroke-width: 1.5; stroke-dasharray: 3 3; }"
    light = _colours(LIGHT, LIGHT_INK)
    return f"{shapes} {light}" + (
        f" @media screen and (prefers-color-scheme: dark) {{ {_colours(DARK, DARK_INK)} }}" * with_dark
    )


def _colours(series: tuple[str, ...], ink: dict[str, str]) -> str:
    rules = [
        f".s{n} {{ fill: {colour}; }} .join.s{n} {{ stroke: {colour}; fill: none; }}" for n, colour in enumerate(series)
    ]
    rules.append(f"text {{ fill: {ink['text']}; }} text.small {{ fill: {ink['soft']}; }}")
    rules.append(f".{BACK} {{ fill: {ink['back']}; }} .track {{ fill: {ink['track']}; }}")
    rules.append(
        f".end, .reference {{ stroke: {ink['text']}; fill: none; }} .halo {{ stroke: {ink['back']}; fill: none; }}"
    )
    rules.append(f".rule {{ stroke: {ink['track']}; }}")
    return " ".join(rules)
