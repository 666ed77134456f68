"""How people look: colours of skin, hair, eyes and teeth, as textures with fine grain and as colours at points.

Colours are painted as functions of the place on the base surface, where mouth and eyes are shut, so they keep to lips, lids and
hairline whatever the mesh. sRGB in 0..1 inside, textures in 0..255.
"""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter, zoom

from fitting.studio import surface
from fitting.studio.features import Sites, above_hairline, below_collar, ear, eye, lip_heights, mouth, step
from fitting.studio.mesh import EYE_BOX, LID_BOX, LOWER_TEETH_BOX, MOUTH_BOX, SKIN_BOX, UPPER_TEETH_BOX, Box, skin_direction
from fitting.studio.parts import IRIS_ANGLE, PICTURE_POWER, TOOTH_ENDS
from fitting.studio.surface import Floats

_TONES = np.array([[246, 216, 197], [234, 192, 165], [214, 166, 134], [182, 131, 98], [136, 92, 67], [98, 65, 49]]) / 255
_HAIRS = (
    np.array([[28, 23, 21], [52, 36, 27], [88, 60, 40], [140, 100, 62], [186, 150, 100], [120, 58, 32], [120, 116, 112]]) / 255
)
_IRISES = np.array([[78, 50, 30], [104, 72, 42], [96, 98, 60], [88, 116, 132], [110, 132, 140]]) / 255


class Look(NamedTuple):
    """A person's colours. Shares are 0 to 1."""

    seed: int
    skin: tuple[float, float, float]
    hair: tuple[float, float, float]
    iris: tuple[float, float, float]
    lips: float
    """How much redder than the skin the lips are."""
    blush: float
    brows: float
    beard: float
    freckles: float
    wrinkles: float
    grain: float
    """How strong pores and blotches are."""


def random_look(seed: int) -> Look:
    """The colours of one person."""
    rng = np.random.default_rng([71, seed])
    tone = rng.uniform(0, len(_TONES) - 1)
    dark = tone > 2.6
    hair = _HAIRS[
        rng.choice(len(_HAIRS), p=[0.6, 0.36, 0.0, 0.0, 0.0, 0.0, 0.04] if dark else [0.16, 0.24, 0.24, 0.14, 0.08, 0.06, 0.08])
    ]
    iris = _IRISES[rng.choice(len(_IRISES), p=[0.7, 0.3, 0, 0, 0] if dark else [0.28, 0.2, 0.16, 0.2, 0.16])]
    low = int(min(tone, len(_TONES) - 2))
    skin = _TONES[low] + (tone - low) * (_TONES[low + 1] - _TONES[low])
    skin = skin * (1 + rng.normal(0, [0.015, 0.02, 0.03]))
    return Look(
        seed=seed,
        skin=_triple(skin),
        hair=_triple(hair * rng.uniform(0.85, 1.15)),
        iris=_triple(iris * rng.uniform(0.85, 1.15)),
        lips=float(rng.uniform(0.10, 0.65)),
        blush=float(rng.uniform(0.2, 1.0)),
        brows=float(rng.uniform(0.6, 1.0)),
        beard=float(max(rng.uniform(-0.8, 0.8), 0)),
        freckles=float(max(rng.uniform(-1.0, 1.0), 0) * (not dark)),
        wrinkles=float(rng.uniform(0, 1)),
        grain=float(rng.uniform(0.8, 1.2)),
    )


def _triple(colour: Floats) -> tuple[float, float, float]:
    red, green, blue = np.clip(colour, 0.03, 0.98)
    return float(red), float(green), float(blue)


def texture(look: Look, size: int = 1024) -> NDArray[np.uint8]:
    """The person's texture (size, size, 3) in sRGB, the first row at v = 1. Also has eyes, teeth and the inside of the mouth."""
    rows, columns = _pixels(SKIN_BOX, size)
    picture = np.zeros((size, size, 3), np.float32)
    base = _texel_places(size)
    count = len(base)
    picture[rows, columns] = colours(base, look, _grain(look, size, rows, columns).reshape(count, -1)).reshape(
        rows.stop - rows.start, columns.stop - columns.start, 3
    )
    rng = np.random.default_rng([72, look.seed])
    for box, paint in (
        (MOUTH_BOX, _mouth_inside),
        (LID_BOX, _lid_inside),
        (EYE_BOX, _eye_colours),
        (UPPER_TEETH_BOX, _teeth_colours),
        (LOWER_TEETH_BOX, _teeth_colours),
    ):
        rows, columns = _pixels(box, size)
        v, u = np.meshgrid(1 - _centres(rows), _centres(columns), indexing="ij")
        # A little beyond the box, so that no colour bleeds in at its edge.
        picture[rows, columns] = paint(np.clip(u, 0, 1), np.clip(v, 0, 1), look, rng)
    return np.clip(np.rint(picture * 255), 0, 255).astype(np.uint8)


