import itertools
import random
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from searcher.arch import catalog
from searcher.arch.spaces import macro
from searcher.arch.spaces.macro import Layer, MacroArchitecture, MacroSize, MacroSpace
from searcher.arch.spaces.micro import MicroArchitecture, MicroSize, MicroSpace, Node, from_published
from searcher.arch.spaces.recurrent import OUTPUTS, RecurrentSize, RecurrentSpace
from searcher.arch.spaces.stages import StagesSize
from searcher.arch.spec import Spec
from searcher.arch.stages.architecture import Stage as Stretch
from searcher.arch.stages.architecture import StagesArchitecture, Stem
from searcher.arch.stages.operations import OPERATIONS
from searcher.arch.tasks import ImageClassification, LanguageModelling
from searcher.report.graph import GraphEdge, Stage, graphs_of, outline_of

PUBLISHED = """
0 2 0 0 0 4 0 1 0 4 1 1 1 0 0 1 0 2 1 1
1 0 1 0 0 3 0 2 1 1 3 1 1 0 0 4 0 3 1 1
"""


def make_spec(
    architecture: MicroArchitecture | MacroArchitecture, size: MicroSize | MacroSize, *, dataset: str = "cifar10"
) -> Spec:
    classes = tuple(f"class {index}" for index in range(10))
    space = "micro" if isinstance(architecture, MicroArchitecture) else "macro"
    return Spec(
        space, architecture, size, ImageClassification(dataset=dataset, input_shape=(32, 32, 3), classes=classes)
    )


def published_spec() -> Spec:
    return make_spec(from_published(PUBLISHED), MicroSize(cells=17, channels=36))


def published_macro_spec() -> Spec:
    text = (Path(__file__).parents[2] / "golden" / "published_macro_encoding.txt").read_text(encoding="utf-8")
    return make_spec(macro.from_published(text), MacroSize(channels=96, double_channels=True))


@st.composite
def specs(draw: st.DrawFn) -> Spec:
    """Uniformly random architectures of all sizes."""
    space = MicroSpace(draw(st.integers(1, 8)))
    size = MicroSize(draw(st.integers(3, 20)), draw(st.integers(2, 64)), draw(st.sampled_from([1, 2, 4])))
    return make_spec(space.random(random.Random(draw(st.integers(0, 10_000)))), size)


@st.composite
def macro_specs(draw: st.DrawFn) -> Spec:
    """Uniformly random macro networks of all depths."""
    space = MacroSpace(draw(st.integers(3, 24)))
    size = MacroSize(
        draw(st.integers(2, 64)),
        draw(st.sampled_from([1, 2, 4])),
        skip_merge=draw(st.sampled_from(["sum", "concat"])),
        double_channels=draw(st.booleans()),
    )
    return make_spec(space.random(random.Random(draw(st.integers(0, 10_000)))), size)


@given(specs())
def test_a_graph_has_every_operation_of_its_cell_in_order(spec: Spec) -> None:
    for graph, cell in zip(graphs_of(spec), (spec.architecture.normal, spec.architecture.reduction), strict=True):
        drawn = [edge.operation for node in graph.nodes for edge in node.edges if edge.operation]
        assert drawn == [operation for node in cell for operation in node.operations]


@given(specs())
def test_every_node_comes_after_what_it_reads_and_leads_to_the_output(spec: Spec) -> None:
    for graph in graphs_of(spec):
        seen: set[str] = set()
        read: set[str] = set()
        for node in graph.nodes:
            sources = {edge.source for edge in node.edges}
            assert sources <= seen
            seen.add(node.name)
            read |= sources
        assert seen - read == {"output"}


def test_an_input_that_no_node_reads_goes_to_the_output() -> None:
    cell = (Node((1, 1), ("sep_conv_3x3", "identity")),)
    graph, _ = graphs_of(make_spec(MicroArchitecture(cell, cell), MicroSize(3, 2)))
    assert graph.nodes[-1].edges == (GraphEdge("prev-prev"), GraphEdge("node 2"))


def test_the_outline_joins_normal_cells_and_follows_sizes_to_the_classifier() -> None:
    assert outline_of(published_spec()) == (
        Stage("stem", (32, 32, 108)),
        Stage("normal", (32, 32, 180), count=5, width=36),
        Stage("reduction", (16, 16, 288), width=72, reduces=True),
        Stage("normal", (16, 16, 360), count=5, width=72),
        Stage("reduction", (8, 8, 576), width=144, reduces=True),
        Stage("normal", (8, 8, 720), count=5, width=144),
        Stage("classifier", (10,)),
    )


def test_the_smallest_network_begins_with_two_reduction_cells() -> None:
    names = [stage.name for stage in outline_of(make_spec(from_published(PUBLISHED), MicroSize(3, 2)))]
    assert names == ["stem", "reduction", "reduction", "normal", "classifier"]


def test_the_outline_has_the_shapes_of_the_network_itself() -> None:
    from searcher.nn.build import build_network

    spec = make_spec(from_published(PUBLISHED), MicroSize(cells=5, channels=4, stem_stride=2))
    network = build_network(spec)
    classifier = next(module for name, module in network.named_modules() if name.endswith("classifier"))
    assert outline_of(spec)[-2].shape[-1] == classifier.in_features


