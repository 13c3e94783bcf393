import io
import json
import sys
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest

import enas
from searcher.arch import catalog
from searcher.arch.catalog import published_names
from searcher.arch.operations import CELL_COSTS
from searcher.arch.space_names import SPACE_NAMES
from searcher.arch.spec import read_spec, write_spec
from searcher.arch.tasks import LanguageModelling
from searcher.nn.complexity import complexity_of
from searcher.report.complexity import describe_complexity
from tests.searcher.arch.test_macro import PUBLISHED as PUBLISHED_MACRO
from tests.searcher.arch.test_recurrent import PTB_FINAL
from tests.searcher.report.test_graph import PUBLISHED, published_macro_spec, published_spec
from tests.searcher.report.test_text import GOLDEN


class _Outcome:
    def __init__(self, code: int, out: str, err: str) -> None:
        self.code, self.out, self.err = code, out, err


class _Enas:
    """Runs the command line in this process, as a shell would see it."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
        self._monkeypatch, self._capsys = monkeypatch, capsys

    def __call__(self, *arguments: str | Path) -> _Outcome:
        self._monkeypatch.setattr(sys, "argv", ["enas", *map(str, arguments)])
        self._capsys.readouterr()
        with pytest.raises(SystemExit) as exit_:
            enas.main()
        captured = self._capsys.readouterr()
        assert isinstance(exit_.value.code, int)
        return _Outcome(exit_.value.code, captured.out, captured.err)


@pytest.fixture
def run_enas(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> _Enas:
    return _Enas(monkeypatch, capsys)


@pytest.fixture
def spec_path(tmp_path: Path) -> Path:
    path = tmp_path / "run" / "spec.json"
    write_spec(path, published_spec())
    return path


# --- show -------------------------------------------------------------------------------------------------------------


def test_show_writes_the_golden_text(run_enas: _Enas, spec_path: Path) -> None:
    outcome = run_enas("spec", "show", spec_path)
    cost = describe_complexity(complexity_of(published_spec()))
    assert (outcome.code, outcome.out, outcome.err) == (0, f"{GOLDEN.read_text(encoding='utf-8')}\n{cost}", "")


def test_show_writes_spec_and_complexity_as_json(run_enas: _Enas, spec_path: Path) -> None:
    outcome = run_enas("spec", "show", spec_path, "--json")
    expected = {"spec": published_spec().to_document(), "complexity": complexity_of(published_spec()).to_document()}
    assert (outcome.code, json.loads(outcome.out)) == (0, expected)


def test_list_names_space_parameters_and_source_of_what_was_published(run_enas: _Enas) -> None:
    lines = run_enas("spec", "list").out.splitlines()
    rows = json.loads(run_enas("spec", "list", "--json").out)
    assert [line.split()[0] for line in lines] == [row["name"] for row in rows] == list(published_names())
    for line, row in zip(lines, rows, strict=True):
        assert line.split()[1:3] == [row["space"], f"{row['parameters']:,}"]
        assert line.endswith(row["provenance"]["source"])


@pytest.mark.parametrize("name", published_names())
def test_a_published_name_serves_where_a_path_does(run_enas: _Enas, tmp_path: Path, name: str) -> None:
    assert run_enas("spec", "validate", name).code == 0
    assert run_enas("spec", "show", name, "--svg", tmp_path / "drawing.svg").code == 0
    encoding, path = run_enas("spec", "export", name).out, tmp_path / "spec.json"
    run_enas("spec", "import", encoding, "--space", catalog.published_spec(name).space, "--out", path)
    assert read_spec(path).architecture == catalog.published_spec(name).architecture


def test_show_takes_a_run_and_draws_into_a_file(run_enas: _Enas, spec_path: Path, tmp_path: Path) -> None:
    svg = tmp_path / "drawings" / "cell.svg"
    outcome = run_enas("spec", "show", spec_path.parent, "--svg", svg)
    assert (outcome.code, outcome.err) == (0, f"wrote {svg}\n")
    assert ET.parse(svg).getroot().tag == "{http://www.w3.org/2000/svg}svg"


def test_a_published_spec_is_shown_and_imported_for_another_data_set(run_enas: _Enas, tmp_path: Path) -> None:
    path = tmp_path / "spec.json"
    target = ["--dataset", "fashion-mnist-mini"]
    assert run_enas("spec", "import", "enas-micro-published", *target, "--out", path).code == 0
    spec, published = read_spec(path), catalog.published_spec("enas-micro-published")
    assert (spec.architecture, spec.network) == (published.architecture, published.network)
    assert (spec.task.dataset, spec.task.input_shape, len(spec.task.classes)) == ("fashion-mnist-mini", (28, 28, 1), 10)
    shown = json.loads(run_enas("spec", "show", "enas-micro-published", *target, "--json").out)
    assert shown["spec"] == spec.to_document()
    run_enas("spec", "import", path, *target, "--preset", "quick", "--out", path, "--force")
    assert (read_spec(path).network.channels, read_spec(path).architecture) == (16, published.architecture)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ([], "enas-micro-published is a spec already; --dataset says which data set to make it for"),
        (
            ["--dataset", "fashion-mnist-mini", "--space", "macro"],
            "enas-micro-published is of the space micro, but --space is macro",
        ),
        (["--dataset", "shakespeare"], "shakespeare holds text, but images are needed"),
    ],
)
def test_a_spec_is_imported_only_for_a_data_set_that_suits(run_enas: _Enas, options: list[str], message: str) -> None:
    outcome = run_enas("spec", "import", "enas-micro-published", *options)
    assert (outcome.code, outcome.out, outcome.err) == (2, "", f"error: {message}\n")


def test_show_of_a_run_without_a_spec_says_what_makes_it(run_enas: _Enas, tmp_path: Path) -> None:
    outcome = run_enas("spec", "show", tmp_path)
    expected = f"error: {tmp_path}/spec.json: no such file; `enas search --run {tmp_path}` makes it\n"
    assert (outcome.code, outcome.out, outcome.err) == (2, "", expected)


# --- validate ---------------------------------------------------------------------------------------------------------


def test_validate_says_ok_for_each_good_spec(run_enas: _Enas, spec_path: Path) -> None:
    outcome = run_enas("spec", "validate", spec_path, spec_path.parent)
    lines = [f"{path}: ok, micro network for cifar10" for path in (spec_path, spec_path.parent)]
    assert (outcome.code, outcome.out.splitlines()) == (0, lines)


def test_validate_names_every_problem_of_every_spec(run_enas: _Enas, spec_path: Path, tmp_path: Path) -> None:
    document = json.loads(spec_path.read_text())
    node = document["architecture"]["normal"][2]
    node["inputs"][1], node["operations"][0] = 5, "sepconv3x3"
    document["network"]["width"] = 3
    broken, absent = tmp_path / "broken.json", tmp_path / "absent.json"
    broken.write_text(json.dumps(document))
    outcome = run_enas("spec", "validate", broken, spec_path, absent)
    assert outcome.code == 2
    assert outcome.out == f"{spec_path}: ok, micro network for cifar10\n"
    assert outcome.err.splitlines() == [
        f"{broken}: architecture.normal[2].inputs[1] is 5, but node 4 can only read nodes 0 to 3",
        f"{broken}: architecture.normal[2].operations[0]: unknown operation 'sepconv3x3'; expected one of "
        f"{', '.join(CELL_COSTS)}; did you mean 'sep_conv_3x3'?",
        f"{broken}: network: unknown key 'width'; expected one of cells, channels, stem_stride",
        f"{absent}: no such file",
    ]


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "not valid JSON: Expecting value: line 1 column 1 (char 0)"),
        ("[]", "the document must be a JSON object"),
        ('{"schema": 2}', "schema is 2; this version reads schema 1"),
        ('{"schema": 1, "schema": 1}', "not valid JSON: the key 'schema' stands twice in one object"),
    ],
)
def test_validate_refuses_what_is_no_spec(run_enas: _Enas, tmp_path: Path, text: str, problem: str) -> None:
    path = tmp_path / "spec.json"
    path.write_text(text)
    outcome = run_enas("spec", "validate", path)
    assert (outcome.code, outcome.out) == (2, "")
    assert f"{path}: {problem}" in outcome.err.splitlines()


def test_validate_refuses_text_after_the_document(run_enas: _Enas, spec_path: Path) -> None:
    with open(spec_path, "a") as file:
        file.write("{}")
    outcome = run_enas("spec", "validate", spec_path)
    assert outcome.code == 2
    assert outcome.err.startswith(f"{spec_path}: not valid JSON: Extra data: ")


# --- random -----------------------------------------------------------------------------------------------------------


def test_random_gives_the_same_spec_for_the_same_seed(run_enas: _Enas, tmp_path: Path) -> None:
    paths = [tmp_path / name for name in ("a.json", "b.json", "c.json")]
    for path, seed in zip(paths, (3, 3, 4), strict=True):
        assert run_enas("spec", "random", "--seed", str(seed), "--out", path).code == 0
    first, again, other = (path.read_bytes() for path in paths)
    assert first == again != other
    assert run_enas("spec", "validate", *paths).code == 0


def test_random_takes_task_and_size_from_the_data_set_and_the_preset(run_enas: _Enas, tmp_path: Path) -> None:
    path = tmp_path / "spec.json"
    run_enas("spec", "random", "--dataset", "fashion-mnist-mini", "--preset", "standard", "--out", path)
    spec = read_spec(path)
    assert (spec.task.dataset, spec.task.input_shape, len(spec.task.classes)) == ("fashion-mnist-mini", (28, 28, 1), 10)
    assert (spec.network.cells, spec.network.channels, spec.network.stem_stride) == (11, 32, 1)


def test_an_existing_file_is_replaced_only_with_force(run_enas: _Enas, spec_path: Path) -> None:
    before = spec_path.read_bytes()
    outcome = run_enas("spec", "random", "--out", spec_path)
    assert (outcome.code, outcome.err) == (2, f"error: {spec_path}: is there already; --force replaces it\n")
    assert spec_path.read_bytes() == before
    assert run_enas("spec", "random", "--out", spec_path, "--force").code == 0
    assert spec_path.read_bytes() != before


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            ["--space", "mikro"],
            f"space: unknown space 'mikro'; expected one of {', '.join(SPACE_NAMES)}; did you mean 'micro'?",
        ),
        (
            ["--preset", "quik"],
            "preset: unknown preset 'quik'; expected one of quick, standard, paper, reference; did you mean 'quick'?",
        ),
        (["--dataset", "shakespeare"], "shakespeare holds text, but images are needed"),
        (["--dataset", "no/such.h5"], "no/such.h5: no such file"),
    ],
)
def test_random_names_what_it_does_not_know(run_enas: _Enas, options: list[str], message: str) -> None:
    outcome = run_enas("spec", "random", *options)
    assert (outcome.code, outcome.out, outcome.err) == (2, "", f"error: {message}\n")


# --- import and export ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("source", ["text", "file", "stdin"])
def test_the_published_encoding_survives_import_and_export(
    run_enas: _Enas, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, source: str
) -> None:
    encoding, path = tmp_path / "encoding.txt", tmp_path / "spec.json"
    encoding.write_text(PUBLISHED)
    monkeypatch.setattr(sys, "stdin", io.StringIO(PUBLISHED))
    argument: str | Path = {"text": PUBLISHED, "file": encoding, "stdin": "-"}[source]
    assert run_enas("spec", "import", argument, "--out", path).code == 0
    assert read_spec(path).architecture == published_spec().architecture
    assert run_enas("spec", "export", path).out == PUBLISHED.lstrip()


def test_macro_specs_are_drawn_imported_checked_and_exported(run_enas: _Enas, tmp_path: Path) -> None:
    path, drawn, svg = (tmp_path / name for name in ("spec.json", "random.json", "layers.svg"))
    assert run_enas("spec", "import", PUBLISHED_MACRO, "--space", "macro", "--out", path).code == 0
    assert read_spec(path).architecture == published_macro_spec().architecture
    assert run_enas("spec", "export", path).out == PUBLISHED_MACRO
    assert run_enas("spec", "random", "--space", "macro", "--seed", "3", "--out", drawn).code == 0
    assert len(read_spec(drawn).architecture.layers) == 12
    outcome = run_enas("spec", "validate", path, drawn)
    assert outcome.out.splitlines() == [f"{p}: ok, macro network for fashion-mnist-mini" for p in (path, drawn)]
    outcome = run_enas("spec", "show", path, "--svg", svg)
    assert "  layer 3  = concat(conv_3x3(layer 2), stem)" in outcome.out.splitlines()
    assert "reduction, 9 tensors" in outcome.out
    assert svg.is_file()


def test_recurrent_specs_are_drawn_imported_checked_and_exported(run_enas: _Enas, tmp_path: Path) -> None:
    path, drawn, svg = (tmp_path / name for name in ("spec.json", "random.json", "cell.svg"))
    assert run_enas("spec", "import", PTB_FINAL, "--space", "recurrent", "--out", path).code == 0
    assert read_spec(path).architecture == catalog.published_spec("enas-recurrent-published").architecture
    assert read_spec(path).task == LanguageModelling(dataset="shakespeare", tokens="word", vocabulary_size=10_000)
    assert run_enas("spec", "export", path).out == f"{PTB_FINAL}\n"
    assert run_enas("spec", "random", "--space", "recurrent", "--seed", "3", "--out", drawn).code == 0
    outcome = run_enas("spec", "validate", path, drawn)
    assert outcome.out.splitlines() == [f"{p}: ok, recurrent network for shakespeare" for p in (path, drawn)]
    outcome = run_enas("spec", "show", path, "--svg", svg)
    assert "  node 5       = tanh(node 3)" in outcome.out.splitlines()
    assert "  output       = mean(node 4, node 5, node 8, node 10, node 11, node 12)" in outcome.out.splitlines()
    assert svg.is_file()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "1 2 3",
            "published encoding: 3 numbers; expected 4 for each node of both cells, e.g. 40 for 5 nodes a cell",
        ),
        ("0 9 0 0 0 0 0 0", "published encoding: row 1: operation 9; expected 0 to 4"),
        ("0 0 2 0 0 0 0 0", "architecture: normal[0].inputs[1] is 2, but node 2 can only read nodes 0 to 1"),
        ("nosuch.txt", "nosuch.txt: no such file, and not the whole numbers of an encoding either"),
    ],
)
def test_import_names_what_is_wrong(run_enas: _Enas, text: str, message: str) -> None:
    outcome = run_enas("spec", "import", text)
    assert (outcome.code, outcome.out, outcome.err) == (2, "", f"error: {message}\n")


# --- report and search ------------------------------------------------------------------------------------------------


def test_import_of_what_is_no_text_says_so(run_enas: _Enas, tmp_path: Path) -> None:
    (tmp_path / "photos.zip").write_bytes(b"PK\x03\x04\xff")
    outcome = run_enas("spec", "import", tmp_path / "photos.zip")
    assert outcome.code == 2
    assert outcome.err == f"error: {tmp_path}/photos.zip: not UTF-8 text (invalid start byte at byte 4)\n"


def test_report_prints_the_path_of_the_page(run_enas: _Enas, spec_path: Path) -> None:
    outcome = run_enas("report", spec_path.parent)
    assert (outcome.code, outcome.out) == (0, f"{spec_path.parent / 'report.html'}\n")
    assert (spec_path.parent / "report.html").is_file()


def test_report_of_a_run_that_is_not_there_exits_2(run_enas: _Enas, tmp_path: Path) -> None:
    path = tmp_path / "none"
    outcome = run_enas("report", path)
    message = f"error: {path}: no such run directory; `enas search --run {path}` makes it\n"
    assert (outcome.code, outcome.out, outcome.err) == (2, "", message)


def test_a_stopped_search_prints_the_command_that_goes_on_with_it(
    run_enas: _Enas, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    from searcher.running import interrupt
    from searcher.training import search

    def stop(*_: object, **__: object) -> None:
        raise interrupt.Stopped

    monkeypatch.setattr(search, "search", stop)
    run = tmp_path / "my run"
    outcome = run_enas("search", "--seed", "3", "--run", run, "--policy", "random", "--device", "cpu")
    assert outcome.code == 130
    last = outcome.err.splitlines()[-1]
    assert last == f"stopped; go on with: enas search --seed 3 --run '{run}' --policy random --device cpu --resume"
