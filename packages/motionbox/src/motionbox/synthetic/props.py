"""The objects: six nouns seen from above, each with a lid that opens, drawn anew for every clip.

Colours, sizes and contents are random, so a noun is told by its shape and make, not by one colour.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from motionbox.synthetic.shapes import (
    Canvas,
    Colour,
    Sprite,
    capsule,
    circle,
    dome,
    mix,
    noise,
    ring,
    rounded_box,
)

_GLAZES: tuple[Colour, ...] = (
    (206, 66, 56),
    (232, 152, 52),
    (240, 206, 92),
    (86, 146, 92),
    (62, 138, 158),
    (58, 92, 160),
    (142, 92, 160),
    (226, 222, 212),
    (74, 78, 84),
    (214, 136, 148),
)
_DARK: Colour = (38, 36, 38)
_STEEL: Colour = (186, 190, 194)
_WOOD: Colour = (178, 130, 84)


@dataclass(frozen=True)
class Prop:
    """An object that can be moved and opened; all lengths in units of about half its size.

    Attributes:
        body: What stays when the lid moves.
        lid: The lid, closed, in the body's coordinates.
        lid_back: The lid's underside, for lids that fold over.
        lid_motion: `slide` along x, `swing` about `pivot` in the plane, or `fold` over the line x = pivot x.
        pivot: Where the lid turns, (x, y).
        grip: Where a hand takes the lid, (x, y), closed.
        size: Half its extent relative to the other nouns.
    """

    body: Sprite
    lid: Sprite
    lid_back: Sprite | None
    lid_motion: Literal["slide", "swing", "fold"]
    pivot: tuple[float, float]
    grip: tuple[float, float]
    size: float

    def lid_transform(self, opening: float) -> NDArray[np.float64]:
        """Return the matrix that opens the lid, in the body's coordinates, (3, 3)."""
        matrix = np.eye(3)
        if self.lid_motion == "slide":
            matrix[0, 2] = 1.3 * opening
            return matrix
        if self.lid_motion == "fold":
            matrix[0, 0] = np.cos(np.radians(172) * opening)
            matrix[1, 1] = 1 + 0.15 * np.sin(np.radians(172) * opening)
        else:
            cosine, sine = np.cos(np.radians(105) * opening), np.sin(np.radians(105) * opening)
            matrix[:2, :2] = [[cosine, -sine], [sine, cosine]]
        pivot = np.array(self.pivot)
        matrix[:2, 2] = pivot - matrix[:2, :2] @ pivot
        return matrix

    def lid_face(self, opening: float) -> Sprite:
        """Return the side of the lid that is seen at an opening."""
        return self.lid_back if self.lid_back is not None and np.radians(172) * opening > np.pi / 2 else self.lid


def draw_prop(noun: str, px_per_unit: float, rng: np.random.Generator) -> Prop:
    """Draw one object.

    Args:
        noun: One of `NOUNS`.
        px_per_unit: Resolution of its sprites.
        rng: Source of its colours, proportions and contents.

    Raises:
        ValueError: Unknown noun.
    """
    if noun not in _DRAWERS:
        raise ValueError(f"noun must be one of {', '.join(NOUNS)}, got {noun!r}")
    return _DRAWERS[noun](px_per_unit, rng)


def _pick(rng: np.random.Generator, colours: tuple[Colour, ...] = _GLAZES) -> Colour:
    base = colours[rng.integers(len(colours))]
    return mix(base, (255, 255, 255) if rng.uniform() < 0.5 else (0, 0, 0), rng.uniform(0, 0.15))


