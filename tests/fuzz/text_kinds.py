"""Text in many encodings, packed text, archives of pages, vocabularies."""
from __future__ import annotations

import bz2
import codecs
import gzip
import io
import json
import lzma
import tarfile

from configs import reading as config_reading
from configs.errors import UserError
from datasets import cleaning, documents, encodings, packed
from datasets.crawl import charsets
from datasets.pages import archives, warc
from encoder import bpe, formats
from encoder import vocabulary_files as names_of_files
from tests.fuzz.driver import Kind, Wrong
from tests.fuzz.mutations import changed_bytes, changed_json, changed_value, text_of

HONEST = ("utf-8", "utf-8-sig", "utf-16")  # which tell what they are
OTHERS = ("latin-1", "cp1251", "gbk", "shift_jis", "koi8-r", "utf-32", "utf-16-le", "utf-16-be", "cp037", "utf-7")


def nothing(folder):
    return None


def encoded(draw, _, folder):
    """A file in an encoding: its text comes back, or it is left out; nothing becomes U+FFFD."""
    text = bpe.well_formed(text_of(draw, 200)).replace("\ufffd", "")
    name = draw.choice(HONEST + OTHERS)
    data = text.encode(name, "ignore")
    if name in OTHERS:
        text = data.decode(name)
    given = draw.choice((None, None, name, encodings.DETECT)) if name not in ("utf-7",) else None
    (folder / "x.txt").write_bytes(data)

    def act():
        reading = documents.cutting.USUAL._replace(encoding=given)
        index = documents.make_index([str(folder)], scratch=str(folder / "scratch"), reading=reading)
        read = documents.read(index, 0)
        if read.text is None:
            if data.startswith(codecs.BOM_UTF32_LE):  # or UTF-16 that begins with a zero: nobody knows
                return
            if name in HONEST and config_reading.is_text(data if name != "utf-16" else text.encode()):
                raise Wrong(f"{name} is left out ({read.problem})")
            return
        if name in HONEST and read.text.replace("\ufeff", "") != text.replace("\ufeff", ""):  # marks of byte order
            raise Wrong(f"{name}: another text")
        if "\ufffd" in read.text and "\ufffd" not in text:
            raise Wrong(f"{name} became U+FFFD")
        # What is neither marked nor valid UTF-8 may not be guessed without --encoding.
        if given is None and name in OTHERS and read.text != text:
            strict = [data.decode(other) for other in ("utf-8-sig", "utf-16") if _decodes(data, other)]
            if read.text not in strict:
                raise Wrong(f"{name} was read as something else")
    return act


def _decodes(data, name):
    try:
        data.decode(name)
        return True
    except UnicodeError:
        return False


def lines(draw, _, folder):
    """Lines of JSON, packed or not: each is read, or counted."""
    good = [{"text": bpe.well_formed(text_of(draw)), "n": number} for number in range(draw.randrange(1, 5))]
    rows = [json.dumps(row).encode() if draw.random() < 0.6 else changed_json(draw, row).replace(b"\n", b" ")
            for row in good]
    data, ending = b"\n".join(rows), draw.choice((".jsonl", ".jsonl.gz", ".jsonl.zst"))
    if ending.endswith("gz"):
        data = gzip.compress(data)
    elif ending.endswith("zst"):
        import zstandard
        data = zstandard.compress(data)
    hurt = draw.random() < 0.4 and ending != ".jsonl"
    (folder / f"x{ending}").write_bytes(changed_bytes(draw, data) if hurt else data)

    def act():
        index = documents.make_index([str(folder / f"x{ending}")], scratch=str(folder / "scratch"))
        texts = [documents.read(index, number) for number in range(len(index.file))]
        for read in texts:
            if not (isinstance(read.text, str) or read.problem):
                raise Wrong(f"{read}")
        for row, line in zip(good, rows):
            if not hurt and line == json.dumps(row).encode() and row["text"].replace("\ufeff", "") not in [
                    (read.text or "").replace("\ufeff", "") for read in texts]:
                raise Wrong(f"a line is lost: {row}")
    return act


