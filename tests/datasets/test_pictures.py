"""Pictures of every format, mode and depth, as image and as label, against other readers.

Where another reader differs, `DEVIATIONS` says why ours is right.
"""

import json
import re
import struct
import zlib

import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813

from skte.datasets import check_dataset, inspect_dataset, load_dataset, read_case
from skte.exceptions import DatasetError

Image = pytest.importorskip("PIL.Image")
tifffile = pytest.importorskip("tifffile")

RNG = np.random.default_rng(0)
IDS = RNG.integers(0, 3, (7, 9)).astype(np.uint8)
IDS[0, :3] = 0, 1, 2
GREY = RNG.integers(0, 250, (7, 9)).astype(np.uint8)
RGB = RNG.integers(0, 250, (7, 9, 3)).astype(np.uint8)
OPAQUE = np.full((7, 9, 1), 255, np.uint8)
COLOURS = np.array([[0, 0, 0], [128, 0, 0], [0, 128, 64]], np.uint8)
SHADES = np.repeat(np.array([[0], [100], [200]], np.uint8), 3, axis=1)


def png(path, array, bits=8, colour=0, chunks=(), rows=b""):
    """Write a PNG by hand: Pillow knows neither 2 bits nor 16 of each colour."""
    height, width = array.shape[:2]
    header = struct.pack(">IIBBBBB", width, height, bits, colour, 0, 0, bool(rows))
    for row in () if rows else array.reshape(height, -1):
        packed = row.astype(">u2").tobytes() if bits == 16 else row.astype(np.uint8).tobytes()
        if bits < 8:
            each = np.unpackbits(row.astype(np.uint8)[:, None], axis=1)[:, 8 - bits :]
            packed = np.packbits(each.ravel()).tobytes()
        rows += b"\0" + packed
    content = b"\x89PNG\r\n\x1a\n"
    for kind, data in ((b"IHDR", header), *chunks, (b"IDAT", zlib.compress(rows)), (b"IEND", b"")):
        content += struct.pack(">I", len(data)) + kind + data
        content += struct.pack(">I", zlib.crc32(kind + data))
    path.write_bytes(content)


def interlaced(path):
    """Write a grey PNG in the seven passes of Adam7."""
    passes = [(0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2)]
    parts = [GREY[y::down, x::right] for x, y, right, down in (*passes, (0, 1, 1, 2))]
    png(path, GREY, rows=b"".join(b"\0" + row.tobytes() for part in parts for row in part))


def bmp(path, array, bits, palette, *, compression=0):
    """Write a BMP of up to 8 bits by hand, its rows upwards."""
    height, width = array.shape
    rows = b""
    for row in array[::-1]:
        each = np.unpackbits(row.astype(np.uint8)[:, None], axis=1)[:, 8 - bits :]
        packed = np.packbits(each.ravel()).tobytes()
        rows += packed + bytes(-len(packed) % 4)
    colours = b"".join(bytes([*colour[::-1], 0]) for colour in palette)
    start = 54 + len(colours)
    header = struct.pack("<2sIII", b"BM", start + len(rows), 0, start)
    header += struct.pack(
        "<IiiHHIIiiII", 40, width, height, 1, bits, compression, len(rows), 0, 0, len(palette), 0
    )
    path.write_bytes(header + colours + rows)


def tiff_of_differences(path, array, order="<"):
    """Write floats as predictor 3 has them: bytes of a row by significance, differences."""
    rows = array.astype(">f4").view(np.uint8).reshape(*array.shape, 4).transpose(0, 2, 1)
    rows = rows.reshape(len(array), -1)
    strip = zlib.compress(np.diff(rows, axis=1, prepend=np.uint8(0)).tobytes())
    height, width = array.shape
    tags = [
        (256, 4, width), (257, 4, height), (258, 3, 32), (259, 3, 8), (262, 3, 1), (273, 4, 8),
        (277, 3, 1), (278, 4, height), (279, 4, len(strip)), (317, 3, 3), (339, 3, 3),
    ]  # fmt: skip
    directory = struct.pack(f"{order}H", len(tags))
    for tag, kind, value in tags:
        number = struct.pack(f"{order}HH" if kind == 3 else f"{order}I", value, *[0] * (kind == 3))
        directory += struct.pack(f"{order}HHI", tag, kind, 1) + number
    magic = b"II*\0" if order == "<" else b"MM\0*"
    content = magic + struct.pack(f"{order}I", 8 + len(strip)) + strip + directory + bytes(4)
    path.write_bytes(content)