def _contents(canvas: Canvas, radius: float, rng: np.random.Generator) -> None:
    """Fill a round vessel: a liquid or a sauce with pieces in it."""
    x, y = canvas.x, canvas.y
    sauces: tuple[Colour, ...] = ((84, 48, 28), (176, 60, 34), (206, 150, 62), (232, 222, 196), (96, 132, 62))
    sauce = _pick(rng, sauces)
    surface = circle(x, y, 0, 0, radius)
    ripple = noise(x.shape, (canvas.px_per_unit * 0.25,) * 2, rng)
    canvas.fill(surface, sauce, light=0.92 + 0.1 * ripple)
    for _ in range(rng.integers(0, 12)):
        turn, distance = rng.uniform(0, 2 * np.pi), radius * 0.85 * np.sqrt(rng.uniform())
        size = rng.uniform(0.07, 0.17)
        piece = circle(x, y, distance * np.cos(turn), distance * np.sin(turn), size)
        bump = dome(piece, size, size * 0.6)
        canvas.fill(np.maximum(piece, surface), _pick(rng), light=canvas.relief(bump))
    canvas.fill(circle(x, y, -0.35 * radius, -0.4 * radius, 0.12 * radius), (255, 255, 255), opacity=0.35)


def _vessel(canvas: Canvas, radius: float, glaze: Colour, rng: np.random.Generator) -> None:
    """Draw a round vessel with wall, rim and contents."""
    x, y = canvas.x, canvas.y
    outer = circle(x, y, 0, 0, radius)
    canvas.fill(outer, glaze, light=canvas.relief(dome(outer, 0.22, 0.2)))
    inner = circle(x, y, 0, 0, radius - 0.13)
    shade = np.clip(0.55 + 0.25 * (x + y) / radius, 0.3, 0.95)
    canvas.fill(inner, mix(glaze, (255, 255, 255), 0.25), light=shade)
    _contents(canvas, radius - 0.26, rng)
    canvas.fill(ring(circle(x, y, 0, 0, radius - 0.06), 0.05), mix(glaze, (255, 255, 255), 0.5), opacity=0.7)


def _round_lid(radius: float, colour: Colour, px_per_unit: float, *, opacity: float, knob: Colour) -> Sprite:
    reach = radius + 0.1
    canvas = Canvas(-reach, -reach, reach, reach, px_per_unit)
    x, y = canvas.x, canvas.y
    plate = circle(x, y, 0, 0, radius)
    light = canvas.relief(dome(plate, radius, 0.3))
    canvas.fill(plate, colour, opacity=opacity, light=light)
    canvas.fill(ring(circle(x, y, 0, 0, radius - 0.06), 0.1), mix(colour, (255, 255, 255), 0.35), light=light)
    canvas.fill(ring(circle(x, y, 0, 0, radius * 0.62), 0.03), mix(colour, (0, 0, 0), 0.3), opacity=0.6)
    canvas.fill(circle(x, y, 0.04, 0.05, radius * 0.24), (0, 0, 0), opacity=0.35)
    button = circle(x, y, 0, 0, radius * 0.2)
    canvas.fill(button, knob, light=canvas.relief(dome(button, radius * 0.2, 0.15)))
    return canvas.sprite()


def _mug(px_per_unit: float, rng: np.random.Generator) -> Prop:
    canvas = Canvas(-1.1, -1.7, 1.1, 1.1, px_per_unit)
    x, y = canvas.x, canvas.y
    glaze = _pick(rng)
    handle = ring(rounded_box(x, y, (-0.28, -1.5, 0.28, -0.5), 0.28), 0.2)
    canvas.fill(handle, glaze, light=canvas.relief(dome(handle, 0.1, 0.1)))
    _vessel(canvas, 0.92, glaze, rng)
    lid = _round_lid(0.95, _pick(rng), px_per_unit, opacity=1, knob=_pick(rng))
    return Prop(canvas.sprite(), lid, None, "slide", (0, 0), (0.75, 0), 0.9)


