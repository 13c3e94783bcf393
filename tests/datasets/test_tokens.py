from __future__ import annotations

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from datasets import catalog
from datasets.tokens import Tokens, detokenize, tokenize


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("To be, or not.", "to be , or not ."),
        ("o'clock 'tis th’ well-known", "o'clock 'tis th' well-known"),
        ("in 1,000.5 or 3.", "in 1,000.5 or 3 ."),
        ("the U.S., e.g. Mr. B.", "the u.s. , e.g. mr . b ."),
        ("Ay -- no... (so)!?", "ay -- no ... ( so ) ! ?"),
        ("a <unk> b", "a <unk> b"),
        ("être\t猫_1\r", "être 猫_1"),
        ("one\n\ntwo\n", "one <eos> <eos> two <eos>"),
        ("", ""),
        ("e\u0301te\u0301 ete\u0301.", "été eté ."),
        ("हिन्दी, தமிழ்", "हिन्दी , தமிழ்"),
        ("x\u0323\u0302y ป่า", "x\u0323\u0302y ป่า"),
        ("می\u200cخواهم ❤\ufe0f!", "می\u200cخواهم ❤\ufe0f !"),
        ("👩\u200d👧👧", "👩\u200d👧 👧"),
    ],
)
def test_words_are_lower_cased_and_marks_stand_alone(text: str, words: str) -> None:
    assert tokenize(text, tokens="word") == words.split()


def test_words_between_whitespace_stay_as_they_are_written() -> None:
    text = "The U.S. <unk> e\u0301te\u0301\u2028@-@ ’s\n \nEnd"
    words = ["The", "U.S.", "<unk>", "e\u0301te\u0301", "@-@", "’s", "<eos>", "<eos>", "End"]
    assert tokenize(text, tokens="whitespace") == words
    assert tokenize(detokenize(words, tokens="whitespace"), tokens="whitespace") == words


def test_only_a_line_feed_makes_the_end_of_a_line() -> None:
    assert "<eos>" not in tokenize("a <eos> b\x0b\u2028c", tokens="word")


def test_every_character_is_a_token() -> None:
    assert tokenize("A b\n", tokens="char") == ["A", " ", "b", "\n"]


@given(st.text())
def test_characters_come_back_as_the_same_text(text: str) -> None:
    assert detokenize(tokenize(text, tokens="char"), tokens="char") == unicodedata.normalize("NFC", text)


@pytest.mark.parametrize("tokens", ["word", "char"])
def test_a_decomposed_text_has_the_tokens_of_the_composed_one(tokens: Tokens) -> None:
    text = "L'été, déjà façade naïve: Ångström, \u1e69 한국어 ばか\n"
    assert tokenize(unicodedata.normalize("NFD", text), tokens=tokens) == tokenize(text, tokens=tokens)


@given(st.text(st.sampled_from("ab1 .,'-\n_<>(É\u0301\u0323\u200dक\u094d❤\ufe0f"), max_size=30))
def test_tokenising_again_changes_no_word(text: str) -> None:
    words = tokenize(text, tokens="word")
    assert tokenize(detokenize(words, tokens="word"), tokens="word") == words


def test_words_come_back_line_by_line_with_blanks_between() -> None:
    words = ["<eos>", "to", "be", "<eos>", "<eos>", "or", "not"]
    assert detokenize(words, tokens="word") == "\nto be\n\nor not"


def test_the_embedded_text_is_in_the_form_that_tokenising_gives() -> None:
    store = catalog.load_text("shakespeare")
    words = [store.vocabulary[number] for number in store.stream("valid")]
    assert tokenize(detokenize(words, tokens="word"), tokens="word") == words