def by_pillow(array, mode=None, **options):
    def write(path):
        image = Image.fromarray(array)
        (image.convert(mode) if mode else image).save(path, **options)

    return write


def pillow_palette(array, colours, **options):
    def write(path):
        image = Image.fromarray(array)
        image = Image.frombytes("P", image.size, image.tobytes())
        image.putpalette(colours.ravel().tolist() + [0] * (768 - colours.size))
        image.save(path, **options)

    return write


def by_hand(writer, *arguments, **options):
    return lambda path: writer(path, *arguments, **options)


def by_tifffile(array, **options):
    return lambda path: tifffile.imwrite(path, array, **options)


PLTE = [(b"PLTE", COLOURS.tobytes())]
PNG = {
    "1 bit": (by_hand(png, IDS % 2, 1), IDS % 2),
    "2 bits": (by_hand(png, IDS, 2), IDS),
    "4 bits": (by_hand(png, IDS, 4), IDS),
    "8 bits": (by_pillow(GREY), GREY),
    "16 bits": (by_pillow(GREY.astype(np.uint16) * 257), GREY.astype(np.uint16) * 257),
    "grey with alpha": (by_pillow(np.dstack([GREY, OPAQUE]), "LA"), GREY),
    "RGB": (by_pillow(RGB), RGB),
    "RGBA of 16 bits": (
        by_hand(png, np.dstack([RGB, OPAQUE]).astype(int) * 257, 16, 6),
        RGB.astype(int) * 257,
    ),
    "RGB of 16 bits": (by_hand(png, RGB.astype(int) * 257, 16, 2), RGB.astype(int) * 257),
    "RGBA": (by_pillow(np.dstack([RGB, OPAQUE])), RGB),
    "palette": (pillow_palette(IDS, COLOURS), COLOURS[IDS]),
    "palette of 2 bits": (by_hand(png, IDS, 2, 3, PLTE), COLOURS[IDS]),
    "palette with a transparent colour": (
        by_hand(png, IDS, 8, 3, [*PLTE, (b"tRNS", b"\0")]),
        COLOURS[IDS],
    ),
    "palette of greys": (pillow_palette(IDS, SHADES), SHADES[IDS][..., 0]),
    "a transparent grey": (by_hand(png, GREY, 8, 0, [(b"tRNS", b"\0\1")]), GREY),
    "4 of 8 bits": (by_hand(png, GREY, 8, 0, [(b"sBIT", b"\4")]), GREY),
    "interlaced": (interlaced, GREY),
}
JPEG = {
    "grey": (by_pillow(GREY), "pillow"),
    "RGB": (by_pillow(RGB, subsampling=0), "pillow"),
    "progressive": (by_pillow(RGB, subsampling=0, progressive=True), "pillow"),
}
BMP = {
    "1 bit": (by_pillow((IDS % 2 * 255).astype(np.uint8), "1"), IDS % 2),
    "1 bit, white first": (
        by_hand(bmp, 1 - IDS % 2, 1, [(255, 255, 255), (0, 0, 0)]),
        IDS % 2,
    ),
    "4 bits": (by_hand(bmp, IDS, 4, COLOURS), COLOURS[IDS]),
    "8 bits": (by_pillow(GREY), GREY),
    "palette": (pillow_palette(IDS, COLOURS), COLOURS[IDS]),
    "RGB": (by_pillow(RGB), RGB),
    "RGBA": (by_pillow(np.dstack([RGB, OPAQUE])), RGB),
}
FIVE = RNG.integers(0, 250, (7, 9, 5)).astype(np.uint8)
SPREAD = {k: (GREY.astype(float) * 3).astype(k) for k in ("i1", "u2", "i2", "u4", "i4", "f4", "f8")}
SPREAD["f2"] = GREY.astype("f2")
PLAIN = {"photometric": "minisblack"}
LZW = {"compression": "tiff_lzw"}
SMOOTH = np.add.outer(np.arange(60), np.arange(70)).astype(np.uint16)
TIFF = {
    **{f"values {k}": (by_tifffile(v, **PLAIN), v) for k, v in SPREAD.items()},
    **{
        f"values {k}, the highest byte first": (by_tifffile(v, byteorder=">", **PLAIN), v)
        for k, v in SPREAD.items()
    },
    **{
        f"{n} samples, {planar}": (
            by_tifffile(
                FIVE[..., :n] if planar == "contig" else np.moveaxis(FIVE[..., :n], -1, 0),
                planarconfig=planar,
                **PLAIN,
            ),
            FIVE[..., :n],
        )
        for n in (2, 3, 4, 5)
        for planar in ("contig", "separate")
    },
    "RGB": (by_tifffile(RGB, photometric="rgb"), RGB),
    "RGB in planes": (
        by_tifffile(np.moveaxis(RGB, -1, 0), photometric="rgb", planarconfig="separate"),
        RGB,
    ),
    "RGBA": (by_tifffile(np.dstack([RGB, OPAQUE]), photometric="rgb"), RGB),
    "RGB of floats": (by_tifffile(RGB.astype("f4"), photometric="rgb"), RGB),
    "palette": (pillow_palette(IDS, COLOURS), COLOURS[IDS]),
    "palette of greys": (pillow_palette(IDS, SHADES), SHADES[IDS][..., 0]),
    "palette of ImageJ": (
        pillow_palette(IDS, COLOURS, tiffinfo={270: "ImageJ=1.54f\nmode=color\n"}),
        IDS,
    ),
    "white is zero": (by_tifffile(GREY, photometric="miniswhite"), GREY),
    **{
        f"1 bit, {codec}": (
            by_pillow((IDS % 2 * 255).astype(np.uint8), "1", compression=codec),
            IDS % 2,
        )
        for codec in (None, "packbits", "tiff_lzw", "group3", "group4", "tiff_ccitt")
    },
    **{
        f"{codec}": (by_pillow(SMOOTH, compression=codec), SMOOTH)
        for codec in ("packbits", "tiff_lzw", "tiff_deflate", "tiff_adobe_deflate")
    },
    "LZW of much": (by_pillow(np.tile(RGB, (30, 30, 1)), **LZW), np.tile(RGB, (30, 30, 1))),
    "LZW of floats": (by_pillow(SMOOTH.astype("f4"), **LZW), SMOOTH),
    "LZW of much with alpha": (
        by_pillow(np.dstack([np.tile(RGB, (30, 30, 1)), np.tile(OPAQUE, (30, 30, 1))]), **LZW),
        np.tile(RGB, (30, 30, 1)),
    ),
    "LZW with differences": (by_pillow(RGB, tiffinfo={317: 2}, **LZW), RGB),
    "tiles": (by_tifffile(SMOOTH, tile=(16, 32), **PLAIN), SMOOTH),
    "tiles in planes": (
        by_tifffile(
            np.stack([SMOOTH, SMOOTH + 1]), tile=(16, 16), planarconfig="separate", **PLAIN
        ),
        np.stack([SMOOTH, SMOOTH + 1], axis=-1),
    ),
    "deflated tiles": (by_tifffile(SMOOTH, tile=(16, 16), compression="zlib", **PLAIN), SMOOTH),
    "differences": (
        by_tifffile(SMOOTH, compression="zlib", predictor=2, byteorder=">", **PLAIN),
        SMOOTH,
    ),
    "differences of floats": (
        by_hand(tiff_of_differences, SMOOTH.astype("f4")),
        SMOOTH,
    ),
    "differences of floats, the highest byte first": (
        by_hand(tiff_of_differences, SMOOTH.astype("f4"), ">"),
        SMOOTH,
    ),
    "BigTIFF": (by_tifffile(SMOOTH, bigtiff=True, **PLAIN), SMOOTH),
    "a small copy beside": (
        lambda path: [
            tifffile.imwrite(path, SMOOTH, **PLAIN),
            tifffile.imwrite(path, SMOOTH[::4, ::4], subfiletype=1, append=True, **PLAIN),
        ],
        SMOOTH,
    ),
}
MATRIX = [
    pytest.param(ending, name, write, pixels, id=f"{ending} {name}")
    for ending, cases in ((".png", PNG), (".jpg", JPEG), (".bmp", BMP), (".tif", TIFF))
    for name, (write, pixels) in cases.items()
]
# Where a reader gives other numbers than those stored, as image or as label, and why. What it
# refuses is not compared.
DEVIATIONS = {
    ("itk", "image"): {
        r"(png|tif) [124] bits?": "spreads bits over 8; of one bit in TIFF it makes RGBA",
        r"transparent colour|of greys|bmp 8|tif palette": "shows colours, three also for greys",
        r"RGBA|much with alpha": "keeps alpha as a channel",
        r"f2": "takes halves for integers",
        r"samples|planes|tiles": "puts samples, planes and tiles in a row, or in others' places",
        r"4 of 8 bits": "drops the bits that do not count",
    },
    ("itk", "label"): {
        r"(png|tif) [124] bits?|f2|tiles|4 of 8 bits": "as for images",
        r"palette|bmp 8": "shows the colours of indices",
    },
    ("pillow", "image"): {
        r"png [24] bits": "spreads bits over 8",
        r"(RGB|alpha|RGBA) of 16": "drops the lower 8 bits",
        r"(png|bmp|tif) palette(?! of ImageJ)|bmp 4": "returns indices for an image, too",
        r"white": "turns values round to brightness, or bits back",
        r"(png|tif) RGBA|with alpha": "keeps alpha as a channel",
        r"i1": "takes it for unsigned",
        r"2 samples, contig": "leaves out the second sample",
        r"floats, the highest": "swaps the bytes once too often",
    },
    ("pillow", "label"): {
        r"png [24] bits|white|i1|floats, the highest": "as for images",
        r"with alpha": "keeps alpha as a channel",
    },
    ("tifffile", "image"): {
        r"palette(?! of ImageJ)": "returns indices for an image, too",
        r"RGBA": "keeps alpha as a channel",
        r"planes|separate": "has channels first",
    },
    ("tifffile", "label"): {},
}