def _bowl(px_per_unit: float, rng: np.random.Generator) -> Prop:
    canvas = Canvas(-1.35, -1.35, 1.35, 1.35, px_per_unit)
    x, y = canvas.x, canvas.y
    glaze, accent = _pick(rng), _pick(rng)
    _vessel(canvas, 1.25, glaze, rng)
    turn = np.arctan2(y, x)
    petals = ring(circle(x, y, 0, 0, 1.16), 0.09 * (1 + np.cos(rng.integers(14, 22) * turn)).astype(np.float32).max())
    canvas.fill(petals, accent, opacity=0.85, light=0.9 + 0.15 * np.cos(16 * turn).astype(np.float32))
    lid_canvas = Canvas(-1.3, -1.3, 1.3, 1.3, px_per_unit)
    plate = circle(lid_canvas.x, lid_canvas.y, 0, 0, 1.2)
    grain = noise(plate.shape, (px_per_unit * 1.2, px_per_unit * 0.06), rng)
    lid_canvas.fill(plate, _WOOD, light=lid_canvas.relief(dome(plate, 0.12, 0.08)) * (1 + 0.16 * grain))
    bar = rounded_box(lid_canvas.x, lid_canvas.y, (-0.55, -0.13, 0.55, 0.13), 0.12)
    lid_canvas.fill(bar + 0.0, mix(_WOOD, _DARK, 0.45), light=lid_canvas.relief(dome(bar, 0.12, 0.12)))
    return Prop(canvas.sprite(), lid_canvas.sprite(), None, "slide", (0, 0), (1.0, 0), 1.0)


def _pan(px_per_unit: float, rng: np.random.Generator) -> Prop:
    canvas = Canvas(-1.3, -2.3, 1.3, 1.3, px_per_unit)
    x, y = canvas.x, canvas.y
    iron = mix((58, 58, 62), _pick(rng), rng.uniform(0, 0.35))
    grip = capsule(x, y, (0, -1.1), (0, -2.1), (0.13, 0.17))
    canvas.fill(grip, _pick(rng, (_DARK, _WOOD)), light=canvas.relief(dome(grip, 0.15, 0.15)))
    canvas.fill(circle(x, y, 0, -2.1, 0.06), (20, 20, 20))
    outer = circle(x, y, 0, 0, 1.2)
    canvas.fill(outer, mix(iron, (255, 255, 255), 0.25), light=canvas.relief(dome(outer, 0.15, 0.15)))
    floor = circle(x, y, 0, 0, 1.04)
    brushed = 0.9 + 0.14 * np.cos(3 * np.arctan2(y, x) + 1)
    canvas.fill(floor, iron, light=brushed.astype(np.float32))
    for _ in range(rng.integers(1, 3)):
        centre = rng.uniform(-0.35, 0.35, 2)
        wobble = 0.07 * np.cos(5 * np.arctan2(y - centre[1], x - centre[0]) + rng.uniform(0, 6))
        white = circle(x, y, centre[0], centre[1], rng.uniform(0.38, 0.5)) + wobble.astype(np.float32)
        canvas.fill(np.maximum(white, floor), (244, 240, 230), light=canvas.relief(dome(white, 0.12, 0.05)))
        yolk = circle(x, y, centre[0], centre[1], 0.17)
        canvas.fill(yolk, (246, 180, 44), light=canvas.relief(dome(yolk, 0.17, 0.14)))
    lid = _round_lid(1.18, mix(_STEEL, _pick(rng), 0.15), px_per_unit, opacity=0.82, knob=_DARK)
    return Prop(canvas.sprite(), lid, None, "swing", (0, -1.15), (0, 1.0), 0.95)


