"""From numbers to pictures: arrays of uint8 (H, W, 3), and PNG files of them."""

from __future__ import annotations

import io
import math
from collections.abc import Mapping, Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFont

Picture = np.ndarray  # uint8 (H, W, 3)
PAPER = 255  # what lies between tiles

# From nothing to much; the steps are alike in brightness, so that a grey print of it reads the same.
HEAT = np.array([(12, 12, 40), (92, 24, 110), (196, 60, 78), (247, 142, 50), (255, 246, 190)], float)
SERIES = ((70, 110, 170), (225, 135, 50), (95, 160, 95), (150, 150, 150))  # the colours of bars


def signed(a: np.ndarray) -> Picture:
    """Numbers around 0 as colours around mid-grey, the largest of them as bright, or dark, as can be.

    (H, W, 3) is shown in colours, (H, W, 1) in grey, as is the mean of any other number of channels.
    """
    a = a if a.shape[2] == 3 else a.mean(axis=2, keepdims=True)
    return _rgb(127.5 + 127.5 * a / (abs(a).max() or 1))


def brightness(a: np.ndarray) -> Picture:
    """A map (H, W) in grey: its smallest value black, its largest white; what is all the same is black."""
    low, high = float(a.min()), float(a.max())
    return _rgb(255 * (a - low)[..., None] / ((high - low) or 1))


def heat(a: np.ndarray) -> Picture:
    """A map (H, W) of values from 0 to 1 as colours: dark for 0, through red, to bright for 1."""
    at = np.linspace(0, 1, len(HEAT))
    return _rgb(np.stack([np.interp(a, at, HEAT[:, c]) for c in range(3)], axis=-1))


def over(image: Picture, a: np.ndarray) -> Picture:
    """An image in grey, with a map of values from 0 to 1, of whatever size, over it; 0 lets the image show."""
    height, width = image.shape[:2]
    smooth = np.asarray(Image.fromarray(a.astype(np.float32)).resize((width, height), Image.Resampling.BILINEAR))
    share = 0.75 * np.clip(smooth, 0, 1)[..., None]  # of the colour
    return _rgb((1 - share) * 0.8 * image.mean(axis=2, keepdims=True) + share * heat(smooth))


def _rgb(values: np.ndarray) -> Picture:
    """Values (H, W, 1 or 3) as bytes."""
    rounded = np.clip(np.rint(values), 0, 255).astype(np.uint8)
    return np.broadcast_to(rounded, (*rounded.shape[:2], 3))


def enlarged(image: Picture, side: int) -> Picture:
    """Each pixel as a square, so large that the image has about `side` pixels a side; never made smaller."""
    factor = max(round(side / max(image.shape[:2])), 1)
    return image.repeat(factor, axis=0).repeat(factor, axis=1)


def fitted(image: Picture, side: int) -> Picture:
    """The picture at another size, side × side, without smoothing."""
    rows, columns = (np.arange(side) * length // side for length in image.shape[:2])
    return image[rows[:, None], columns]


def tiles(images: Sequence[Picture], *, columns: int | None = None, gap: int = 2) -> Picture:
    """Pictures of one size side by side, row by row; without `columns`, about as many as there are rows."""
    height, width = images[0].shape[:2]
    columns = columns or math.ceil(math.sqrt(len(images)))
    rows = math.ceil(len(images) / columns)
    sheet = np.full((rows * (height + gap) + gap, columns * (width + gap) + gap, 3), PAPER, np.uint8)
    for i, image in enumerate(images):
        top, left = (gap + (i // columns) * (height + gap), gap + (i % columns) * (width + gap))
        sheet[top : top + height, left : left + width] = image
    return sheet


def bars(labels: Sequence[str], series: Mapping[str, Sequence[float]], *, width: int = 360) -> Picture:
    """A row of bars for each label, one bar of each series, with its value behind; at least 0, longest `width` pixels.

    With several series, their names and colours stand on top.
    """
    font = ImageFont.load_default()
    several = len(series) > 1
    left = 12 + max(round(font.getlength(label)) for label in labels)
    bar, top = 12, 24 if several else 6
    row = bar * len(series) + 6
    canvas = Image.new("RGB", (left + width + 60, top + row * len(labels)), (PAPER,) * 3)
    draw = ImageDraw.Draw(canvas)
    longest = max(max(values) for values in series.values()) or 1
    x = left
    if several:
        for name, colour in zip(series, SERIES, strict=False):
            draw.rectangle((x, 6, x + 9, 15), fill=colour)
            draw.text((x + 14, 5), name, fill=(0, 0, 0), font=font)
            x += 30 + round(font.getlength(name))
    for i, label in enumerate(labels):
        y = top + i * row
        draw.text((6, y + (row - 6 - bar) / 2), label, fill=(0, 0, 0), font=font)
        for (_, values), colour in zip(series.items(), SERIES, strict=False):
            end = left + round(width * values[i] / longest)
            draw.rectangle((left, y, end, y + bar - 3), fill=colour)
            draw.text((end + 4, y - 1), f"{values[i]:.3g}", fill=(90, 90, 90), font=font)
            y += bar
    return np.asarray(canvas)


def png(image: Picture) -> bytes:
    """The picture as a PNG file."""
    file = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(image)).save(file, "PNG", optimize=True)
    return file.getvalue()
