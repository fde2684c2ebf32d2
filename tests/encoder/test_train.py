"""encoder/train.py: a vocabulary learned from text."""
import gzip
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter

import pytest
from tokenizers import ByteLevelBPETokenizer, pre_tokenizers

from benchmarks import machine
from configs.errors import UserError
from encoder import bpe, train
from tests.helpers.runs import ROOT
from tests.helpers.waiting import wait_until

SIZE = 350


@pytest.fixture
def corpus(tmp_path):
    folder = tmp_path / "text"
    folder.mkdir()
    verse = "It is a truth universally acknowledged, that a naïve reader isn't in want of 1813 copies.\n"
    words = [verse[i:i + n] for n in (3, 5, 8, 13, 21) for i in range(0, 80, 2)]
    for i in range(3):
        (folder / f"{i}.txt").write_text("".join(words[i::3]) + verse * (i + 2), encoding="utf-8")
    return str(folder)


def learn(corpus, output, *more):
    return train.main(["--input", corpus, "--output_dir", output, "--size", str(SIZE), *more])


def test_a_learned_vocabulary_round_trips_and_equals_tokenizers(corpus, tmp_path):
    output = str(tmp_path / "vocabulary")
    assert learn(corpus, output) == 0
    encoder = bpe.load(output)
    assert (encoder.size, encoder.eot) == (SIZE, SIZE - 1)
    with open(os.path.join(output, "encoder.json")) as f:
        tokens = json.load(f)
    assert [tokens[symbol] for symbol in bpe.byte_symbols().values()] == list(range(256))
    reference = ByteLevelBPETokenizer(os.path.join(output, "encoder.json"), os.path.join(output, "vocab.bpe"))
    for text in ("It isn't a truth, naïvely  acknowledged.\n", "中文 🎉 9", "", "copies of copies"):
        assert encoder.encode(text) == reference.encode(text).ids
        assert encoder.decode(encoder.encode(text)) == text
    assert len(encoder.encode("It is a truth universally acknowledged")) < 20


def test_an_output_dir_that_cannot_be_made_is_said_before_anything_is_learned(corpus, tmp_path, monkeypatch):
    monkeypatch.setattr(train, "learn", lambda *_: pytest.fail("it learned"))
    (tmp_path / "file").touch()
    with pytest.raises(NotADirectoryError, match=f"Not a directory: '{tmp_path}/file'"):
        learn(corpus, f"{tmp_path}/file/vocabulary")


def test_the_same_text_gives_the_same_bytes(corpus, tmp_path):
    for name in ("one", "two"):
        learn(corpus, str(tmp_path / name))
    for name in ("encoder.json", "vocab.bpe", "vocabulary.json"):
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()


def test_the_first_merge_is_the_most_frequent_pair():
    assert train.learn(["abab abab abab xy xy"], 2)[0] == ("a", "b")


def test_a_finished_vocabulary_is_kept_and_another_one_is_refused(corpus, tmp_path, capsys):
    output = str(tmp_path / "vocabulary")
    learn(corpus, output)
    capsys.readouterr()
    assert learn(corpus, output) == 0
    assert "nothing to do" in capsys.readouterr().out
    with pytest.raises(UserError, match=r"made in another way \(cleaning was repair, now none; tools was"):
        learn(corpus, output, "--no_ftfy")
    os.unlink(os.path.join(output, "vocabulary.json"))
    with pytest.raises(UserError, match="from elsewhere"):
        learn(corpus, output)


def test_what_cannot_be_read_is_told_and_how_texts_are_read_is_part_of_the_vocabulary(corpus, tmp_path, capsys):
    with open(os.path.join(corpus, "latin.txt"), "wb") as f:
        f.write("süß ".encode("cp1252") * 99)
    with open(os.path.join(corpus, "page.html"), "w") as f:
        f.write("<p>")
    with open(os.path.join(corpus, "zipped.txt"), "wb") as f:
        f.write(gzip.compress(b"text " * 99))
    with open(os.path.join(corpus, "stories.txt"), "w") as f:
        f.write("one tale<|endoftext|>another tale<|endoftext|>")
    learn(corpus, str(tmp_path / "one"))
    said = capsys.readouterr().out
    assert "1 document left out that could not be read as UTF-8 or UTF-16: latin.txt; give --encoding NAME" in said
    assert "--input: not read are 1 .html (page.html)\n" in said
    assert "1 document left out that begin as packed files (gzip, zip ...) or pictures do: zipped.txt; unpack" in said
    assert "<|endoftext|> stands 2 times in stories.txt, and is read as any other text; if it parts documents" in said
    learn(corpus, str(tmp_path / "two"), "--encoding", "cp1252")
    assert "could not be read" not in capsys.readouterr().out
    one, two = (bpe.load(str(tmp_path / name)) for name in ("one", "two"))
    assert len(two.encode(" süß")) < len(one.encode(" süß"))
    with pytest.raises(UserError, match="encoding was None, now cp1252"):
        learn(corpus, str(tmp_path / "one"), "--encoding", "cp1252")


