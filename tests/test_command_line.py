"""Every mistake a user can make gets one clear line on stderr, exit code 2, and costs nothing."""

from __future__ import annotations

import shlex
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

import enas
from datasets.store_writer import write_image_store
from searcher.arch import catalog
from searcher.arch.space import SPACES
from searcher.arch.spec import read_spec, write_spec
from tests.end_to_end import conftest as tiny

ROOT = Path(__file__).parents[1]
store_path = tiny.store_path
text_path = tiny.text_path
search_config = tiny.search_config


@pytest.fixture
def run(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> Callable[..., tuple[int, str]]:
    """Run a command in an empty folder; gives the exit status and what stood on stderr."""

    def run_command(*arguments: str | Path) -> tuple[int, str]:
        monkeypatch.chdir(tmp_path)
        monkeypatch.setattr("sys.argv", ["enas", *map(str, arguments)])
        with pytest.raises(SystemExit) as exit_info:
            enas.main()
        assert isinstance(exit_info.value.code, int)
        return exit_info.value.code, capsys.readouterr().err

    return run_command


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            "search --preset quik",
            "preset: unknown preset 'quik'; expected one of quick, standard, deploy; did you mean 'quick'?",
        ),
        (
            "search --space mikro",
            f"space: unknown space 'mikro'; expected one of {', '.join(SPACES)}; did you mean 'micro'?",
        ),
        ("search --dataset fashion-mnist-mimi", "did you mean 'fashion-mnist-mini'"),
        ("search --dataset shakespeare", "shakespeare holds text, but images are needed"),
        ("search --space macro --dataset shakespeare", "shakespeare holds text, but images are needed"),
        (
            "search --space recurrent --dataset fashion-mnist-mini",
            "fashion-mnist-mini holds images, but text is needed",
        ),
        (
            "search --space recurrent --preset standard",
            "preset: unknown preset 'standard'; expected one of quick, small, paper",
        ),
        (
            "search --space macro --preset small",
            "preset: unknown preset 'small'; expected one of quick, standard, paper",
        ),
        ("search --space recurrent --preset paper", "enas data fetch ptb"),
        ("search --dataset cifar10", "enas data fetch cifar10"),
        ("search --config nowhere.toml", "nowhere.toml: no such file"),
        ("retrain nowhere", "unknown spec 'nowhere'; expected one of "),
        ("retrain nowhere.json", "nowhere.json: no such file"),
        ("retrain enas-micro-published", "say where to train this spec: --run DIRECTORY"),
        (
            "retrain enas-recurrent-published --dataset fashion-mnist-mini --run x",
            "fashion-mnist-mini holds images, but text is needed",
        ),
        (
            "retrain enas-recurrent-published --dataset shakespeare --preset standard --run x",
            "preset: unknown preset 'standard'; expected one of quick, small, paper",
        ),
        ("retrain enas-recurrent-published --cells 5 --run x", "--cells is not for recurrent networks"),
        ("retrain enas-recurrent-published --channels 8 --run x", "--channels is not for recurrent networks"),
        ("retrain resnet-20 --channels 30 --run x", "--channels is 30; widths of stages networks are multiples of 4"),
        ("retrain enas-micro-published --hidden-size 64 --run x", "--hidden-size is not for micro networks"),
        ("retrain enas-macro-published --cells 5 --run x", "--cells is not for macro networks"),
        (
            "retrain enas-recurrent-published --dataset shakespeare --run x --teacher a.onnx",
            "a teacher is for images; language models learn without one",
        ),
        (
            "search --space stages --set sgd.accumulation=3",
            "accumulation is 3, which does not divide batch_size, 64",
        ),
        (
            "search --dataset fashion-mnist-mini --set training.augmentation.cutout=99",
            "cutout is 99, larger than the pictures of 28×28",
        ),
        (
            "search --space stages --set training.augmentation.mixup=-1",
            "mixup is -1.0, expected an α, 0 to 100",
        ),
        ("export nowhere", "nowhere: the retraining is missing; make it with `enas retrain nowhere`"),
        ("export nowhere --triton-gpu", "--triton-gpu says what --triton is for; give --triton, too"),
        ("verify nowhere", "nowhere: the retraining is missing; make it with `enas retrain nowhere`"),
        ("evaluate nowhere", "nowhere: no such file or directory"),
        ("benchmark nowhere.onnx", "nowhere.onnx: no such file or directory"),
        ("report nowhere", "nowhere"),
        ("spec show nowhere.json", "nowhere.json: no such file"),
    ],
)
def test_a_mistake_is_one_line_and_exit_2(
    run: Callable[..., tuple[int, str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: str, message: str
) -> None:
    monkeypatch.setenv("ENAS_DATA", str(tmp_path / "no-data"))
    status, errors = run(*arguments.split())
    assert status == 2
    assert message in errors
    assert len(errors.splitlines()) == 1
    assert errors.startswith("error: ")
    assert not list(tmp_path.iterdir())


def test_a_spec_of_another_vocabulary_than_the_texts_is_refused(
    run: Callable[..., tuple[int, str]], text_path: Path, tmp_path: Path
) -> None:
    published = catalog.published_spec("enas-recurrent-published")
    path = tmp_path / "spec.json"
    write_spec(path, replace(published, task=replace(published.task, dataset=str(text_path))))
    status, errors = run("retrain", path, "--run", "x")
    message = (
        "the spec is for text of 10,000 different words, but letters has text of 10 different words; "
        f"`--dataset {text_path}` makes a network for what it has"
    )
    assert (status, errors) == (2, f"error: {message}\n")
    assert list(tmp_path.iterdir()) == [path]


def test_a_published_network_is_retrained_on_pictures_of_ones_own(
    run: Callable[..., tuple[int, str]], tmp_path: Path
) -> None:
    splits = {split: tiny.tiny_images(count, 0) for split, count in (("train", 24), ("valid", 9), ("test", 9))}
    path = tmp_path / "mine.h5"
    write_image_store(path, name="mine", splits=splits, classes=tiny.CLASSES, source="made up", licence="CC0-1.0")
    small = ["--preset", "quick", "--cells", "3", "--channels", "4", "--epochs", "1", "--set", "min_steps=0"]
    status, errors = run("retrain", "enas-micro-published", "--dataset", path, "--run", tmp_path / "run", *small)
    assert status == 0, errors
    assert errors.startswith(
        "a network for images of 8×8×1 in 3 classes (bar, dot, blank); the spec is for images of 32×32×3 in 10 classes "
    )
    spec = read_spec(tmp_path / "run" / "retrain" / "spec.json")
    assert spec.architecture == catalog.published_spec("enas-micro-published").architecture
    assert (spec.task.input_shape, spec.task.classes) == ((8, 8, 1), tiny.CLASSES)


@pytest.mark.parametrize(("space", "other"), [("micro", "recurrent"), ("macro", "recurrent"), ("recurrent", "micro")])
def test_a_configuration_of_another_space_is_refused(
    run: Callable[..., tuple[int, str]], tmp_path: Path, text_path: Path, space: str, other: str
) -> None:
    make = tiny.recurrent_search if other == "recurrent" else tiny.micro_search
    path = tiny.write_search(tmp_path, make, text_path)
    status, errors = run("search", "--space", space, "--config", path, "--run", "x")
    assert (status, errors) == (2, f"error: {path} is for the space {other}, but --space is {space}\n")


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (
            "batch_size = 16",
            "batch_size = 1201",
            "split 'train' has 1201 tokens, too few for a batch_size of 1201 streams of at least 2 tokens each: use a "
            "batch_size of at most 1200, or more text",
        ),
        ("\nwindow = 35", "\nwindow = 0", "window is 0; at least 1 is needed"),
        ("state = 0.1", "state = 1.0", "dropout: state is 1.0; expected 0 up to, not including, 1"),
        ("num_nodes = 4", "num_nodes = 0", "num_nodes is 0; this space needs at least 1"),
        ('output = "loose_ends"', 'output = "last"', "search_space.output: unknown value 'last'"),
        ("clip_norm = 0.25", "clip_norm = -1.0", "clip_norm is -1.0; it must not be negative"),
        ("learning_rate = 5.0", "learning_rate = 1e30", "the loss is no longer a number; the last checkpoint is kept"),
    ],
)
def test_a_mistake_in_a_texts_configuration_is_one_line(
    run: Callable[..., tuple[int, str]], tmp_path: Path, text_path: Path, old: str, new: str, message: str
) -> None:
    path = tiny.write_search(tmp_path, tiny.recurrent_search, text_path)
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1).replace("clip_norm = 0.25", "clip_norm = 0.0"))
    status, errors = run("search", "--space", "recurrent", "--config", path, "--run", "x")
    assert status == 2
    last = errors.splitlines()[-1]
    assert message in last
    assert "Traceback" not in errors


