"""A field of view: reading channels, binning, finding nuclei, choosing crops."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from io import BytesIO

import numpy as np

from morphoclip.data.shards.remote import Store, StoreError, is_remote

MIN_FOREGROUND = 0.01
NUCLEUS_UM = 18.0


class FieldError(ValueError):
    """A field that cannot be used, with the faulty `path` and the `reason`."""

    def __init__(self, path: str, reason: str) -> None:
        super().__init__(f"{path}: {reason}")
        self.path, self.reason = path, reason


def read_tiff(path: str) -> np.ndarray:
    """One single-channel TIFF as (H, W) uint16; `path` is local or any fsspec URL.

    Raises:
        FieldError: the file is missing, truncated, unreadable, not one plane or not uint16.
        StoreError: the object store failed repeatedly, which is not a fault of the field.
    """
    import fsspec
    import tifffile

    def read() -> bytes:
        with fsspec.open(path, "rb") as file:
            return file.read()

    try:
        data = Store(path, retries=7).patiently(read) if is_remote(path) else read()
    except StoreError:
        raise
    except OSError as error:
        reason = "no such file" if isinstance(error, FileNotFoundError) else str(error)
        raise FieldError(path, reason) from error
    try:
        with tifffile.TiffFile(BytesIO(data)) as tiff:
            image = tiff.asarray()
    except Exception as error:  # on damaged bytes tifffile and imagecodecs raise nearly anything
        raise FieldError(path, f"truncated or damaged TIFF ({error})") from error
    if image.size == 0:  # for a truncated file without its directory tifffile only logs
        raise FieldError(path, f"truncated or damaged TIFF (no image in {len(data)} bytes)")
    if image.ndim != 2:
        raise FieldError(path, f"expected one (height, width) plane, found shape {image.shape}")
    if image.dtype != np.uint16:
        raise FieldError(path, f"expected uint16 pixels as acquired, found {image.dtype}")
    return image


def read_field(paths: Mapping[str, str]) -> np.ndarray:
    """The channels of one field as (C, H, W) uint16, in the order of `paths` (channel name -> TIFF).

    Raises:
        FieldError: a channel has no file, cannot be read, differs in size from the others, or is constant.
    """
    planes = []
    for channel, path in paths.items():
        if not path:
            raise FieldError(_folder(paths), f"channel {channel} has no file")
        planes.append(read_tiff(path))
        if not planes[-1].any():
            raise FieldError(path, f"channel {channel} is all zero")
    (usual, _), *_ = Counter(plane.shape for plane in planes).most_common()
    for (channel, path), plane in zip(paths.items(), planes, strict=True):
        if plane.shape != usual:
            raise FieldError(path, f"channel {channel} is {plane.shape}, the other channels are {usual}")
        if plane.min() == plane.max():
            raise FieldError(path, f"channel {channel} is constant, {plane.flat[0]} in every pixel")
    return np.stack(planes)


def _folder(paths: Mapping[str, str]) -> str:
    """The folder of the field's other channels."""
    return next((path.rpartition("/")[0] for path in paths.values() if path), "")


def bin_field(field: np.ndarray, factor: int) -> np.ndarray:
    """Mean over factor × factor pixels, rounded, (C, H // factor, W // factor) uint16, without an incomplete rest."""
    if factor == 1:
        return field
    channels, height, width = field.shape
    rows, columns = height // factor, width // factor
    blocks = field[:, : rows * factor, : columns * factor].reshape(channels, rows, factor, columns, factor)
    area = factor * factor
    return ((blocks.sum(axis=(2, 4), dtype=np.uint32) + area // 2) // area).astype(np.uint16)


def find_nuclei(dna: np.ndarray, pixel_size_um: float, nucleus_um: float = NUCLEUS_UM) -> np.ndarray:
    """Centres (n, 2) float32 as (y, x) of the nuclei in a (H, W) DNA image, sorted from top to bottom.

    Gaussian smoothing, Otsu's threshold, watershed of the distance map from its local maxima. Objects much smaller
    than a nucleus of `nucleus_um`, or less than 5 robust standard deviations above the background, are left out, so that
    no nuclei are found in a field of noise, which Otsu's threshold splits in two.
    """
    from scipy import ndimage
    from skimage.feature import peak_local_max
    from skimage.filters import threshold_otsu
    from skimage.segmentation import watershed

    diameter = nucleus_um / pixel_size_um
    smooth = ndimage.gaussian_filter(dna.astype(np.float32), diameter / 8)
    if smooth.min() == smooth.max():
        return np.empty((0, 2), np.float32)
    otsu = threshold_otsu(smooth)
    background = smooth[smooth <= otsu]
    centre = np.median(background)
    spread = 1.4826 * np.median(np.abs(background - centre))
    mask = smooth > centre + 0.6 * (
        otsu - centre
    )  # bright mitotic nuclei raise Otsu's threshold above the dimmest nuclei

    distance = ndimage.gaussian_filter(ndimage.distance_transform_edt(mask).astype(np.float32), diameter / 16)
    peaks = peak_local_max(distance, min_distance=max(1, round(diameter / 4)), labels=mask, exclude_border=False)
    markers = np.zeros(dna.shape, np.int32)
    markers[tuple(peaks.T)] = np.arange(1, len(peaks) + 1)
    labels = watershed(-distance, markers, mask=mask)

    numbers = np.arange(1, len(peaks) + 1)
    area = np.bincount(labels.reshape(-1), minlength=len(peaks) + 1)[1:]
    brightness = ndimage.mean(smooth, labels, numbers)
    keep = (area >= 0.2 * np.pi / 4 * diameter**2) & (brightness >= centre + 5 * spread)
    if not keep.any():
        return np.empty((0, 2), np.float32)
    centres = np.asarray(ndimage.center_of_mass(mask, labels, numbers[keep]), np.float32)
    return centres[np.lexsort((centres[:, 1], centres[:, 0]))]


def nucleus_crops(centres: np.ndarray, shape: tuple[int, int], size: int) -> np.ndarray:
    """Top-left corners (n, 2) of `size` × `size` crops centred on `centres`, shifted inwards at the borders."""
    corners = np.rint(centres).astype(np.int64) - size // 2
    return np.clip(corners, 0, np.subtract(shape, size))


def grid_crops(shape: tuple[int, int], size: int) -> np.ndarray:
    """Top-left corners (n, 2) of adjacent crops that fill a field, with equal margins on both sides."""
    starts = [(length % size) // 2 + size * np.arange(length // size) for length in shape]
    return np.stack(np.meshgrid(*starts, indexing="ij"), axis=-1).reshape(-1, 2)


def random_crops(
    dna: np.ndarray,
    threshold: float,
    size: int,
    number: int,
    rng: np.random.Generator,
    tries: int = 20,
    min_foreground: float = MIN_FOREGROUND,
) -> np.ndarray:
    """Top-left corners (number, 2), each the first of `tries` random ones with enough foreground, or else the best."""
    high = np.subtract(dna.shape, size) + 1
    corners = np.empty((number, 2), np.int64)
    for i in range(number):
        candidates = rng.integers(0, high, size=(tries, 2))
        best = -1.0
        for candidate in candidates:
            share = foreground(dna, candidate, size, threshold)
            if share > best:
                best, corners[i] = share, candidate
            if share >= min_foreground:
                break
    return corners


def foreground(dna: np.ndarray, corner: np.ndarray, size: int, threshold: float) -> float:
    """Fraction of the crop's DNA pixels above `threshold`; Kim et al. 2025 keep crops from 1 % on."""
    y, x = corner
    return float(np.mean(dna[y : y + size, x : x + size] > threshold))
