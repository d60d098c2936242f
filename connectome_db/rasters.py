"""Image files of raw tiles to pixels: PNG, JPEG and TIFF, strictly. Bytes in, arrays out.

Decoders are lenient: libjpeg fills the rest of a cut file with grey, libpng may skip checksums. So the structure of a
file is walked to its end before it is decoded, and a file that ends early is `Truncated`, never a plausible picture.
"""

from __future__ import annotations

import functools
import io
import re
import struct
import zlib
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
import numpy.typing as npt

from connectome_db.errors import SourceError

SUFFIXES = (".png", ".jpg", ".jpeg", ".tif", ".tiff")
PNG_MAGIC = b"\x89PNG\r\n\x1a\n"
JPEG_MAGIC = b"\xff\xd8\xff"
TIFF_MAGICS = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
_JPEG_MARKER = re.compile(rb"\xff[^\x00\xd0-\xd7\xff]")
_JPEG_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_START_OF_SCAN, _END_OF_IMAGE = 0xDA, 0xD9


class TruncatedError(SourceError):
    """The file ends before its image does."""


class UnreadableError(SourceError):
    """The file is not a grey image of a kind that can be read."""


def decode(data: bytes) -> npt.NDArray[Any]:
    """Bytes of a PNG, JPEG or TIFF file -> pixels (y, x), uint8 or uint16 as in the file.

    Colour images are taken only when their channels are equal and opaque. Raises TruncatedError or UnreadableError.
    """
    if data.startswith(PNG_MAGIC):
        _walk_png(data)
        read = functools.partial(imagecodecs.png_decode, data)
    elif data.startswith(JPEG_MAGIC):
        _walk_jpeg(data)
        read = functools.partial(imagecodecs.jpeg8_decode, data)
    elif data.startswith(TIFF_MAGICS):
        read = functools.partial(_decode_tiff, data)
    elif not data:
        raise TruncatedError("the file is empty")
    else:
        raise UnreadableError(f"wanted a PNG, JPEG or TIFF file, it begins with {data[:4]!r}")
    try:
        pixels = np.asarray(read())
    except SourceError:
        raise
    except Exception as error:  # the decoders raise a dozen unrelated types for damaged files
        raise UnreadableError(f"cannot be decoded: {error}") from error
    return _grey(pixels)