def test_cuda_that_cannot_be_had_is_an_error_and_never_a_fallback(
    run: Callable[..., tuple[int, str]], tmp_path: Path
) -> None:
    torch = pytest.importorskip("torch")
    if torch.cuda.is_available():
        pytest.skip("there is CUDA here")
    status, errors = run("search", "--device", "cuda")
    assert status == 2
    assert errors.startswith("error: --device cuda: ")
    assert "use --device cpu, or auto" in errors
    assert not list(tmp_path.iterdir())


def test_an_existing_run_needs_resume_or_force(
    run: Callable[..., tuple[int, str]], search_config: Path, tmp_path: Path
) -> None:
    assert run("search", "--config", search_config, "--run", "x")[0] == 0
    before = (tmp_path / "x" / "spec.json").read_bytes()
    status, errors = run("search", "--config", search_config, "--run", "x")
    assert status == 2
    assert "x/search already holds a finished run" in errors
    assert "--resume` goes on with it" in errors
    assert "--force` starts anew" in errors

    status, errors = run("search", "--config", search_config, "--run", "x", "--seed", "5", "--resume")
    assert status == 2
    assert "x/search was made with another configuration (seed was 0, now 5)" in errors
    assert (tmp_path / "x" / "spec.json").read_bytes() == before

    assert run("search", "--config", search_config, "--run", "x", "--seed", "5", "--force")[0] == 0