def colours(base: Floats, look: Look, grain: Floats | None = None) -> Floats:
    """(N, 3) sRGB in 0..1 of the skin at ``base`` (N, 3) on the base surface.

    ``grain`` (N, 3) is noise with variance 1: blotches, spots of a millimetre, pores.
    """
    base = base.astype(np.float32)
    blotch, spot, pore = (np.zeros((3, len(base)), np.float32) if grain is None else grain.T.astype(np.float32)) * look.grain
    none = np.zeros(len(base), np.int64)
    sites = Sites(base, none, none, base[:, 0])
    folded = np.abs(base) * np.array([1, 0, 0], np.float32) + base * np.array([0, 1, 1], np.float32)
    front = base[:, 2] > 0.0
    face = np.nonzero(front & (np.abs(base[:, 0]) < 0.07))[0]
    skin = np.array(look.skin, np.float32)
    light = float(skin.mean())

    # Darker skin needs relatively more of it to show as much.
    tone = 1 + 0.020 * blotch + (0.028 - 0.013 * light) * spot + (0.056 - 0.026 * light) * pore
    colour = skin * tone[:, None]
    red = np.zeros(len(base), np.float32)
    at = folded[face]
    red[face] = look.blush * (
        0.5 * _spot(at, (0.038, -0.010), (0.018, 0.016))
        + 0.45 * _spot(at, (0.0, -0.012), (0.012, 0.010))
        + 0.2 * _spot(at, (0.0, -0.085), (0.02, 0.012))
    )
    distance, _ = ear(folded)
    red += 0.4 * np.where(distance < 1.2, 1.0, 0.0).astype(np.float32)
    red += 0.06 * np.clip(blotch, 0, None)
    colour += red[:, None] * light * np.array([0.03, -0.09, -0.08], np.float32)
    freckled = look.freckles * np.clip(spot - 1.1, 0, 1.2) * (_spot(folded, (0.030, 0.0), (0.035, 0.022)) * front)
    colour *= 1 - freckled[:, None] * np.array([0.20, 0.32, 0.38], np.float32)

    colour[face] = _wrinkles(colour[face], at, look)
    colour[face] = _beard(colour[face], at, base[face], spot[face], pore[face], look)
    colour[face] = _about_eyes(colour[face], sites.take(face), light)
    colour[face] *= 1 - 0.80 * _spot(at, (0.0066, -0.0214), (0.0034, 0.0021))[:, None]
    colour[face] = _on_lips(colour[face], sites.take(face), look, pore[face], skin)
    colour[face] = _brows(colour[face], base[face], look)
    return _shirt(_hair(colour, base, look, spot), base, look, spot, pore)


def _spot(points: Floats, centre: tuple[float, float], widths: tuple[float, float]) -> Floats:
    return np.exp(-(((points[:, 0] - centre[0]) / widths[0]) ** 2) - ((points[:, 1] - centre[1]) / widths[1]) ** 2)


def _wrinkles(colour: Floats, at: Floats, look: Look) -> Floats:
    x, y = at[:, 0], at[:, 1]
    fold = np.abs(x - (0.0215 - 0.34 * (y + 0.016) + 4.0 * (y + 0.016) ** 2)) / 0.0028
    dark = 0.45 * np.exp(-(fold**2)) * step(y, -0.048, -0.036) * step(y, -0.010, -0.018)
    for height in (0.060, 0.068, 0.076):
        line = np.abs(y - height - 0.0012 * np.sin(110 * x + 900 * height)) / 0.0007
        dark = dark + 0.35 * np.exp(-(line**2)) * step(x, 0.040, 0.022)
    for slope in (-0.35, 0.0, 0.35):
        line = np.abs(y - 0.021 - slope * (x - 0.046)) / 0.0007
        dark = dark + 0.35 * np.exp(-(line**2)) * step(x, 0.047, 0.051) * step(x, 0.062, 0.056)
    return colour * (1 - (0.06 + 0.30 * look.wrinkles) * np.minimum(dark, 1)[:, None] * np.array([0.8, 1.0, 1.0], np.float32))