def test_too_little_text_says_how_many_merges_it_gives(corpus, tmp_path):
    with pytest.raises(UserError, match=r"needs 99743 merges and the text of 3 documents gives \d+: g") as caught:
        learn(corpus, str(tmp_path / "vocabulary"), "--size", "100000")
    possible = int(str(caught.value).split()[-1])
    assert learn(corpus, str(tmp_path / "vocabulary"), "--size", str(possible)) == 0


def test_text_that_could_not_be_read_is_told_before_more_is_asked_for(tmp_path):
    for name in ("one.txt", "two.txt"):
        (tmp_path / name).write_bytes("Größe ".encode("cp1252") * 999)
    with pytest.raises(UserError, match="the text of 2 documents gives 0: 2 documents left out that could not be read "
                                        "as UTF-8 or UTF-16: one.txt, two.txt; give --encoding NAME.*; give more text"):
        learn(str(tmp_path), str(tmp_path / "vocabulary"))
    assert not (tmp_path / "vocabulary").exists()


def words_of(texts):
    """How often each of GPT-2's words occurs."""
    split = pre_tokenizers.ByteLevel(add_prefix_space=False).pre_tokenize_str
    return Counter(word for text in texts for word, _ in split(text))


def test_pieces_of_a_text_hold_its_words(monkeypatch):
    monkeypatch.setattr(train, "PIECE_CHARACTERS", 5)
    parts = ["a", "É", "中", "1", "'s", "!", " ", "  ", "\n", "\r\n", "\t", *"\u3000\xa0\x1c\x85", "e\u0301", "🎉"]
    for seed in range(20):
        text = "".join(random.Random(seed).choices(parts, k=500))
        pieces = [*train._pieces(text)]
        assert "".join(pieces) == text and len(pieces) > 20
        assert words_of(pieces) == words_of([text])


@pytest.mark.parametrize("line_end", ["\n", "\r\n"])
def test_a_file_that_is_read_in_stretches_teaches_the_same(tmp_path, line_end, monkeypatch, capsys):
    lines = ["Schöne Häuser,", "  \tschöne Gärten ", "", "中文。", "it's 1813"]
    text = line_end.join(random.Random(1).choices(lines, k=300))
    (tmp_path / "long.txt").write_bytes(text.encode())
    (tmp_path / "chinese.txt").write_bytes(text.encode("gb18030"))
    read, merges, learn_them = [], [], train.learn

    def watched(texts, count):
        read.append([*texts])
        merges.append(learn_them(read[-1], count))
        return merges[-1]
    monkeypatch.setattr(train, "learn", watched)
    for number, longest in enumerate((10 ** 9, 300)):
        monkeypatch.setattr(train, "STRETCH_BYTES", longest)
        assert train.main(["--input", str(tmp_path), "--size", "290", "--output_dir", str(tmp_path / str(number))]) == 0
        assert "1 document left out that could not be read as UTF-8 or UTF-16: chinese.txt;" in capsys.readouterr().out
    assert len(read[0]) == 1 and len(read[1]) > 5 and words_of(read[0]) == words_of(read[1])
    assert merges[0] == merges[1]
    notes = [(tmp_path / name / "vocabulary.json").read_bytes() for name in "01"]
    assert notes[0] == notes[1] and b'"documents": 2' in notes[0]