def test_a_folder_that_is_no_run_is_never_deleted(
    run: Callable[..., tuple[int, str]], search_config: Path, tmp_path: Path
) -> None:
    (tmp_path / "home" / "search").mkdir(parents=True)
    (tmp_path / "home" / "search" / "thesis.tex").write_text("years of work")
    status, errors = run("search", "--config", search_config, "--run", "home", "--force")
    assert status == 2
    assert "holds other files than a run's" in errors
    assert (tmp_path / "home" / "search" / "thesis.tex").read_text() == "years of work"


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("num_epochs = 3", "num_epoch = 3", "unknown key 'num_epoch'"),
        ("num_epochs = 3", "num_epochs = 0", "num_epochs is 0; at least 1 is needed"),
        ("seed = 0", "seed = -1", "seed is -1; it must not be negative"),
        ("num_epochs = 3", "num_epochs = 'three'", "num_epochs is 'three'; expected a whole number"),
        ('kind = "lstm"', 'kind = "gru"', "policy.kind: unknown value 'gru'; expected one of lstm, random"),
        ("dropout_prob = 0.1", "dropout_prob = 1.5", "dropout_prob is 1.5; expected 0 up to, not including, 1"),
        ('space = "micro"', 'space = "makro"', "unknown space 'makro'; expected one of macro"),
        ("crop_padding = 1", "crop_padding = -1", "augmentation: crop_padding is -1"),
        (
            "sep_conv_3x3 = ",
            "sep_conv_3x4 = ",
            "policy.operation_bias: unknown operation 'sep_conv_3x4'; expected one of",
        ),
        (
            "policy_start_epoch = 0",
            "policy_start_epoch = 3",
            "policy_start_epoch is 3, so of 3 epochs (num_epochs) none would",
        ),
        ("policy_samples = 3", "policy_samples = 1", "the leave_one_out baseline needs policy_samples of at least 2"),
        ("num_epochs = 3", "num_epochs = ", "not valid TOML"),
    ],
)
def test_a_broken_configuration_names_the_key_and_the_rule(
    run: Callable[..., tuple[int, str]], search_config: Path, tmp_path: Path, old: str, new: str, message: str
) -> None:
    text = search_config.read_text()
    assert old in text
    (tmp_path / "broken.toml").write_text(text.replace(old, new, 1))
    status, errors = run("search", "--config", "broken.toml", "--run", "x")
    assert status == 2
    assert message in errors
    assert "Traceback" not in errors
    assert not (tmp_path / "x").exists()


