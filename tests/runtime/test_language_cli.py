"""The commands of the runtime on language models."""

import re
from pathlib import Path

import numpy as np
import pytest

from datasets.store_writer import write_text_store
from runtime import cli
from tests.runtime.commands import document_of, mistake, run
from tests.runtime.language_models import WORDS, save_run


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
    assert re.search(r"^cats, test: perplexity \d+\.\d\d \(\d\.\d{3} bits a word, 300 words\)$", result.stdout, re.M)
    assert result.stderr == "runs on CPU\nscoring 300 words of cats, test\n"


def test_a_run_is_scored_with_its_file_of_whole_sequences(language_run: Path, store_path: Path) -> None:
    whole = document_of(cli.evaluate, language_run, "--dataset", store_path, "-e", "cpu")
    assert whole["file"] == str(language_run / "model-sequence.onnx")
    (language_run / "model-sequence.onnx").unlink()
    steps = document_of(cli.evaluate, language_run, "--dataset", store_path, "-e", "cpu")
    assert steps["file"] == str(language_run / "model.onnx")
    assert steps["perplexity"] == pytest.approx(whole["perplexity"], rel=1e-5)
    assert (steps["count"], whole["count"], whole["unit"]) == (300, 300, "word")


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