def _beard(
    colour: Floats, at: Floats, base: Floats, spot: Floats,
    pore: Floats, look: Look,
) -> Floats:  # fmt: skip
    if look.beard == 0:
        return colour
    x, y = at[:, 0], at[:, 1]
    lower = step(
        y,
        -0.026 - 0.10 * np.clip(x - 0.02, 0, 0.05) + 0.9 * np.clip(x - 0.045, 0, 0.02),
        -0.040 + 0.9 * np.clip(x - 0.045, 0, 0.02),
    )
    lower = lower * step(base[:, 2], -0.002, 0.018) * step(y, -0.125, -0.100)
    amount = look.beard * lower * np.clip(0.45 + 0.35 * pore + 0.15 * spot, 0, 1)
    found: Floats = colour + (amount * 0.75)[:, None] * (np.array(look.hair, np.float32) * 0.8 - colour)
    return found


def _about_eyes(colour: Floats, sites: Sites, light: float) -> Floats:
    slit = eye(sites)
    near = np.exp(-((slit.distance / 0.011) ** 2))
    colour = colour * (1 - 0.13 * near[:, None] * np.array([0.7, 1.0, 0.95], np.float32))
    lash = step(slit.distance, 0.0019, 0.0006) * np.where(slit.across > 0, 1.0, 0.55)
    crease = np.exp(-(((slit.across - 0.0074) / 0.0011) ** 2)) * step(np.abs(slit.along), 1.15, 0.8)
    colour = colour * (1 - 0.30 * crease[:, None])
    return colour + (0.85 * lash)[:, None] * (np.array([0.10, 0.07, 0.06], np.float32) - colour)


def _on_lips(colour: Floats, sites: Sites, look: Look, pore: Floats, skin: Floats) -> Floats:
    slit = mouth(sites)
    upper, lower = lip_heights(sites.base[:, 0])
    share = np.abs(slit.across) / np.where(slit.across > 0, upper, lower)
    inside = step(share, 1.06, 0.90) * step(np.abs(slit.along), 1.06, 0.94)
    red = skin * np.array([0.92 - 0.10 * look.lips, 0.72 - 0.24 * look.lips, 0.72 - 0.20 * look.lips], np.float32)
    lines = _streaks(sites.base[:, 0] / 0.0008 + 0.25 * np.sin(slit.across * 700), slit.across / 0.005, look.seed + 5)
    shade = (0.90 + 0.14 * np.minimum(share, 1.0)) * (1 + 0.05 * lines + 0.03 * pore)
    colour = colour + inside[:, None] * (red * shade[:, None] - colour)
    line = np.exp(-((slit.across / 0.0009) ** 2)) * step(np.abs(slit.along), 1.05, 0.9)
    found: Floats = colour * (1 - 0.45 * line[:, None] * np.array([0.85, 1.0, 1.0], np.float32))
    return found


def _brows(colour: Floats, base: Floats, look: Look) -> Floats:
    x, y = np.abs(base[:, 0]), base[:, 1]
    t = (x - 0.0105) / 0.0375  # from the inner to the outer end
    middle = 0.0388 + 0.0066 * np.sin(np.clip(t, -0.2, 1.3) * 2.3) ** 2 * 0.9 - 0.0030 * np.clip(t - 0.55, 0, 1) ** 1.5
    half = 0.0042 * (1 - 0.55 * np.clip(t, 0, 1)) * step(t, -0.06, 0.10) * step(t, 1.05, 0.80)
    off = (y - middle) / np.maximum(half, 1e-4)
    # Hairs lie along the brow and stand up towards its inner end.
    lean = 1.5 * (1 - np.clip(t, 0, 1)) + 0.35
    side = np.where(base[:, 0] > 0, 0.0, 37.0)
    strands = _streaks((x - (y - middle) / lean) / 0.00085 + side, (y - middle) / 0.0055 + side, look.seed + 9)
    cover = step(np.abs(off) + 0.38 * strands, 1.35, 0.45) * (half > 2e-4) * (base[:, 2] > 0.01)
    hair = np.array(look.hair, np.float32) * 0.75
    dark = np.minimum(hair, 0.55 * colour.mean(axis=1, keepdims=True))
    found: Floats = colour + (look.brows * cover * np.clip(0.80 + 0.22 * strands, 0, 1))[:, None] * (dark - colour)
    return found


def _hair(colour: Floats, base: Floats, look: Look, spot: Floats) -> Floats:
    over = above_hairline(base)
    chosen = np.nonzero(over > -0.012)[0]
    x, y, z = base[chosen].T
    # Strands run from the crown outwards.
    around = np.arctan2(x, z + 0.055)
    out = np.hypot(x, z + 0.055) + np.clip(0.10 - y, 0, None)
    fine = _streaks(around * 62 + 3.0 * np.sin(out * 40), out / 0.026, look.seed + 13)
    broad = _streaks(around * 17 + 1.5 * np.sin(out * 40 + 1), out / 0.05, look.seed + 17)
    cover = step(over[chosen] + 0.0020 * fine + 0.0012 * broad, -0.002, 0.005)
    hair = np.array(look.hair, np.float32)
    shade = np.clip(0.95 + 0.19 * fine + 0.12 * broad + 0.06 * spot[chosen], 0.35, 1.8)
    colour[chosen] += cover[:, None] * (hair * shade[:, None] - colour[chosen])
    return colour