@st.composite
def stages_specs(draw: st.DrawFn) -> Spec:
    """Networks of all widths and depths."""
    widths, layers = st.integers(1, 2000), st.lists(st.sampled_from(list(OPERATIONS)), min_size=1, max_size=5)
    stages = st.lists(st.builds(Stretch, widths, layers.map(tuple)), min_size=1, max_size=4)
    stem = Stem(draw(widths), draw(st.sampled_from([1, 2, 4])))
    task = ImageClassification(dataset="cifar10", input_shape=(33, 28, 3), classes=("round", "square"))
    return Spec("stages", StagesArchitecture(stem, tuple(draw(stages))), StagesSize(), task)


@given(stages_specs())
def test_a_stages_graph_is_a_chain_of_its_layers_with_a_note_where_a_stage_begins(spec: Spec) -> None:
    (graph,) = graphs_of(spec)
    stem, *nodes = graph.nodes
    assert (graph.is_chain, stem.edges) == (True, ())
    for before, node in itertools.pairwise(graph.nodes):
        assert [edge.source for edge in node.edges] == [before.name]
    chosen = [name for stage in spec.architecture.stages for name in stage.layers]
    assert [node.edges[0].operation for node in nodes] == chosen
    depths = [len(stage.layers) for stage in spec.architecture.stages]
    notes = [note for number, depth in enumerate(depths, start=1) for note in (f"stage {number}", *[""] * (depth - 1))]
    assert [node.note for node in nodes] == notes


def test_the_outline_of_a_stages_network_has_the_shapes_of_its_parts() -> None:
    from searcher.nn.complexity import complexity_of

    spec = catalog.published_spec("resnet-20")
    assert outline_of(spec) == (
        Stage("stem", (32, 32, 16)),
        Stage("stage 1", (32, 32, 16), width=16),
        Stage("stage 2", (16, 16, 32), width=32, reduces=True),
        Stage("stage 3", (8, 8, 64), width=64, reduces=True),
        Stage("classifier", (10,)),
    )
    parts = {part.name.partition(",")[0]: part.shape for part in complexity_of(spec).parts}
    (graph,) = graphs_of(spec)
    assert all(parts[node.name] == node.shape for node in graph.nodes)


@given(macro_specs())
def test_a_macro_graph_is_a_chain_with_the_architectures_operations_and_skips(spec: Spec) -> None:
    (graph,) = graphs_of(spec)
    names = [node.name for node in graph.nodes]
    assert graph.is_chain
    for before, node, layer in zip(names, graph.nodes[1:], spec.architecture.layers, strict=False):
        assert node.edges[0] == GraphEdge(before, layer.operation)
        assert node.edges[1:] == tuple(GraphEdge(names[tensor]) for tensor in layer.skips)
        assert node.join == (spec.network.skip_merge if layer.skips else "sum")


def test_the_outline_of_a_macro_network_halves_where_the_network_does() -> None:
    assert outline_of(published_macro_spec()) == (
        Stage("stem", (32, 32, 96)),
        Stage("layer", (32, 32, 96), count=8, width=96),
        Stage("reduction", (16, 16, 192), reduces=True),
        Stage("layer", (16, 16, 192), count=8, width=192),
        Stage("reduction", (8, 8, 384), reduces=True),
        Stage("layer", (8, 8, 384), count=8, width=384),
        Stage("classifier", (10,)),
    )


def test_the_shallowest_macro_network_halves_after_its_first_two_layers() -> None:
    spec = make_spec(MacroArchitecture((Layer("conv_3x3"),) * 3), MacroSize(4))
    assert [stage.title for stage in outline_of(spec)] == [
        *("stem", "layer", "reduction", "layer", "reduction", "layer", "classifier")
    ]
    (graph,) = graphs_of(spec)
    assert [node.shape for node in graph.nodes] == [(32, 32, 4), (32, 32, 4), (16, 16, 4), (8, 8, 4)]


@st.composite
def recurrent_specs(draw: st.DrawFn) -> Spec:
    """Uniformly random cells of all sizes."""
    space = RecurrentSpace(draw(st.integers(2, 12)), output=draw(st.sampled_from(OUTPUTS)))
    architecture = space.random(random.Random(draw(st.integers(0, 10_000))))
    task = LanguageModelling(dataset="ptb", tokens="word", vocabulary_size=10_000)
    return Spec("recurrent", architecture, RecurrentSize(draw(st.integers(1, 900))), task)


@given(recurrent_specs())
def test_a_recurrent_graph_has_every_activation_and_ends_in_the_mean_of_what_is_averaged(spec: Spec) -> None:
    (graph,) = graphs_of(spec)
    source, *nodes, output = graph.nodes
    names = [source.name, *(node.name for node in nodes)]
    assert [node.edges for node in nodes] == [
        (GraphEdge(names[node.previous], node.activation),) for node in spec.architecture.nodes
    ]
    assert output.join == "mean"
    assert output.edges == tuple(GraphEdge(names[number]) for number in spec.architecture.averaged)


def test_the_outline_of_a_recurrent_network_goes_from_the_embedding_to_the_softmax() -> None:
    assert outline_of(catalog.published_spec("enas-recurrent-published")) == (
        Stage("embedding", (748,)),
        Stage("cell", (748,)),
        Stage("softmax", (10_000,)),
    )
