import re
from typing import Any

import pytest

from runtime.models.tokenizer import Tokenizer, TokenizerError

WORDS = Tokenizer("word", ("<eos>", "the", "cat", "<unk>"), unknown="<unk>", end_of_line="<eos>")
STRICT_WORDS = Tokenizer("word", ("<eos>", "the", "cat"), unknown=None, end_of_line="<eos>")
CHARACTERS = Tokenizer("char", ("\n", " ", "a", "b"), unknown=None, end_of_line=None)


def test_a_text_of_words_goes_there_and_back() -> None:
    assert WORDS.encode("The cat\nthe") == ([1, 2, 0, 1], [])
    assert WORDS.decode([1, 2, 0, 1]) == "the cat\nthe"


def test_a_text_of_characters_goes_there_and_back() -> None:
    assert CHARACTERS.encode("ab\na b") == ([2, 3, 0, 2, 1, 3], [])
    assert CHARACTERS.decode([2, 3, 0, 2, 1, 3]) == "ab\na b"


def test_what_is_not_in_the_vocabulary_is_read_as_unknown_and_told_once() -> None:
    assert WORDS.encode("the dog, the dog") == ([1, 3, 3, 1, 3], ["dog", ","])


@pytest.mark.parametrize(
    ("tokenizer", "text", "message"),
    [
        (STRICT_WORDS, "the cats", "'cats': not in the vocabulary of 3; near 'cats' are 'cat'"),
        (STRICT_WORDS, "a b c d e", "'a', 'b', 'c' and others: not in the vocabulary of 3"),
        (CHARACTERS, "abc", "'c': not in the vocabulary of 4"),
    ],
)
def test_a_vocabulary_without_unknown_refuses_what_it_does_not_hold(
    tokenizer: Tokenizer, text: str, message: str
) -> None:
    with pytest.raises(TokenizerError, match=f"^{re.escape(message)}$"):
        tokenizer.encode(text)


def test_a_line_ends_with_a_word_or_with_a_character() -> None:
    assert (WORDS.line_end_token, CHARACTERS.line_end_token) == (0, 0)
    assert Tokenizer("char", ("a", "b"), unknown=None, end_of_line=None).line_end_token is None


def test_a_prompt_is_read_as_the_text_that_the_model_was_trained_on() -> None:
    tokenizer = Tokenizer("whitespace", ("<eos>", "The", "U.S.", "’s"), unknown=None, end_of_line="<eos>")
    assert tokenizer.encode("The U.S. ’s\n") == ([1, 2, 3, 0], [])
    assert tokenizer.decode([1, 2, 3, 0]) == "The U.S. ’s\n"
    with pytest.raises(TokenizerError, match="near 'THe' are 'The'"):
        tokenizer.encode("THe")


def test_a_word_that_a_lower_cased_text_has_is_known_with_capital_letters() -> None:
    tokenizer = Tokenizer("whitespace", ("<eos>", "<unk>", "the", "May"), unknown="<unk>", end_of_line="<eos>")
    assert tokenizer.encode("The may May") == ([2, 1, 3], ["may"])


_WHOLE = {"tokens": "word", "vocabulary": ["a", "b"], "unknown": None, "end_of_line": None}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"tokens": "syllable"}, "tokens is 'syllable', expected one of word, whitespace, char"),
        ({"vocabulary": []}, "vocabulary is not a list of strings"),
        ({"vocabulary": ["a", 3]}, "vocabulary is not a list of strings"),
        ({"vocabulary": ["a", "a"]}, "vocabulary holds a string twice"),
        ({"unknown": "<unk>"}, "unknown is '<unk>', which is not in the vocabulary"),
        ({"end_of_line": "<eos>"}, "end_of_line is '<eos>', which is not in the vocabulary"),
        ({"size": 2}, "got an unexpected keyword argument 'size'"),
    ],
)
def test_a_broken_document_is_told(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(TokenizerError, match=f"^{re.escape(message)}$"):
        Tokenizer.from_json(_WHOLE | changes)


@pytest.mark.parametrize("key", ["tokens", "vocabulary", "unknown"])
def test_a_document_without_a_key_is_told(key: str) -> None:
    with pytest.raises(TokenizerError, match=f"'{key}'"):
        Tokenizer.from_json({name: value for name, value in _WHOLE.items() if name != key})
