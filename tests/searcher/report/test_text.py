from pathlib import Path

from searcher.arch.spaces import recurrent
from searcher.arch.spaces.macro import Layer, MacroArchitecture, MacroSize
from searcher.arch.spaces.micro import MicroArchitecture, MicroSize, Node
from searcher.arch.spaces.recurrent import RecurrentArchitecture, RecurrentSize
from searcher.arch.spec import Spec
from searcher.arch.tasks import LanguageModelling
from searcher.report.text import describe_spec
from tests.searcher.report.test_graph import make_spec, published_spec

GOLDEN = Path(__file__).parents[2] / "golden" / "published_micro.txt"


def test_the_published_architecture_reads_as_the_golden_text() -> None:
    assert describe_spec(published_spec()) == GOLDEN.read_text(encoding="utf-8")


def test_a_cell_of_one_node_is_one_formula() -> None:
    cell = (Node((0, 1), ("identity", "max_pool_3x3")),)
    lines = describe_spec(make_spec(MicroArchitecture(cell, cell), MicroSize(3, 2))).splitlines()
    assert lines[5:7] == [
        "  node 2    = identity(prev-prev) + max_pool_3x3(prev)",
        "  output    = concat(node 2)",
    ]


def test_a_macro_layer_is_a_formula_that_shows_how_skips_are_joined() -> None:
    layers = (Layer("conv_3x3"), Layer("max_pool_3x3"), Layer("sep_conv_5x5", (0, 1)))
    joined = {
        "sum": "  layer 3 = sep_conv_5x5(layer 2) + stem + layer 1",
        "concat": "  layer 3 = concat(sep_conv_5x5(layer 2), stem, layer 1)",
    }
    for skip_merge, last in joined.items():
        size = MacroSize(4, skip_merge=skip_merge)  # type: ignore[arg-type]
        lines = describe_spec(make_spec(MacroArchitecture(layers), size)).splitlines()
        assert lines[3:7] == [
            "  stem    = output of the first convolution",
            "  layer 1 = conv_3x3(stem)",
            "  layer 2 = max_pool_3x3(layer 1)",
            last,
        ]


def test_a_recurrent_node_is_an_activation_of_what_it_reads() -> None:
    nodes = (recurrent.Node(0, "tanh"), recurrent.Node(1, "relu"), recurrent.Node(1, "identity"))
    task = LanguageModelling(dataset="letters", tokens="char", vocabulary_size=65)
    spec = Spec("recurrent", RecurrentArchitecture(nodes), RecurrentSize(8), task)
    assert describe_spec(spec).splitlines() == [
        "recurrent network for letters: characters → the next of 65",
        "",
        "cell: a gate mixes what a node reads with an activation of it",
        "  token, state = output of the embedding and the step before",
        "  node 1       = tanh(token, state)",
        "  node 2       = relu(node 1)",
        "  node 3       = identity(node 1)",
        "  output       = mean(node 2, node 3)",
        "",
        "network: output of each stage",
        "  embedding  8",
        "  cell       8",
        "  softmax    65",
    ]


def test_no_line_ends_in_a_blank() -> None:
    text = describe_spec(published_spec())
    assert all(line == line.rstrip() for line in text.splitlines())
    assert text.endswith("\n")