def to_uint8(pixels: npt.NDArray[Any], value_range: tuple[int, int] | None) -> npt.NDArray[np.uint8]:
    """Pixels as uint8. uint16 is scaled so that `value_range` (low, high) becomes 0 and 255, rounded and clipped.

    Raises UnreadableError for uint16 without a range: guessing one per tile would make seams.
    """
    if pixels.dtype == np.uint8:
        return np.asarray(pixels, dtype=np.uint8)
    if value_range is None:
        raise UnreadableError(
            "16-bit pixels without a range: add the column `range` to the manifest (for instance 0:4095), "
            "the values that become 0 and 255"
        )
    low, high = value_range
    values = np.clip(np.arange(1 << 16, dtype=np.int64), low, high) - low
    table = ((values * 510 + (high - low)) // (2 * (high - low))).astype(np.uint8)
    return np.asarray(table[pixels], dtype=np.uint8)


def size_of(path: Path) -> tuple[int, int]:
    """(height, width) in px from the header of an image file. Raises UnreadableError when there is none."""
    with path.open("rb") as file:
        head = file.read(1 << 16)
    if head.startswith(PNG_MAGIC) and len(head) >= 24:
        width, height = struct.unpack(">II", head[16:24])
        return height, width
    if head.startswith(JPEG_MAGIC):
        return _jpeg_size(head)
    if head.startswith(TIFF_MAGICS):
        try:
            with _tifffile().TiffFile(path) as tiff:
                page = tiff.pages.first
                return page.imagelength, page.imagewidth
        except Exception as error:  # tifffile raises a dozen unrelated types for damaged headers
            raise UnreadableError(f"{path}: damaged TIFF header: {error}") from error
    raise UnreadableError(f"{path}: wanted a PNG, JPEG or TIFF header, it begins with {head[:4]!r}")


def _grey(pixels: npt.NDArray[Any]) -> npt.NDArray[Any]:
    if pixels.dtype not in {np.dtype(np.uint8), np.dtype(np.uint16)}:
        raise UnreadableError(f"wanted 8- or 16-bit unsigned pixels, came {pixels.dtype}; convert the tile")
    if pixels.ndim == 3 and pixels.shape[2] in {1, 2, 3, 4}:
        channels = pixels.shape[2]
        colours = pixels[..., : channels - (channels in {2, 4})]
        if (colours != colours[..., :1]).any():
            raise UnreadableError("a colour image (its channels differ): EM tiles are grey; convert the tile to grey")
        if channels in {2, 4} and (pixels[..., -1] != np.iinfo(pixels.dtype).max).any():
            raise UnreadableError("an image with transparency: save the tile without an alpha channel")
        pixels = np.ascontiguousarray(colours[..., 0])
    if pixels.ndim != 2 or pixels.size == 0:
        raise UnreadableError(f"wanted one grey image (y, x), came an array of shape {pixels.shape}")
    return pixels


def _walk_png(data: bytes) -> None:
    """Follow the chunks to IEND and check their CRCs (PNG specification, section 5)."""
    at = len(PNG_MAGIC)
    while at + 12 <= len(data):
        (length,) = struct.unpack(">I", data[at : at + 4])
        kind, end = data[at + 4 : at + 8], at + 12 + length
        if end > len(data) or kind == b"\0\0\0\0":
            break
        (crc,) = struct.unpack(">I", data[end - 4 : end])
        if zlib.crc32(memoryview(data)[at + 4 : end - 4]) != crc:
            raise UnreadableError(f"PNG chunk {kind.decode('latin-1')} at byte {at} fails its checksum")
        if kind == b"IEND":
            return
        at = end
    raise TruncatedError(f"the PNG ends at byte {len(data)} without its IEND chunk")


def _walk_jpeg(data: bytes) -> None:
    """Follow the segments to the end-of-image marker (ITU T.81, annex B); bytes behind it are allowed."""
    at, scans = 2, 0
    while True:
        # Inside a scan the next marker is searched for; outside it stands at `at`, perhaps behind padding.
        found = _JPEG_MARKER.search(data, at)
        if found is None:
            break
        marker, at = data[found.start() + 1], found.start() + 2
        if marker == _END_OF_IMAGE:
            if scans:
                return
            break
        if at + 2 > len(data):
            break
        scans += marker == _START_OF_SCAN
        at += int.from_bytes(data[at : at + 2], "big")
    raise TruncatedError(f"the JPEG ends at byte {len(data)} without its end-of-image marker")


def _jpeg_size(head: bytes) -> tuple[int, int]:
    at = 2
    while (found := _JPEG_MARKER.search(head, at)) is not None:
        marker, at = head[found.start() + 1], found.start() + 2
        if marker in _JPEG_FRAMES and at + 7 <= len(head):
            return int.from_bytes(head[at + 3 : at + 5], "big"), int.from_bytes(head[at + 5 : at + 7], "big")
        at += int.from_bytes(head[at : at + 2], "big")
    raise UnreadableError("a JPEG without a frame header in its first 64 KiB")


def _tifffile() -> Any:
    import tifffile  # noqa: PLC0415 - not above: every process of every run would load it, and few see a TIFF

    return tifffile


def _decode_tiff(data: bytes) -> npt.NDArray[Any]:
    tifffile = _tifffile()
    try:
        with tifffile.TiffFile(io.BytesIO(data)) as tiff:
            if len(tiff.pages) != 1:
                raise UnreadableError(f"a TIFF of {len(tiff.pages)} pages: wanted one image per file; split it")
            page = tiff.pages.first
            ends = [a + n for a, n in zip(page.dataoffsets, page.databytecounts, strict=True)]
            if max(ends, default=0) > len(data):
                raise TruncatedError(f"the TIFF ends at byte {len(data)}, its pixels at byte {max(ends)}")
            pixels = np.asarray(page.asarray())
            inverted = page.photometric == tifffile.PHOTOMETRIC.MINISWHITE and pixels.dtype.kind == "u"
            return np.asarray(np.iinfo(pixels.dtype).max - pixels) if inverted else pixels
    except (struct.error, IndexError) as error:
        raise TruncatedError(f"the TIFF ends inside its header ({error})") from error