def case_of(tmp_path, image, label):
    return load_dataset([{"id": "a", "image": image, "label": label}])[0]


def as_stored(case):
    """Image (y, x, channels) of a 2-D case."""
    return case.image[..., 0].numpy().transpose(2, 1, 0)


def as_label(name, pixels):
    """Ids of a picture; a text where it is refused."""
    if "palette" in name or (name == "4 bits" and pixels.ndim == 3):
        return IDS
    if isinstance(pixels, str):
        return "JPEG, which changes ids"
    if pixels.ndim == 3:
        return "samples per pixel"
    return pixels if pixels.min() >= 0 else "negative values"


@pytest.mark.slow
@pytest.mark.parametrize(("ending", "name", "write", "pixels"), MATRIX)
def test_pictures_as_image_and_as_label(tmp_path, ending, name, write, pixels):
    path = tmp_path / f"a{ending}"
    write(path)
    ids = as_label(name, pixels)
    pixels = read_by_pillow(path) if isinstance(pixels, str) else pixels
    mask = np.zeros(pixels.shape[1::-1], np.uint8)
    mask[: len(mask) // 2] = 1
    partner = {"id": "a", "affine": np.diag([-1, -1, 1, 1])}
    read = read_case(load_dataset([partner | {"image": path, "label": mask}])[0])
    expected = pixels.reshape(*pixels.shape[:2], -1)
    np.testing.assert_array_equal(as_stored(read), expected.astype(np.float32))
    assert read.spacing == (1, 1, 1)
    case = load_dataset([partner | {"image": mask, "label": path}])[0]
    if isinstance(ids, str):
        with pytest.raises(DatasetError, match=ids):
            read_case(case)
    else:
        np.testing.assert_array_equal(read_case(case).label[..., 0].numpy().T, ids)
    others = {"itk": read_by_itk, "pillow": read_by_pillow, "tifffile": read_by_tifffile}
    for (reader, use), known in DEVIATIONS.items():
        seen, right = others[reader](path), expected if use == "image" else ids
        if seen is None or isinstance(right, str):
            continue
        right = right.reshape(*right.shape[:2], -1)
        alike = seen.shape == right.shape and (seen == right).all()
        kinds = [kind for kind in known if re.search(kind, f"{ending[1:]} {name}")]
        assert alike == (not kinds), f"{reader}, {use}: {kinds or 'not explained'}"


@pytest.mark.parametrize("bits", [4, 8])
def test_a_palette_of_white_and_black_is_one_where_pixels_have_more_than_a_bit(tmp_path, bits):
    path = tmp_path / "a.bmp"
    bmp(path, IDS % 2, bits, [(255, 255, 255), (0, 0, 0)])
    case = read_case(case_of(tmp_path, path, path))
    np.testing.assert_array_equal(as_stored(case)[..., 0], (1 - IDS % 2) * 255)
    np.testing.assert_array_equal(case.label[..., 0].numpy().T, IDS % 2)


def read_by_itk(path):
    try:
        seen = sitk.GetArrayFromImage(sitk.ReadImage(str(path)))
    except RuntimeError:
        return None
    return seen.reshape(*seen.shape[:2], -1)


def read_by_pillow(path):
    try:
        with Image.open(path) as image:
            seen = np.asarray(image)
    except (OSError, ValueError):
        return None
    return seen.reshape(*seen.shape[:2], -1)


def read_by_tifffile(path):
    if path.suffix != ".tif":
        return None
    try:
        seen = tifffile.imread(path, key=0)
    except ValueError:  # without imagecodecs
        return None
    return seen.reshape(*seen.shape[:2], -1)


def test_ids_of_a_palette_of_one_colour(tmp_path):
    png(tmp_path / "image.png", GREY)
    pillow_palette(IDS, np.zeros((3, 3), np.uint8))(tmp_path / "a.png")
    label = read_case(case_of(tmp_path, tmp_path / "image.png", tmp_path / "a.png")).label
    np.testing.assert_array_equal(label[..., 0].numpy().T, IDS)


def lzw_of_tiles(path):
    """Write a TIFF whose tiles are said to be compressed by LZW."""
    tifffile.imwrite(path, SMOOTH, tile=(16, 16), **PLAIN)
    with tifffile.TiffFile(path) as file:
        at = file.pages[0].tags["Compression"].valueoffset
    path.write_bytes(path.read_bytes()[:at] + b"\5\0" + path.read_bytes()[at + 2 :])


CMYK = Image.merge("CMYK", [Image.fromarray(GREY)] * 4)
REFUSED_LABELS = {
    "JPEG": (".jpg", by_pillow(GREY), "JPEG, which changes ids.*magick a.jpg -threshold"),
    "JPEG called PNG": (".png", by_pillow(GREY, format="JPEG"), "JPEG, which changes ids"),
    "JPEG in TIFF": (".tif", by_pillow(GREY, compression="jpeg"), "JPEG, which changes ids"),
    "colours": (".png", by_pillow(RGB), "true colour picture of 3 samples.*an id"),
    "colours with alpha": (".tif", by_pillow(np.dstack([RGB, OPAQUE])), "true colour picture"),
    "samples": (
        ".tif",
        by_tifffile(FIVE, planarconfig="contig", **PLAIN),
        "5 samples per pixel, where a label has one",
    ),
}
REFUSED = {
    "CMYK in JPEG": (".jpg", CMYK.save, "4 samples per pixel, as CMYK"),
    "CMYK in TIFF": (".tif", CMYK.save, "holds CMYK values.*magick"),
    "L*a*b*": (".tif", by_tifffile(RGB, photometric="cielab"), r"holds CIE L\*a\*b\* values"),
    "complex": (".tif", by_tifffile(RGB[..., 0].astype("c8"), **PLAIN), "of a type that is not"),
    "grey with alpha of 16 bits": (
        ".png",
        by_hand(png, np.dstack([GREY, OPAQUE]).astype(int) * 257, 16, 4),
        "16 bits for each of grey and alpha.*magick",
    ),
    "LZW of tiles": (
        ".tif",
        lambda path: lzw_of_tiles(path),
        r"compression that is not read for them \(number 5.*magick",
    ),
    **{
        f"{name} to be rotated": (
            ".tif",
            by_pillow(array, mode, compression=packing, tiffinfo={274: 6}),
            "states how to rotate it.*magick",
        )
        for name, array, mode, packing in (
            ("LZW", GREY, None, "tiff_lzw"),
            ("palette of LZW", GREY, "P", "tiff_lzw"),
            ("fax", GREY, "1", "group4"),
        )
    },
    "differences in PackBits": (
        ".tif",
        by_pillow(GREY, compression="packbits", tiffinfo={317: 2}),
        r"number 32773, predictor 2",
    ),
    "tiles of bits": (
        ".tif",
        by_tifffile(RGB > 99, tile=(16, 16), photometric="rgb"),
        "compression that is not read",
    ),
    "run lengths": (".bmp", by_hand(bmp, IDS, 8, COLOURS, compression=1), "BMP .* compression 1"),
    "black and white of 8 bits": (
        ".bmp",
        by_hand(bmp, IDS % 2, 8, [(0, 0, 0), (255, 255, 255)]),
        "BMP .* 8 bits with a palette for 1",
    ),
    "greys of 4 bits": (
        ".bmp",
        by_hand(bmp, IDS, 4, [(i, i, i) for i in range(16)]),
        "BMP .* 4 bits with a palette for 8",
    ),
    "no picture": (".png", lambda path: path.write_bytes(b"GIF89a" + bytes(64)), "is not a PNG"),
    "pages of two sizes": (
        ".tif",
        lambda path: [
            tifffile.imwrite(path, SMOOTH, **PLAIN),
            tifffile.imwrite(path, SMOOTH[::2], append=True, **PLAIN),
        ],
        "pages that differ in size.*tiffsplit",
    ),
    "cut short": (
        ".tif",
        lambda path: [
            by_tifffile(SMOOTH, **PLAIN)(path),
            path.write_bytes(path.read_bytes()[:-99]),
        ],
        "cut short|does not lie in the file",
    ),
    "JPEG cut short": (
        ".jpg",
        lambda path: [
            by_pillow(np.tile(RGB, (9, 9, 1)))(path),
            path.write_bytes(path.read_bytes()[:-500]),
        ],
        "cut short|JPEG, which changes ids",
    ),
    "BMP cut short": (
        ".bmp",
        lambda path: [by_pillow(GREY)(path), path.write_bytes(path.read_bytes()[:-9])],
        "cut short",
    ),
}


@pytest.mark.parametrize(
    ("kind", "ending", "write", "what"),
    [
        pytest.param(kind, *case, id=f"{kind} {name}")
        for kind, cases in (("label", REFUSED_LABELS), ("image", REFUSED), ("label", REFUSED))
        for name, case in cases.items()
    ],
)
def test_what_is_refused_is_named(tmp_path, kind, ending, write, what):
    png(tmp_path / "other.png", IDS)
    path = tmp_path / f"a{ending}"
    write(path)
    files = (path, tmp_path / "other.png")
    case = case_of(tmp_path, *(files if kind == "image" else files[::-1]))
    with pytest.raises(DatasetError, match=f"(?s)a{ending}.*{what}"):
        read_case(case)


def stacked(array, **options):
    """Slices (z, y, x) of a TIFF as a case's image (channels, x, y, z)."""
    return lambda path: tifffile.imwrite(path, array, **options)


def one_page_for_all(path):
    """Write a stack as ImageJ does beyond 4 GB: one page, with all slices after it."""
    text = f"ImageJ=1.54f\nimages={len(VOLUME)}\nslices={len(VOLUME)}\nunit=pixel\n"
    tifffile.imwrite(path, VOLUME[0], description=text, metadata=None, **PLAIN)
    with tifffile.TiffFile(path) as file:
        tag = file.pages[0].tags["StripOffsets"].valueoffset
    content = bytearray(path.read_bytes())
    struct.pack_into("<I", content, tag, len(content))
    path.write_bytes(bytes(content) + VOLUME.tobytes())


VOLUME = RNG.integers(0, 250, (5, 7, 9)).astype(np.uint8)
CHANNELS = RNG.integers(0, 250, (5, 2, 7, 9)).astype(np.uint8)  # z, c, y, x
IMAGEJ = {"imagej": True}
MICRON = {"resolution": (1 / 0.5, 1 / 0.25)}
STACKS = {
    "slices": (stacked(VOLUME, **PLAIN), VOLUME[:, None], (1, 1, 1)),
    "colours": (
        stacked(np.stack([RGB, RGB + 1]), photometric="rgb"),
        np.moveaxis(np.stack([RGB, RGB + 1]), -1, 1),
        (1, 1, 1),
    ),
    "ImageJ": (
        stacked(
            VOLUME, metadata={"axes": "ZYX", "spacing": 2.0, "unit": "um"}, **MICRON, **IMAGEJ
        ),
        VOLUME[:, None],
        (0.0005, 0.00025, 0.002),
    ),
    "ImageJ with channels": (
        stacked(CHANNELS, metadata={"axes": "ZCYX", "unit": "mm", "spacing": 3}, **IMAGEJ),
        CHANNELS,
        (1, 1, 3),
    ),
    "ImageJ with channels, for printing": (
        stacked(CHANNELS, metadata={"axes": "ZCYX", "unit": "inch"}, **MICRON, **IMAGEJ),
        CHANNELS,
        (1, 1, 1),
    ),
    "OME": (
        stacked(
            np.moveaxis(CHANNELS, 1, 0),
            ome=True,
            metadata={
                "axes": "CZYX", "PhysicalSizeX": 500, "PhysicalSizeXUnit": "nm",
                "PhysicalSizeY": 0.25, "PhysicalSizeZ": 2,
            },
            **PLAIN,
        ),
        CHANNELS,
        (0.0005, 0.00025, 0.002),
    ),
    "ImageJ with one page for all": (one_page_for_all, VOLUME[:, None], (1, 1, 1)),
}  # fmt: skip


@pytest.mark.parametrize("name", STACKS)
def test_stacks(tmp_path, name):
    write, expected, spacing = STACKS[name]
    write(tmp_path / "a.tif")
    tifffile.imwrite(tmp_path / "label.tif", (expected[:, 0] > 100).astype(np.uint8), **PLAIN)
    case = read_case(case_of(tmp_path, tmp_path / "a.tif", tmp_path / "label.tif"))
    np.testing.assert_array_equal(case.image.numpy(), expected.transpose(1, 3, 2, 0))
    np.testing.assert_allclose(case.spacing, spacing)
    stated = "ImageJ or OME states" in str(case.notes)
    assert stated == (spacing != (1, 1, 1)), case.notes


def test_several_parts_and_times_are_refused(tmp_path):
    many = np.zeros((2, 3, 7, 9), np.uint8)
    tifffile.imwrite(tmp_path / "t.tif", many, imagej=True, metadata={"axes": "TZYX"})
    description = (
        '<OME><Image><Pixels DimensionOrder="XYZCT" Type="uint8" SizeX="9" SizeY="7" SizeZ="5" '
        'SizeC="1" SizeT="1"><TiffData/></Pixels></Image></OME>'
    )
    tifffile.imwrite(tmp_path / "p.tif", GREY, description=description, metadata=None)
    png(tmp_path / "label.png", IDS)
    for name, what in (("t", "slices and points in time"), ("p", "one of 5 parts")):
        with pytest.raises(DatasetError, match=what):
            read_case(case_of(tmp_path, tmp_path / f"{name}.tif", tmp_path / "label.png"))


@pytest.mark.parametrize("ending", [".jpg", ".png", ".bmp", ".tif"])
def test_resolution_for_printing_is_no_spacing(tmp_path, ending):
    Image.fromarray(RGB).save(tmp_path / f"a{ending}", dpi=(72, 72))
    png(tmp_path / "label.png", IDS)
    case = read_case(case_of(tmp_path, tmp_path / f"a{ending}", tmp_path / "label.png"))
    assert case.spacing == (1, 1, 1)


def test_commands_in_messages_quote_names(tmp_path):
    png(tmp_path / "a.png", GREY)
    name = "b; $(reboot).jpg"
    Image.fromarray(GREY).save(tmp_path / name)
    with pytest.raises(DatasetError, match=r"magick 'b; \$\(reboot\)\.jpg' -threshold"):
        read_case(case_of(tmp_path, tmp_path / "a.png", tmp_path / name))


@pytest.mark.parametrize("ending", [".jpg", ".png", ".tif"])
def test_a_picture_to_be_shown_turned_is_noted(tmp_path, ending):
    exif = Image.Exif()
    exif[274] = 3
    Image.fromarray(RGB).save(tmp_path / f"a{ending}", exif=exif)
    png(tmp_path / "label.png", IDS)
    case = read_case(case_of(tmp_path, tmp_path / f"a{ending}", tmp_path / "label.png"))
    assert "rotate it (orientation 3)" in str(case.notes)


def test_alpha_that_says_something_is_noted(tmp_path):
    alpha = np.where(IDS > 0, 255, 0).astype(np.uint8)
    Image.fromarray(np.dstack([RGB, alpha])).save(tmp_path / "a.png")
    png(tmp_path / "label.png", IDS)
    case = case_of(tmp_path, tmp_path / "a.png", tmp_path / "label.png")
    report = inspect_dataset([case, case])
    assert [n.what for n in report.notes if "alpha" in n.what] == [
        "image: its alpha channel differs between pixels and is left out (in 2 cases: a, a)"
    ]
    assert read_case(case).image.shape[0] == 3


def test_spacing_in_a_file_beside(tmp_path):
    tifffile.imwrite(tmp_path / "s_0000.tif", VOLUME, **PLAIN)
    tifffile.imwrite(tmp_path / "label.tif", (VOLUME > 100).astype(np.uint8), **PLAIN)
    beside = tmp_path / "s.json"
    beside.write_text(json.dumps({"spacing": [80, 7.6, 7.5]}))
    case = case_of(tmp_path, tmp_path / "s_0000.tif", tmp_path / "label.tif")
    assert read_case(case).spacing == (7.5, 7.6, 80)
    for spacing in ([1, 2], [0, 1, 1], ["1", 1, 1], [1, 1, float("inf")], None, 3, [1, 1, 1, 1]):
        beside.write_text(json.dumps({"spacing": spacing}))
        if spacing == [1, 2]:
            assert read_case(case).spacing == (2, 1, 1)
            continue
        with pytest.raises(DatasetError, match=r"s\.json beside it, whose 'spacing' is"):
            read_case(case)
    beside.write_text("{")
    with pytest.raises(DatasetError, match=r"s\.json beside it, which is not valid JSON"):
        read_case(case)
    beside.write_text("[]")
    assert read_case(case).spacing == (1, 1, 1)


def test_the_file_beside_counts_in_the_fingerprint(tmp_path):
    from skte.datasets import case_fingerprint, case_stamp

    tifffile.imwrite(tmp_path / "a.tif", VOLUME, **PLAIN)
    tifffile.imwrite(tmp_path / "label.tif", (VOLUME > 100).astype(np.uint8), **PLAIN)
    case = case_of(tmp_path, tmp_path / "a.tif", tmp_path / "label.tif")
    before = case_fingerprint(case), case_stamp(case)
    (tmp_path / "a.json").write_text(json.dumps({"spacing": [3, 1, 1]}))
    assert case_fingerprint(case) != before[0]
    assert case_stamp(case) != before[1]


def test_a_palette_loaded_by_torchio_is_another_label(tmp_path):
    from skte.datasets import case_fingerprint

    pillow_palette(IDS, COLOURS)(tmp_path / "label.png")
    png(tmp_path / "a.png", GREY)
    case = case_of(tmp_path, tmp_path / "a.png", tmp_path / "label.png")
    before = case_fingerprint(case)
    case["label"].load()  # colours, as torchio reads them
    assert case_fingerprint(case) != before


def test_pictures_that_promise_much_are_refused_before_they_are_read(tmp_path):
    png(tmp_path / "label.png", IDS)
    huge = b"IHDR" + struct.pack(">IIBBBBB", 2**20, 2**20, 8, 0, 0, 0, 0)
    path = tmp_path / "a.png"
    png(path, GREY)
    content = path.read_bytes()
    path.write_bytes(content[:12] + huge + struct.pack(">I", zlib.crc32(huge)) + content[33:])
    assert "would take" in " ".join(
        check_dataset([case_of(tmp_path, path, tmp_path / "label.png")])
    )
    with pytest.raises(DatasetError, match="would take"):
        read_case(case_of(tmp_path, path, tmp_path / "label.png"))


def test_tags_that_overlap_are_refused(tmp_path):
    """Many pages that share one large list of strips: each of them would be read."""
    n_pages, n = 3000, 20_000
    entry = struct.pack("<HHII", 273, 4, n, 8)
    content = b"II*\0" + struct.pack("<I", 8 + 4 * n) + bytes(4 * n)
    for i in range(n_pages):
        after = len(content) + 2 + 12 + 4
        content += struct.pack("<H", 1) + entry + struct.pack("<I", after if i + 1 < n_pages else 0)
    (tmp_path / "a.tif").write_bytes(content)
    png(tmp_path / "label.png", IDS)
    with pytest.raises(DatasetError, match="tags overlap"):
        read_case(case_of(tmp_path, tmp_path / "a.tif", tmp_path / "label.png"))


def test_strips_that_overlap_are_refused(tmp_path):
    """Each of many pages names all of the file as its strip."""
    pages = [GREY] * 20
    tifffile.imwrite(tmp_path / "a.tif", np.stack(pages), compression="zlib", **PLAIN)
    with tifffile.TiffFile(tmp_path / "a.tif") as file:
        at = [page.tags["StripByteCounts"].valueoffset for page in file.pages]
    content = bytearray((tmp_path / "a.tif").read_bytes())
    for position in at:
        struct.pack_into("<I", content, position, len(content) // 2)
    (tmp_path / "a.tif").write_bytes(bytes(content))
    png(tmp_path / "label.png", IDS)
    with pytest.raises(DatasetError, match="strips or tiles that overlap"):
        read_case(case_of(tmp_path, tmp_path / "a.tif", tmp_path / "label.png"))


def test_deflated_pages_that_grow_beyond_what_their_header_says_are_refused(tmp_path):
    """A strip of 64 MB in a page of 63 pixels."""
    stream = zlib.compress(bytes(range(64)) * 2**20, 9)
    tifffile.imwrite(tmp_path / "a.tif", GREY, compression="zlib", **PLAIN)
    with tifffile.TiffFile(tmp_path / "a.tif") as file:
        page = file.pages[0]
        at = {page.tags[k].name: page.tags[k].valueoffset for k in (273, 279)}
    content = bytearray((tmp_path / "a.tif").read_bytes())
    struct.pack_into("<I", content, at["StripOffsets"], len(content))
    struct.pack_into("<I", content, at["StripByteCounts"], len(stream))
    (tmp_path / "a.tif").write_bytes(bytes(content) + stream)
    png(tmp_path / "label.png", IDS)
    with pytest.raises(DatasetError, match="strips that unpack to more"):
        read_case(case_of(tmp_path, tmp_path / "a.tif", tmp_path / "label.png"))