def test_more_words_than_memory_holds_leave_out_documents_drawn_at_random(tmp_path, monkeypatch, capsys):
    """Of 40 documents with 20 words of their own, 350 words fit."""
    texts = [" ".join(f"w{chr(97 + n // 26)}{chr(97 + n % 26)}{chr(97 + i)} and" for i in range(20)) for n in range(40)]
    (tmp_path / "text.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    monkeypatch.setattr(train, "WORD_BYTES", (train.GIGABYTES * 1e9 - train.FIXED_BYTES) / 350)
    monkeypatch.setattr(train, "WORD_BYTES_PER_BYTE", 0)
    drawn, learn_them = [], train.learn
    monkeypatch.setattr(train, "learn", lambda texts, count: drawn.append([*texts]) or learn_them(drawn[-1], count))
    command = ["--input", str(tmp_path / "text.jsonl"), "--size", "280", "--output_dir"]
    for name in ("one", "two"):
        assert train.main([*command, str(tmp_path / name)]) == 0
    assert drawn[0] == drawn[1] != texts[:len(drawn[0])] and set(drawn[0]) < set(texts)
    assert len(set(" ".join(drawn[0]).split())) <= 350 < len(set(" ".join(drawn[0]).split())) + 20
    assert (tmp_path / "one" / "vocab.bpe").read_bytes() == (tmp_path / "two" / "vocab.bpe").read_bytes()
    share = json.loads((tmp_path / "one" / "vocabulary.json").read_text())["learned_from"]
    line = len(json.dumps({"text": texts[0]}))
    assert share == {"bytes": len(drawn[0]) * line, "of": 40 * line}
    assert f"learned from {share['bytes']:,} of {share['of']:,} bytes of text, in doc" in capsys.readouterr().out
    assert train.main([*command, str(tmp_path / "one")]) == 0 and "nothing to do" in capsys.readouterr().out
    with pytest.raises(UserError, match="memory was None, now 16.0"):
        train.main([*command, str(tmp_path / "one"), "--memory", "16"])
    assert train.main([*command, str(tmp_path / "all"), "--memory", "16"]) == 0 and len(drawn[-1]) == 40
    assert "learned_from" not in json.loads((tmp_path / "all" / "vocabulary.json").read_text())


@pytest.mark.slow
def test_learning_stays_within_its_memory(tmp_path):
    """Words that all differ: the most memory that a text of this size can take."""
    noise = random.Random(2)
    with open(tmp_path / "text.jsonl", "w") as f:
        for _ in range(450):
            words = ["".join(noise.choices("abcdefghij", k=9)) for _ in range(1000)]
            f.write(json.dumps({"text": " ".join(words)}) + "\n")
    used = machine.run([sys.executable, os.path.join(ROOT, "encoder", "train.py"), "--input", str(tmp_path), "--memory",
                        "1", "--size", "1000", "--output_dir", str(tmp_path / "out")])
    assert "learned from" in used.output and 0.35e9 < used.peak < 1e9


def test_size_below_the_bytes_is_an_error(corpus, tmp_path):
    with pytest.raises(UserError, match="257"):
        learn(corpus, str(tmp_path), "--size", "256")


def test_very_long_words_take_little_time():
    assert train.learn(["a" * 300000 + " " * 310000 + "x"], 4)[0] == ("Ġ", "Ġ")


def test_it_runs_by_hand_both_ways(corpus, tmp_path):
    for i, command in enumerate((["encoder/train.py"], ["-m", "encoder.train"])):
        output = str(tmp_path / str(i))
        subprocess.run([sys.executable, *command, "--input", corpus, "--output_dir", output, "--size", "300"],
                       cwd=ROOT, check=True)
        assert bpe.load(output).size == 300


@pytest.mark.parametrize("moment", ["reading", pytest.param("learning", marks=pytest.mark.slow)])
def test_ctrl_c_ends_it_within_two_seconds_and_leaves_nothing(tmp_path, moment):
    """While documents are read, and in the library, which learns for minutes and hears no signal."""
    noise = random.Random(5)
    text = " ".join("".join(noise.choices("abcdefghij", k=900)) for _ in range(4000))
    (tmp_path / "text.txt").write_text(text)
    (tmp_path / "scratch").mkdir()
    process = subprocess.Popen([sys.executable, "encoder/train.py", "--input", str(tmp_path / "text.txt"), "--no_ftfy",
                                "--size", "60000", "--output_dir", str(tmp_path / "out")], cwd=ROOT, text=True,
                               env={**os.environ, "TMPDIR": str(tmp_path / "scratch")}, stderr=subprocess.PIPE)
    wait_until(lambda: os.listdir(tmp_path / "scratch"))
    time.sleep(0.2 if moment == "reading" else 5)
    assert process.poll() is None
    begun = time.monotonic()
    process.send_signal(signal.SIGINT)
    err = process.communicate(timeout=60)[1]
    assert time.monotonic() - begun < 2
    assert process.returncode == 130 and err.endswith("interrupted\n") and "Traceback" not in err
    assert not os.listdir(tmp_path / "scratch") and not (tmp_path / "out").exists()