def _shirt(colour: Floats, base: Floats, look: Look, spot: Floats, pore: Floats) -> Floats:
    below = below_collar(base)
    chosen = np.nonzero(below > -0.001)[0]
    dye = np.random.default_rng([75, look.seed]).uniform(0.12, 0.75, 3)
    # Mostly grey, with a darker seam along the collar.
    cloth = 0.6 * dye.mean() + 0.4 * dye
    shade = 1 + 0.05 * spot[chosen] + 0.06 * pore[chosen] - 0.35 * np.exp(-(((below[chosen] - 0.004) / 0.0012) ** 2))
    cover = step(below[chosen], -0.0008, 0.0004)[:, None]
    colour[chosen] += cover * (cloth * shade[:, None] - colour[chosen])
    return np.clip(colour, 0.01, 1.0)


def _streaks(fine: Floats, coarse: Floats, seed: int) -> Floats:
    """Smooth noise (N,) of variance about 1, with cells of 1 along both coordinates."""
    table = np.random.default_rng([73, seed]).standard_normal((128, 128)).astype(np.float32)
    low_a, low_b = np.floor(fine), np.floor(coarse)
    a, b = (fine - low_a).astype(np.float32), (coarse - low_b).astype(np.float32)
    a, b = a * a * (3 - 2 * a), b * b * (3 - 2 * b)
    i, j = low_a.astype(np.int64) % 128, low_b.astype(np.int64) % 128
    k, m = (i + 1) % 128, (j + 1) % 128
    mixed = (1 - a) * ((1 - b) * table[i, j] + b * table[i, m]) + a * ((1 - b) * table[k, j] + b * table[k, m])
    value: Floats = 1.5 * mixed
    return value


# --- texels ------------------------------------------------------------------------------------------------------------------


def _pixels(box: Box, size: int) -> tuple[slice, slice]:
    rows = slice(int(np.floor((1 - box.v1) * size)), int(np.ceil((1 - box.v0) * size)))
    return rows, slice(int(np.floor(box.u0 * size)), int(np.ceil(box.u1 * size)))


def _centres(pixels: slice) -> Floats:
    count = pixels.stop - pixels.start
    return np.asarray((np.arange(count) + 0.5) / count)