def _bottle(px_per_unit: float, rng: np.random.Generator) -> Prop:
    canvas = Canvas(-0.75, -2.1, 0.75, 1.75, px_per_unit)
    x, y = canvas.x, canvas.y
    plastic, label = _pick(rng), _pick(rng)
    trunk = rounded_box(x, y, (-0.6, -0.75, 0.6, 1.6), 0.25)
    shoulder = capsule(x, y, (0, -0.6), (0, -1.35), (0.55, 0.26))
    shape = np.minimum(trunk, shoulder)
    round_light = canvas.relief(dome(shape, 0.55, 0.5), ambient=0.5, strength=0.6)
    canvas.fill(shape, plastic, light=round_light)
    sticker = np.maximum(rounded_box(x, y, (-0.62, -0.15, 0.62, 1.15), 0.03), shape)
    canvas.fill(sticker, mix(label, (255, 255, 255), 0.55), light=round_light)
    for top in (0.0, 0.85):
        stripe = np.maximum(rounded_box(x, y, (-0.7, top, 0.7, top + 0.14), 0.01), shape)
        canvas.fill(stripe, label, light=round_light)
    canvas.fill(np.maximum(circle(x, y, 0, 0.5, 0.22), shape), _pick(rng), light=round_light)
    spout = rounded_box(x, y, (-0.14, -1.78, 0.14, -1.3), 0.05)
    canvas.fill(spout, (232, 230, 226), light=canvas.relief(dome(spout, 0.14, 0.14)))
    canvas.fill(capsule(x, y, (-0.36, -0.4), (-0.36, 1.3), (0.05, 0.05)), (255, 255, 255), opacity=0.3)
    cap_canvas = Canvas(-0.5, -2.1, 0.5, -1.2, px_per_unit)
    cap = rounded_box(cap_canvas.x, cap_canvas.y, (-0.36, -1.98, 0.36, -1.32), 0.12)
    ridges = 1 + 0.12 * np.cos(cap_canvas.x * 40)
    cap_canvas.fill(cap, _pick(rng), light=cap_canvas.relief(dome(cap, 0.3, 0.28)) * ridges.astype(np.float32))
    return Prop(canvas.sprite(), cap_canvas.sprite(), None, "swing", (-0.34, -1.36), (0.2, -1.75), 0.9)


def _box(px_per_unit: float, rng: np.random.Generator) -> Prop:
    depth = rng.uniform(0.8, 1.0)
    frame = (-1.1, -depth, 1.1, depth)
    canvas = Canvas(-1.2, -1.2, 1.2, 1.2, px_per_unit)
    x, y = canvas.x, canvas.y
    card: Colour = mix((190, 150, 102), _pick(rng), rng.uniform(0, 0.25))
    outer = rounded_box(x, y, frame, 0.05)
    canvas.fill(outer, mix(card, (255, 255, 255), 0.2))
    inner = rounded_box(x, y, (frame[0] + 0.1, frame[1] + 0.1, frame[2] - 0.1, frame[3] - 0.1), 0.03)
    canvas.fill(inner, mix(card, _DARK, 0.5), light=np.clip(0.8 + 0.25 * (x + y), 0.5, 1.2))
    for row in range(2):
        for column in range(3):
            centre = (-0.66 + 0.66 * column, (row - 0.5) * 0.85 * depth)
            item = circle(x, y, centre[0], centre[1], 0.29)
            canvas.fill(item, _pick(rng), light=canvas.relief(dome(item, 0.29, 0.25)))
    flap = Canvas(-1.25, -1.25, 1.25, 1.25, px_per_unit)
    sheet = rounded_box(flap.x, flap.y, frame, 0.05)
    grain = noise(sheet.shape, (px_per_unit * 0.9, px_per_unit * 0.05), rng)
    flap.fill(sheet, card, light=flap.relief(dome(sheet, 0.06, 0.05)) * (1 + 0.05 * grain))
    flap.fill(
        rounded_box(flap.x, flap.y, (-1.1, -0.14, 1.1, 0.14), 0.01), mix(card, (255, 255, 255), 0.35), opacity=0.8
    )
    logo = _pick(rng)
    flap.fill(rounded_box(flap.x, flap.y, (0.2, 0.3, 0.9, 0.68), 0.04), logo, opacity=0.9)
    flap.fill(circle(flap.x, flap.y, -0.55, -0.5, 0.2), logo, opacity=0.9)
    back = Canvas(-1.25, -1.25, 1.25, 1.25, px_per_unit)
    back.fill(sheet, mix(card, (255, 255, 255), 0.25), light=1 + 0.05 * grain)
    return Prop(canvas.sprite(), flap.sprite(), back.sprite(), "fold", (-1.1, 0), (0.95, 0), 0.95)