@pytest.mark.parametrize(
    ("arguments", "missing"), [("search", "torch"), ("retrain x", "torch"), ("export x", "onnx"), ("verify x", "onnx")]
)
def test_a_command_that_needs_an_extra_package_says_how_to_get_it(arguments: str, missing: str) -> None:
    # As on a machine where only what runs models is installed.
    script = f"""
import sys
class Absent:
    def find_spec(self, name, *_):
        if name == {missing!r}:
            raise ModuleNotFoundError("No module named " + name, name=name)
sys.meta_path.insert(0, Absent())
sys.argv = ["enas", *{arguments.split()!r}]
import enas
enas.main()
"""
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr == f"error: this needs the package '{missing}': pip install 'enas-toolchain[train]'\n"


@pytest.mark.parametrize("closed", ["1", "2"])
def test_a_stream_that_was_closed_before_the_start_is_no_failure(closed: str, tmp_path: Path) -> None:
    (tmp_path / "spec.json").write_text((ROOT / "searcher/arch/published/resnet-20.json").read_text())
    command = f"{shlex.quote(sys.executable)} enas.py watch {shlex.quote(str(tmp_path))} --once {closed}>&-"
    assert subprocess.run(command, shell=True, cwd=ROOT, check=False).returncode == 0


def test_naming_the_data_set_of_a_preset_loads_no_torch() -> None:
    script = """
import sys, enas
try:
    enas.build_group().main(["data", "default", "--space", "recurrent"], obj=enas.Peers(), standalone_mode=False)
finally:
    assert "torch" not in sys.modules
"""
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout == "shakespeare\n"


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (("export", "x", "--atol", "nan"), "'--atol': nan is not a finite number."),
        (("export", "x", "--rtol", "-1"), "'--rtol': -1.0 is not in the range x>=0."),
        (("verify", "x", "--atol", "inf"), "'--atol': inf is not a finite number."),
        (("watch", "x", "--every", "nan"), "'--every': nan is not a finite number."),
        (("search", "--max-hours", "nan"), "'--max-hours': nan is not a finite number."),
        (("serve", "x", "--poll-s", "nan"), "is not a finite number."),
        (("search", "--seed", "9" * 18), "is not in the range 0<=x<="),
        (("generate", "x", "--seed", "9" * 18), "is not in the range 0<=x<="),
        (("benchmark", "x", "--seed", "-1"), "-1 is not in the range 0<=x<="),
        (("data", "import", "x", "--name", "x", "--seed", "-1"), "-1 is not in the range 0<=x<="),
    ],
)
def test_a_number_out_of_its_range_is_refused(
    words: tuple[str, ...], complaint: str, run: Callable[..., tuple[int, str]]
) -> None:
    status, errors = run(*words)
    assert status == 2
    assert complaint in errors


def test_a_report_of_a_folder_without_a_run_is_refused(run: Callable[..., tuple[int, str]], tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    assert run("report", "empty") == (
        2,
        "error: empty: no run is there; give the run directory of `enas search` or `enas retrain`\n",
    )
    assert not list((tmp_path / "empty").iterdir())


def test_help_of_every_command_shows(run: Callable[..., tuple[int, str]]) -> None:
    for command in enas.build_group().list_commands(None):  # type: ignore[arg-type]
        assert run(command, "--help")[0] == 0