@lru_cache(maxsize=2)
def _texel_places(size: int) -> Floats:
    """(N, 3) places on the base of the skin's texels, row by row. The left half is made at half the fineness and mirrored."""
    rows, columns = _pixels(SKIN_BOX, size)
    height, width = rows.stop - rows.start, columns.stop - columns.start
    coarse_v = 1 - np.linspace(0, 1, height // 2 + 1)
    coarse_u = np.linspace(0.5, 1, width // 4 + 1)
    v, u = np.meshgrid(coarse_v, coarse_u, indexing="ij")
    places = surface.point(skin_direction(np.stack([u.ravel(), v.ravel()], axis=1))).reshape(*u.shape, 3)
    # Linear between the corners of the coarse texels.
    at_rows = (np.arange(height) + 0.5) / height * (height // 2)
    at_columns = (np.arange(width // 2) + 0.5) / (width // 2) * (width // 4)
    row, column = np.minimum(at_rows.astype(int), height // 2 - 1), np.minimum(at_columns.astype(int), width // 4 - 1)
    b, a = (at_rows - row)[:, None, None], (at_columns - column)[None, :, None]
    upper = (1 - a) * places[row][:, column] + a * places[row][:, column + 1]
    lower = (1 - a) * places[row + 1][:, column] + a * places[row + 1][:, column + 1]
    left = (1 - b) * upper + b * lower
    whole = np.concatenate([left[:, ::-1] * np.array([-1.0, 1, 1]), left], axis=1)
    return whole.reshape(-1, 3).astype(np.float32)


def _grain(look: Look, size: int, rows: slice, columns: slice) -> Floats:
    """(H, W, 3) noise of variance 1: blotches of a centimetre, spots of two millimetres, pores of half a millimetre.

    Texels of throat and scalp are long: there more rows of noise go by from one to the next, so that nothing is drawn out.
    """
    rng = np.random.default_rng([74, look.seed])
    height, width = rows.stop - rows.start, columns.stop - columns.start
    line = _texel_places(size).reshape(height, width, 3)[:, 5 * width // 8]
    steps = np.linalg.norm(np.diff(line, axis=0), axis=1)
    at = np.concatenate([[0.0], np.cumsum(np.clip(steps / np.percentile(steps, 30), 1.0, 4.0))])
    count, scale = int(at[-1]) + 2, size / 1024
    found = []
    for coarser, sigma in ((8, 2.0), (2, 1.2), (1, 1.4)):
        noise = rng.standard_normal((count // coarser + 2, width // coarser + 2)).astype(np.float32)
        noise = gaussian_filter(noise, sigma * scale)
        noise = zoom(noise, coarser, order=1)[:count, :width] if coarser > 1 else noise[:count, :width]
        low = at.astype(int)
        part = (at - low).astype(np.float32)[:, None]
        noise = (1 - part) * noise[low] + part * noise[np.minimum(low + 1, count - 1)]
        found.append(noise / noise.std())
    return np.stack(found, axis=-1)


def _mouth_inside(u: Floats, v: Floats, look: Look, rng: np.random.Generator) -> Floats:
    inward = 1 - np.abs(v - 0.5) / 0.49
    red = np.array([0.52, 0.22, 0.20]) * (0.55 + 0.45 * np.mean(look.skin))
    dark = np.array([0.10, 0.03, 0.03])
    deep = step(inward, 0.05, 0.42)[..., None]
    colour = red + deep * (dark - red)
    tongue = step(inward, 0.45, 0.60) * step(inward, 0.95, 0.75) * (v < 0.5) * step(np.abs(u - 0.5), 0.42, 0.25)
    rough = np.array([0.36, 0.15, 0.15]) * (1 + 0.1 * rng.standard_normal(u.shape))[..., None]
    found: Floats = colour + (0.8 * tongue)[..., None] * (rough - colour)
    return found


def _lid_inside(u: Floats, v: Floats, look: Look, rng: np.random.Generator) -> Floats:
    inward = 1 - np.abs(v - 0.5) / 0.49
    rim = np.array([0.55, 0.33, 0.30]) * (0.5 + 0.5 * np.mean(look.skin))
    found: Floats = rim * (1 - 0.8 * step(inward, 0.0, 0.25))[..., None]
    return found


def _eye_colours(u: Floats, v: Floats, look: Look, rng: np.random.Generator) -> Floats:
    x, y = 2 * u - 1, 2 * v - 1
    polar = np.pi * np.clip(np.hypot(x, y), 0, 1) ** (1 / PICTURE_POWER)
    around = np.arctan2(y, x)
    share = polar / IRIS_ANGLE
    white = np.array([0.90, 0.88, 0.86]) - step(polar, 0.6, 1.4)[..., None] * np.array([0.10, 0.22, 0.22])
    veins = _streaks((around * 9 + 2.0 * np.sin(5 * polar)).ravel(), (polar * 3).ravel(), look.seed + 21).reshape(u.shape)
    white = white - 0.10 * (np.exp(-((veins / 0.12) ** 2)) * step(polar, 0.55, 1.2))[..., None] * np.array([0.1, 1.0, 0.9])
    fibres = _streaks((around * 26).ravel(), (share * 2.0).ravel(), look.seed + 25).reshape(u.shape)
    iris = np.array(look.iris) * (1.0 + 0.30 * fibres + 0.25 * np.exp(-(((share - 0.5) / 0.15) ** 2)))[..., None]
    iris = iris * (1 - 0.7 * step(share, 0.80, 1.0))[..., None]  # the dark limbus
    colour = white + step(share, 1.06, 0.96)[..., None] * (iris - white)
    found: Floats = colour * (1 - 0.97 * step(share, 0.42, 0.36))[..., None] + 0.02
    return found


def _teeth_colours(u: Floats, v: Floats, look: Look, rng: np.random.Generator) -> Floats:
    enamel = np.array([0.90, 0.86, 0.76]) * (1 + 0.02 * rng.standard_normal(u.shape))[..., None]
    along = np.abs(2 * u - 1)
    edges = np.abs(along[..., None] - TOOTH_ENDS).min(axis=-1)
    colour = enamel * (1 - 0.45 * np.exp(-((edges / 0.010) ** 2)) - 0.25 * along**2)[..., None]
    gum = step(v + 0.03 * np.sin(along * 40), 0.20, 0.12)[..., None]
    inside = step(v, 0.55, 0.75)[..., None]
    found: Floats = (colour + gum * (np.array([0.62, 0.32, 0.32]) - colour)) * (1 - 0.55 * inside)
    return found