def _book(px_per_unit: float, rng: np.random.Generator) -> Prop:
    canvas = Canvas(-1.0, -1.35, 1.0, 1.35, px_per_unit)
    x, y = canvas.x, canvas.y
    cloth, foil = _pick(rng), _pick(rng)
    frame = (-0.9, -1.25, 0.9, 1.25)
    canvas.fill(rounded_box(x, y, frame, 0.06), mix(cloth, (0, 0, 0), 0.25))
    page = rounded_box(x, y, (-0.84, -1.17, 0.8, 1.17), 0.02)
    canvas.fill(page, (240, 234, 218), light=np.clip(0.75 + 0.4 * (x + 0.84), 0.7, 1.0))
    _print_page(canvas, rng)
    cover = Canvas(-1.0, -1.35, 1.0, 1.35, px_per_unit)
    board = rounded_box(cover.x, cover.y, frame, 0.06)
    weave = noise(board.shape, (px_per_unit * 0.05,) * 2, rng)
    cover.fill(board, cloth, light=cover.relief(dome(board, 0.06, 0.05)) * (1 + 0.06 * weave))
    cover.fill(rounded_box(cover.x, cover.y, (-0.9, -1.25, -0.68, 1.25), 0.02), mix(cloth, (0, 0, 0), 0.35))
    cover.fill(rounded_box(cover.x, cover.y, (-0.45, -0.95, 0.7, -0.7), 0.03), foil)
    cover.fill(rounded_box(cover.x, cover.y, (-0.45, -0.55, 0.4, -0.42), 0.03), foil, opacity=0.8)
    plate = circle(cover.x, cover.y, 0.12, 0.4, 0.42)
    cover.fill(plate, mix(foil, (255, 255, 255), 0.4))
    cover.fill(ring(plate, 0.08), foil)
    back = Canvas(-1.0, -1.35, 1.0, 1.35, px_per_unit)
    back.fill(board, mix(cloth, (0, 0, 0), 0.25))
    back.fill(rounded_box(back.x, back.y, (-0.84, -1.17, 0.8, 1.17), 0.02), (232, 224, 206))
    _print_page(back, rng)
    return Prop(canvas.sprite(), cover.sprite(), back.sprite(), "fold", (-0.9, 0), (0.78, 0), 0.9)


def _print_page(canvas: Canvas, rng: np.random.Generator) -> None:
    """Print lines and perhaps a picture on a book's page."""
    picture = bool(rng.integers(2))
    if picture:
        canvas.fill(rounded_box(canvas.x, canvas.y, (-0.6, -0.95, 0.6, -0.2), 0.02), _pick(rng))
        canvas.fill(circle(canvas.x, canvas.y, 0, -0.58, 0.26), _pick(rng))
    for line in np.arange(0.0 if picture else -0.95, 1.0, 0.17):
        stop = rng.uniform(0.3, 0.65)
        canvas.fill(
            rounded_box(canvas.x, canvas.y, (-0.65, line, stop, line + 0.06), 0.02), (110, 106, 100), opacity=0.8
        )


_DRAWERS: dict[str, Callable[[float, np.random.Generator], Prop]] = {
    "mug": _mug,
    "bowl": _bowl,
    "pan": _pan,
    "bottle": _bottle,
    "box": _box,
    "book": _book,
}
NOUNS: tuple[str, ...] = tuple(_DRAWERS)