def bomb(draw, _, folder):
    """Packed data that unpacks to much, or says that it does."""
    import zstandard
    size = draw.choice((10**6, 10**7, 3 * 10**7))
    data = bytes(size) if draw.random() < 0.5 else b"[" * size
    kind = draw.choice(("gz", "zst", "declared"))
    if kind == "declared":  # a frame of Zstandard that says 2**62 bytes
        body = zstandard.compress(b"x" * 100)
        data = body[:4] + b"\xe0" + (2**62).to_bytes(8, "little") + body[6:]
    else:
        data = gzip.compress(data) if kind == "gz" else zstandard.compress(data)
    path = folder / f"x.jsonl.{'gz' if kind == 'gz' else 'zst'}"
    path.write_bytes(data)
    return lambda: packed.unpack(str(path), str(folder))


PAGES = {f"{number:07d}-{number:032x}.txt": b"page %d " % number * 20 for number in range(4)}
COMPRESS = {"xz": lzma.compress, "gz": gzip.compress, "bz2": bz2.compress}


def tar_of(draw, hostile):
    """Bytes of a tar of PAGES; `hostile`: with members that no honest program writes."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=draw.choice((tarfile.PAX_FORMAT, tarfile.GNU_FORMAT))) as tar:
        for name, page in PAGES.items():
            member = tarfile.TarInfo(name)
            member.size = len(page)
            tar.addfile(member, io.BytesIO(page))
    data = bytearray(out.getvalue())
    for _ in range(hostile):
        member = tarfile.TarInfo(draw.choice((
            "../up.txt", "/abs.txt", "x\n.txt", "a" * 300 + ".txt", "é.txt", "x.txt", "0000001-" + "1" * 32 + ".txt",
            "\udcff.txt", "dir/", "x.exe")))
        member.type = bytes([draw.choice(b"0123456789xgLKSV")])
        member.size = draw.choice((0, 1, 512, 10**7, 2**33, 2**62, 2**63 - 1))
        member.linkname = draw.choice(("", "/etc/passwd", "x" * 200))
        if draw.random() < 0.3:
            member.pax_headers = {draw.choice(("size", "path", "mtime", "x")): draw.choice(
                ("-1", str(2**62), "9" * 400, "x", "../../x", "nan", ""))}
        header = member.tobuf(tarfile.PAX_FORMAT if member.pax_headers else tarfile.GNU_FORMAT, "utf-8",
                              "surrogateescape")
        place = 512 * draw.randrange(len(data) // 512 + 1)
        data[place:place] = header + bytes(draw.choice((0, 512, 1024)))
    return bytes(data)


def archive(draw, _, folder):
    ending = draw.choice([*COMPRESS])
    hostile = draw.choice((0, 1, 1, 2))
    plain = tar_of(draw, hostile)
    if draw.random() < 0.3:
        plain = changed_bytes(draw, plain)
        hostile = True
    data = COMPRESS[ending](plain)
    hurt = draw.random() < 0.3
    path = folder / f"RS_2017-04-1_data.{ending}"
    path.write_bytes(changed_bytes(draw, data) if hurt else data)

    def act():
        found = {stem: page for stem, page, reason, _ in archives.members(str(path)) if not reason}
        if not hostile and {stem + ".txt": page for stem, page in found.items()} != PAGES:
            raise Wrong("other pages")
        if any("/" in stem or stem in ("", "..") for stem in found):
            raise Wrong(f"unsafe names {[*found]}")
    return act


def warc_file(draw, _, folder):
    from tests.datasets.pages.test_warc import RECORDS
    chosen = draw.sample(RECORDS, draw.randrange(1, 5))
    data = b"".join(gzip.compress(part) for part in chosen) if draw.random() < 0.5 else b"".join(chosen)
    if draw.random() < 0.3:
        data = data.replace(b"Content-Length: ", b"Content-Length: " + draw.choice((
            b"9" * 19, b"-1", b"9" * 400, b"0x", b"1")), draw.choice((1, 2)))
    (folder / "x.warc").write_bytes(changed_bytes(draw, data) if draw.random() < 0.8 else data)

    def act():
        for stem, page, reason, _ in warc.members(str(folder / "x.warc"), 20_000):
            if not reason and (len(page) > 200_000 or not isinstance(stem, str)):
                raise Wrong("a page that is too large")
    return act


def web_page(draw, _, folder):
    text = bpe.well_formed(text_of(draw, 300))
    name = draw.choice(HONEST + OTHERS)
    head = f'<meta charset="{draw.choice((name, "x", "", "utf-16", "a" * 50))}">'
    data = changed_bytes(draw, (head + text).encode(name, "ignore"))

    def act():
        charsets.decode(data, draw.choice((None, name, "nonsense", "", "\ud800", "utf-8"))).encode("utf-8")
    return act


def repaired(draw, _, folder):
    """Cleaning gives text that UTF-8 can hold, and leaves clean ASCII as it is."""
    text = text_of(draw, 300)
    if draw.random() < 0.4:
        text = bpe.well_formed(text).encode().decode("latin-1")

    def act():
        for rule in cleaning.RULES:
            clean = cleaning.clean(text, rule)
            clean.encode()
            if text.isascii() and rule != cleaning.ORIGINAL and bpe.line_ends(clean) != bpe.line_ends(text):
                raise Wrong(f"{rule} changes ASCII")
        import ftfy
        if cleaning.clean(text, cleaning.ORIGINAL) != bpe.well_formed(ftfy.fix_text(text, normalization="NFKC")):
            raise Wrong("the fast path is not ftfy's result")
    return act


def vocabulary(folder):
    """Paths of the files of a small vocabulary, by every name."""
    symbols = bpe.byte_symbols()
    pairs = [(symbols[a], symbols[b]) for a, b in zip(b"thinerand ", b"hengnde t")]
    bpe.write(str(folder / "v"), pairs)
    files = bpe.read_files(str(folder / "v"))
    formats.write_hugging_face(str(folder / "v"), files, 16)
    tokens = json.loads(files[bpe.TOKENS_FILE])
    (folder / "v" / names_of_files.WHOLE_FILE).write_text(json.dumps(
        {"model": {"type": "BPE", "vocab": tokens, "merges": [" ".join(pair) for pair in pairs]},
         "pre_tokenizer": {"type": "ByteLevel"},
         "added_tokens": [{"content": bpe.END_OF_TEXT, "id": len(tokens) - 1}]}))
    return {path.name: path.read_bytes() for path in (folder / "v").iterdir()}


def vocabulary_files(draw, files, folder):
    names = draw.choice((("encoder.json", "vocab.bpe"), ("vocab.json", "merges.txt"), ("tokenizer.json",)))
    hurt = draw.choice(names)
    for name in names:
        data = files[name]
        if name == hurt:
            data = changed_json(draw, json.loads(data)) if name.endswith("json") else changed_bytes(draw, data)
        (folder / name).write_bytes(data)
    texts = [bpe.well_formed(text_of(draw)) for _ in range(3)]

    def act():
        found = formats.find(str(folder))
        if found is None:
            raise UserError("none")
        encoder = formats.write(str(folder / "w"), found)
        for text in texts:
            ids = encoder.encode(text)
            if encoder.decode(ids) != text or any(not 0 <= i < encoder.size for i in ids):
                raise Wrong(f"{text!r} becomes {encoder.decode(ids)!r}")
        if not 0 <= encoder.eot < encoder.size:
            raise Wrong(f"eot {encoder.eot}")
    return act


def tokens_file(draw, files, folder):
    """A vocabulary in which single ids and tokens are others."""
    tokens = json.loads(files["encoder.json"])
    (folder / "encoder.json").write_text(json.dumps(changed_value(draw, tokens, ("<|endoftext|>", "th"))))
    (folder / "vocab.bpe").write_bytes(files["vocab.bpe"])
    text = bpe.well_formed(text_of(draw))

    def act():
        encoder = bpe.load(str(folder))
        if encoder.decode(encoder.encode(text)) != text:
            raise Wrong(f"{text!r}")
    return act


KINDS = (Kind("text file", "text", nothing, encoded), Kind("lines of JSON", "text", nothing, lines),
         Kind("packed", "sizes", nothing, bomb), Kind("archive", "archives", nothing, archive),
         Kind("WARC", "archives", nothing, warc_file), Kind("web page", "text", nothing, web_page),
         Kind("cleaning", "text", nothing, repaired), Kind("vocabulary", "vocabulary", vocabulary, vocabulary_files),
         Kind("encoder.json", "vocabulary", vocabulary, tokens_file))
