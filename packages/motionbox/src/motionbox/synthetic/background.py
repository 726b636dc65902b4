"""The table: wood, tiles, stone or cloth, with clutter on it, lit by a lamp."""

from __future__ import annotations

from collections.abc import Callable

import cv2
import numpy as np

from motionbox.synthetic.shapes import Colour, Plane, mix

_TILE_SIDE = 256  # side of the noise tile that all textures sample
_OWN_COLOUR, _GREY = 0.45, 150  # tables are muted towards grey, so that what lies on them stands out
Painter = Callable[[Plane, Plane, np.random.Generator], Plane]


class _Noise:
    """A tileable noise field, sampled anywhere."""

    def __init__(self, rng: np.random.Generator, blur_px: float) -> None:
        field = rng.standard_normal((_TILE_SIDE, _TILE_SIDE)).astype(np.float32)
        pad = round(blur_px * 3) + 1
        wide = cv2.GaussianBlur(np.pad(field, pad, mode="wrap"), (0, 0), blur_px)[pad:-pad, pad:-pad]
        self._field = (wide / wide.std()).astype(np.float32)

    def __call__(self, x: Plane, y: Plane) -> Plane:
        """Return the field at coordinates in its pixels, about -3..3, (h, w)."""
        wrapped = (np.mod(x, _TILE_SIDE).astype(np.float32), np.mod(y, _TILE_SIDE).astype(np.float32))
        return np.asarray(cv2.remap(self._field, *wrapped, cv2.INTER_LINEAR, borderMode=cv2.BORDER_WRAP), np.float32)


def draw_table(width: int, height: int, scale_px: float, rng: np.random.Generator) -> Plane:
    """Draw a table top.

    Args:
        width: Width of the picture in pixels.
        height: Height of the picture in pixels.
        scale_px: Length in pixels of one unit (about the width of the video).
        rng: Source of the material, its direction and its colours.

    Returns:
        (height, width, 3) float32, RGB 0..255.
    """
    xs, ys = np.meshgrid(
        np.arange(width, dtype=np.float32) - width / 2, np.arange(height, dtype=np.float32) - height / 2
    )
    turn = rng.uniform(0, 2 * np.pi)
    x = ((np.cos(turn) * xs + np.sin(turn) * ys) / scale_px).astype(np.float32)
    y = ((np.cos(turn) * ys - np.sin(turn) * xs) / scale_px).astype(np.float32)
    painter = _MATERIALS[rng.integers(len(_MATERIALS))]
    table = painter(x + np.float32(rng.uniform(5, 9)), y + np.float32(rng.uniform(5, 9)), rng)
    table = table * _OWN_COLOUR + np.float32(_GREY * (1 - _OWN_COLOUR))
    lamp = rng.uniform(-0.5, 0.5, 2)
    falloff = (xs / scale_px - lamp[0]) ** 2 + (ys / scale_px - lamp[1]) ** 2
    lit: Plane = np.clip(table * (1.08 - 0.3 * falloff.clip(0, 1.2))[..., None], 0, 255).astype(np.float32)
    return lit


def _shade(colour: Colour, brightness: Plane) -> Plane:
    shaded: Plane = brightness[..., None] * np.asarray(colour, np.float32)
    return shaded


def _per_cell(cells: Plane, rng: np.random.Generator, low: float, high: float) -> Plane:
    """Give every integer cell number its own random value, (h, w)."""
    table = rng.uniform(low, high, 997).astype(np.float32)
    values: Plane = table[np.mod(cells.astype(np.int64), 997)]
    return values


def _wood(x: Plane, y: Plane, rng: np.random.Generator) -> Plane:
    woods: tuple[Colour, ...] = ((186, 136, 88), (150, 98, 58), (208, 172, 124), (112, 76, 52), (170, 150, 128))
    wood = woods[rng.integers(len(woods))]
    plank = rng.uniform(0.18, 0.34)
    row = np.floor(y / plank)
    grain, warp = _Noise(rng, 1.2), _Noise(rng, 9)
    shift = _per_cell(row, rng, 0, 200)
    bend = warp(x * 55 + shift, y * 120 + shift)
    fibre = grain(x * 26 + shift, y * 420 + 4 * bend)
    rings = np.sin((y * 60 + 1.6 * bend + shift) * rng.uniform(1.2, 2.2))
    brightness = _per_cell(row, rng, 0.86, 1.08) + 0.055 * fibre + 0.05 * rings
    joint_x = np.abs(np.mod(x + shift, 0.9) - 0.45) < 0.004
    joint_y = np.abs(np.mod(y / plank, 1) - 0.5) > 0.488
    brightness = np.where(joint_x | joint_y, brightness * 0.55, brightness)
    return _shade(wood, brightness.astype(np.float32))