def draw_clutter(kind: str, px_per_unit: float, rng: np.random.Generator) -> Sprite:
    """Draw a thing that only lies there: one of `CLUTTER`."""
    return _CLUTTER[kind](px_per_unit, rng)


def _fruit(px_per_unit: float, rng: np.random.Generator) -> Sprite:
    canvas = Canvas(-1, -1, 1, 1, px_per_unit)
    skin = _pick(rng, ((196, 44, 40), (146, 176, 62), (236, 196, 60), (232, 130, 40)))
    body = circle(canvas.x, canvas.y * rng.uniform(0.95, 1.25), 0, 0, 0.75)
    speckle = noise(body.shape, (px_per_unit * 0.1,) * 2, rng)
    light = canvas.relief(dome(body, 0.75, 0.65), ambient=0.5, strength=0.65) * (1 + 0.06 * speckle)
    canvas.fill(body, skin, light=light)
    canvas.fill(capsule(canvas.x, canvas.y, (0, 0), (0.12, -0.3), (0.06, 0.04)), (84, 58, 36))
    return canvas.sprite()


def _spoon(px_per_unit: float, rng: np.random.Generator) -> Sprite:
    canvas = Canvas(-0.6, -1.8, 0.6, 1.8, px_per_unit)
    metal = _pick(rng, (_STEEL, _WOOD, (150, 154, 160)))
    stem = capsule(canvas.x, canvas.y, (0, -0.6), (0, 1.6), (0.09, 0.14))
    head = circle(canvas.x * 1.35, canvas.y * 0.9, 0, -1.08, 0.5)
    canvas.fill(stem, metal, light=canvas.relief(dome(stem, 0.12, 0.1)))
    canvas.fill(head, metal, light=canvas.relief(-dome(head, 0.5, 0.25)))
    return canvas.sprite()


def _napkin(px_per_unit: float, rng: np.random.Generator) -> Sprite:
    canvas = Canvas(-1.3, -1.3, 1.3, 1.3, px_per_unit)
    cloth, stripe = _pick(rng), _pick(rng)
    sheet = rounded_box(canvas.x, canvas.y, (-1.2, -1.2, 1.2, 1.2), 0.05)
    folds = noise(sheet.shape, (px_per_unit * 0.7, px_per_unit * 0.5), rng)
    light = 0.95 + 0.12 * folds
    canvas.fill(sheet, mix(cloth, (255, 255, 255), 0.35), light=light)
    for offset in (-0.95, 0.85):
        canvas.fill(rounded_box(canvas.x, canvas.y, (-1.2, offset, 1.2, offset + 0.1), 0.01), stripe, light=light)
        canvas.fill(rounded_box(canvas.x, canvas.y, (offset, -1.2, offset + 0.1, 1.2), 0.01), stripe, light=light)
    return canvas.sprite()


def _plate(px_per_unit: float, rng: np.random.Generator) -> Sprite:
    canvas = Canvas(-1.3, -1.3, 1.3, 1.3, px_per_unit)
    china, accent = mix((236, 234, 228), _pick(rng), rng.uniform(0, 0.25)), _pick(rng)
    outer = circle(canvas.x, canvas.y, 0, 0, 1.2)
    canvas.fill(outer, china, light=canvas.relief(dome(outer, 0.3, 0.08)))
    canvas.fill(ring(circle(canvas.x, canvas.y, 0, 0, 1.1), 0.05), accent)
    well = circle(canvas.x, canvas.y, 0, 0, 0.8)
    canvas.fill(well, mix(china, (0, 0, 0), 0.06), light=canvas.relief(-dome(well, 0.12, 0.06)))
    return canvas.sprite()


_CLUTTER: dict[str, Callable[[float, np.random.Generator], Sprite]] = {
    "fruit": _fruit,
    "spoon": _spoon,
    "napkin": _napkin,
    "plate": _plate,
}
CLUTTER: tuple[str, ...] = tuple(_CLUTTER)
