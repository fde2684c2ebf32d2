"""Stop texts and characters that end inside tokens: as text comes, and as the table that the graph follows."""
import numpy as np
import pytest

from configs.errors import UserError
from encoder import bpe, stop_texts


@pytest.fixture(scope="module")
def encoder(tmp_path_factory):
    """A vocabulary whose tokens cut through characters and stop texts."""
    folder = str(tmp_path_factory.mktemp("vocabulary"))
    bpe.write(folder, [("a", "b"), ("ab", "a"), ("b", "c"), ("Ã", "©"), ("aba", "b")])
    return bpe.load(folder)


def streamed(encoder, tokens, stops=()):
    """(what each token makes certain, what the end does, whether it stopped)."""
    text = stop_texts.Text(encoder, stops)
    pieces = [text.add(token) for token in tokens]
    return pieces, text.end(), text.stopped


def test_half_a_character_is_held_back_until_it_is_whole(encoder):
    euro = encoder.encode("€")
    assert len(euro) == 3
    assert streamed(encoder, euro + encoder.encode("x")) == (["", "", "€", "x"], "", False)


def test_half_a_character_at_the_end_is_dropped_and_a_broken_one_replaced(encoder):
    euro, x = encoder.encode("€"), encoder.encode("x")
    assert streamed(encoder, x + euro[:2]) == (["x", "", ""], "", False)
    assert "".join(streamed(encoder, euro[:2] + x)[0]) == "\ufffdx"


def test_what_may_begin_a_stop_text_is_held_back(encoder):
    tokens = [encoder.encode(text)[0] for text in ("x", "\n", "\n", "y")]
    assert streamed(encoder, tokens, ["\n\n"]) == (["x", "", "", ""], "", True)
    tokens[2] = tokens[0]
    assert streamed(encoder, tokens, ["\n\n"]) == (["x", "", "\nx", "y"], "", False)
    assert streamed(encoder, tokens[:2], ["\n\n"]) == (["x", ""], "\n", False)


def test_text_is_cut_before_the_first_of_several_stop_texts(encoder):
    pieces, end, stopped = streamed(encoder, encoder.encode("xyz.STOP"), ["STOP", "z"])
    assert ("".join(pieces), end, stopped) == ("xy", "", True)


@pytest.mark.parametrize("stops", [("abc",), ("bab", "abab"), ("é",), ("aa", "cb", "bcab"), ("c",), ("abababc", "bc")])
def test_table_ends_a_text_with_the_very_token_that_completes_a_stop_text(encoder, stops):
    """Against a search of the text itself, for random tokens of an alphabet in which stop texts are frequent."""
    table, (nothing, first) = stop_texts.automaton(encoder, [(), stops])
    assert table.shape[1] == encoder.size
    tokens = [i for i in range(encoder.size - 1) if set(encoder.decode_bytes([i])) <= set("abcé".encode())]
    assert len(tokens) > 8
    random = np.random.RandomState(0)
    for _ in range(60):
        state, drawn = first, []
        for token in random.choice(tokens, 40).tolist():
            state = table[state, token]
            drawn.append(token)
            found = any(stop.encode() in encoder.decode_bytes(drawn) for stop in stops)
            assert found == (state == stop_texts.STOPPED) == streamed(encoder, drawn, stops)[2]
            assert table[nothing, token] == nothing
    assert np.all(table[stop_texts.STOPPED] == stop_texts.STOPPED)


def test_rows_of_a_batch_follow_their_own_stop_texts(encoder):
    table, states = stop_texts.automaton(encoder, [("a",), (), ("b",), ("a",)])
    a, b = encoder.encode("a")[0], encoder.encode("b")[0]
    assert states[0] == states[3] and len(set(states)) == 3
    assert [table[state, a] == stop_texts.STOPPED for state in states] == [True, False, False, True]
    assert [table[state, b] == stop_texts.STOPPED for state in states] == [False, False, True, False]


def test_too_long_stop_texts_are_a_mistake(encoder):
    with pytest.raises(UserError, match="more than 1000 bytes together; give shorter or fewer"):
        stop_texts.automaton(encoder, [("a" * 600,), ("b" * 600,)])
