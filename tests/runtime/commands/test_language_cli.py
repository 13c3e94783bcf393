"""The commands of the runtime on language models."""

import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from datasets.store_writer import write_text_store
from runtime.commands import generate as generate_cli
from runtime.commands import score as cli
from tests.runtime.command_runs import document_of, mistake, run
from tests.runtime.conftest import save
from tests.runtime.language_models import CHARACTERS, WORDS, metadata, save_run, step_graph


@pytest.fixture
def language_run(tmp_path: Path) -> Path:
    return save_run(tmp_path / "run")


@pytest.fixture
def store_path(tmp_path: Path) -> Path:
    path = tmp_path / "cats.h5"
    text = np.random.default_rng(2).integers(0, len(WORDS), 500)
    write_text_store(
        path,
        name="cats",
        splits={"train": text, "test": text[:301]},
        vocabulary=WORDS,
        source="made up",
        licence="none",
    )
    return path


# --- evaluate ---------------------------------------------------------------------------------------------------------


def test_evaluate_prints_the_perplexity(language_run: Path, store_path: Path) -> None:
    result = run(cli.evaluate, language_run, "--dataset", store_path, "-e", "cpu")
    assert result.exit_code == 0
    assert re.search(r"^cats, test: perplexity \d+\.\d\d \(\d\.\d{3} bits a token, 300 words\)$", result.stdout, re.M)
    assert result.stderr == "runs on CPU\nscoring 300 words of cats, test\n"


def test_a_run_is_scored_with_its_file_of_whole_sequences(language_run: Path, store_path: Path) -> None:
    whole = document_of(cli.evaluate, language_run, "--dataset", store_path, "-e", "cpu")
    assert whole["file"] == str(language_run / "model-sequence.onnx")
    (language_run / "model-sequence.onnx").unlink()
    steps = document_of(cli.evaluate, language_run, "--dataset", store_path, "-e", "cpu")
    assert steps["file"] == str(language_run / "model.onnx")
    assert steps["perplexity"] == pytest.approx(whole["perplexity"], rel=1e-5)
    assert (steps["count"], whole["count"], whole["unit"]) == (300, 300, "words")


def test_images_are_not_scored_with_a_language_model(language_run: Path) -> None:
    assert mistake(cli.evaluate, language_run, "--dataset", "fashion-mnist-mini", "-e", "cpu") == (
        f"fashion-mnist-mini is a data set of images, but {language_run}/model-sequence.onnx is a language model of "
        "whole sequences"
    )


def test_a_batch_size_is_of_images(language_run: Path, store_path: Path) -> None:
    assert mistake(cli.evaluate, language_run, "--dataset", store_path, "-b", "8", "-e", "cpu") == (
        "--batch-size is of images; a text is read in as many streams as while training"
    )


# --- predict ----------------------------------------------------------------------------------------------------------


def test_predict_sends_a_language_model_to_generate(language_run: Path) -> None:
    assert mistake(cli.predict, language_run, "x.png", "-e", "cpu") == (
        f"{language_run}/model.onnx is a language model of single steps: use `enas generate`"
    )


# --- generate ---------------------------------------------------------------------------------------------------------


def test_generate_goes_on_with_the_prompt(language_run: Path) -> None:
    result = run(generate_cli.generate, language_run, "--prompt", "The cat", "-n", "40", "--seed", "7", "-e", "cpu")
    assert result.exit_code == 0
    assert result.stdout.startswith("the cat")
    assert result.stdout.endswith("\n")
    assert result.stderr == "runs on CPU\n"
    assert set(result.stdout.split()) == {"the", "cat", "sat"}


def test_the_printed_text_is_that_of_the_document(language_run: Path) -> None:
    arguments = [language_run, "--prompt", "the\ncat", "-n", "60", "--seed", "1", "-e", "cpu"]
    document = document_of(generate_cli.generate, *arguments)
    assert run(generate_cli.generate, *arguments).stdout.rstrip("\n") == document["text"].rstrip("\n")
    assert document["prompt_tokens"] == [1, 0, 2]
    assert len(document["tokens"]) == 60
    assert (document["prompt"], document["seed"], document["top_k"]) == ("the\ncat", 1, None)


def test_characters_are_printed_without_blanks(tmp_path: Path) -> None:
    path = save(tmp_path / "m.onnx", step_graph(num_tokens=len(CHARACTERS)), metadata(CHARACTERS))
    arguments = [path, "--prompt", "ab ", "-n", "30", "-e", "cpu"]
    document = document_of(generate_cli.generate, *arguments)
    assert len(document["text"]) == 33
    assert run(generate_cli.generate, *arguments).stdout.rstrip("\n") == document["text"].rstrip("\n")


def test_without_a_prompt_a_line_begins(language_run: Path) -> None:
    text = document_of(generate_cli.generate, language_run, "-n", "5", "-e", "cpu")
    assert (text["prompt"], text["prompt_tokens"], len(text["tokens"])) == ("", [], 5)


def test_what_is_read_as_unknown_is_told(language_run: Path) -> None:
    result = run(generate_cli.generate, language_run, "--prompt", "the dog, the dog", "-n", "3", "-e", "cpu")
    assert result.stdout.startswith("the <unk> <unk> the <unk> ")
    assert result.stderr == "runs on CPU\nread as <unk>: 'dog', ','\n"


def test_a_character_that_is_not_known_is_a_mistake(tmp_path: Path) -> None:
    path = save(tmp_path / "m.onnx", step_graph(num_tokens=len(CHARACTERS)), metadata(CHARACTERS))
    assert mistake(generate_cli.generate, path, "--prompt", "abc", "-e", "cpu") == "'c': not in the vocabulary of 4"


def test_generate_sends_other_models_where_they_belong(language_run: Path, model_path: Path) -> None:
    assert mistake(generate_cli.generate, model_path, "-e", "cpu") == (
        f"{model_path} is an image classifier: use `enas predict`"
    )
    sequences = language_run / "model-sequence.onnx"
    assert mistake(generate_cli.generate, sequences, "-e", "cpu") == (
        f"{sequences} is a language model of whole sequences: use model.onnx beside it"
    )


@pytest.mark.parametrize(
    "arguments", [["-n", "0"], ["--temperature", "-1"], ["--top-k", "0"], ["--seed", "-1"], ["--length", "many"]]
)
def test_options_out_of_range_are_told(language_run: Path, arguments: list[str]) -> None:
    assert run(generate_cli.generate, language_run, *arguments).exit_code == 2


def test_text_is_printed_as_it_comes(language_run: Path) -> None:
    command = [sys.executable, "-m", "runtime", "generate", language_run, "-n", "100000000", "-e", "cpu"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert len(process.stdout.read(50)) == 50
        # A reader that goes, as `head` does, ends it without a word.
        process.stdout.close()
        process.wait(timeout=60)
        assert process.stderr.read().decode().strip() == "runs on CPU"