def _tiles(x: Plane, y: Plane, rng: np.random.Generator) -> Plane:
    glazes: tuple[Colour, ...] = ((222, 220, 210), (150, 182, 186), (198, 150, 118), (122, 142, 160), (206, 198, 160))
    glaze = glazes[rng.integers(len(glazes))]
    side = rng.uniform(0.16, 0.3)
    row, column = np.floor(y / side), np.floor(x / side)
    edge_x, edge_y = np.mod(x / side, 1) - 0.5, np.mod(y / side, 1) - 0.5
    edge = 0.5 - np.maximum(np.abs(edge_x), np.abs(edge_y))
    cloud, fine = _Noise(rng, 14), _Noise(rng, 1.5)
    shift = _per_cell(row * 31 + column, rng, 0, 250)
    brightness = _per_cell(row * 31 + column, rng, 0.86, 1.06) + 0.05 * cloud(x * 300 + shift, y * 300 + shift)
    brightness += 0.02 * fine(x * 300, y * 300)
    bevel = np.clip(1 - edge / 0.06, 0, 1) * np.where(np.abs(edge_x) > np.abs(edge_y), -edge_x, -edge_y) * 0.35
    tile = _shade(glaze, (brightness + bevel).astype(np.float32))
    if rng.integers(2):
        diamond = np.abs(edge_x) + np.abs(edge_y) < 0.22
        accent = np.asarray(mix(glaze, (60, 80, 120), 0.7), np.float32)
        tile = np.where(diamond[..., None], brightness[..., None] * accent, tile)
    grout = np.asarray((122, 116, 108), np.float32) * (1 + 0.08 * fine(x * 400, y * 400))[..., None]
    share = np.clip((edge - 0.022) / 0.012, 0, 1)[..., None]
    laid: Plane = (tile * share + grout * (1 - share)).astype(np.float32)
    return laid


def _stone(x: Plane, y: Plane, rng: np.random.Generator) -> Plane:
    stones: tuple[Colour, ...] = ((92, 94, 98), (196, 190, 182), (140, 122, 108), (108, 122, 116))
    stone = stones[rng.integers(len(stones))]
    speck, grit, cloud = _Noise(rng, 1.6), _Noise(rng, 0.9), _Noise(rng, 12)
    drift = cloud(x * 120, y * 120)
    brightness = 0.95 + 0.07 * drift + 0.05 * grit(x * 330, y * 330)
    brightness += 0.26 * (speck(x * 260 + 40, y * 260) > 1.5) - 0.3 * (speck(x * 210, y * 210 + 90) > 1.5)
    if rng.integers(2):
        vein = np.abs(np.sin((x + 0.12 * drift + 0.05 * cloud(x * 350, y * 350)) * 7))
        brightness += 0.22 * np.clip(1 - vein / 0.09, 0, 1)
    return _shade(stone, brightness.astype(np.float32))


def _cloth(x: Plane, y: Plane, rng: np.random.Generator) -> Plane:
    dyes: tuple[Colour, ...] = ((186, 62, 60), (64, 98, 152), (96, 140, 92), (206, 168, 80), (120, 110, 124))
    dye = np.asarray(dyes[rng.integers(len(dyes))], np.float32)
    linen = np.asarray((236, 230, 218), np.float32)
    pitch = rng.uniform(0.07, 0.15)
    fold, thread = _Noise(rng, 22), _Noise(rng, 0.8)
    wave = fold(x * 150, y * 150) * 0.006
    soft = 14.0
    across = 1 / (1 + np.exp(-soft * np.sin((x + wave) * np.pi / pitch)))
    along = 1 / (1 + np.exp(-soft * np.sin((y + wave) * np.pi / pitch)))
    share = ((across + along) / 2)[..., None] * rng.uniform(0.6, 1.0)
    weave = 0.96 + 0.05 * thread(x * 330, y * 330) + 0.05 * fold(x * 150 + 90, y * 150)
    woven: Plane = ((linen * (1 - share) + dye * share) * weave[..., None]).astype(np.float32)
    return woven


_MATERIALS: tuple[Painter, ...] = (_wood, _tiles, _stone, _cloth)
