from pathlib import Path
from typing import Any

import pytest

from runtime.models import providers
from runtime.models.artifact import ArtifactError
from runtime.models.model import Model
from runtime.models.providers import ProviderError, Session, Tuning, open_session


def test_a_session_says_where_its_nodes_run(model_path: Path) -> None:
    session = Model.open(model_path, provider="cpu").session
    assert session.providers == ("CPUExecutionProvider",)
    assert session.device == "cpu"
    assert session.nodes == {"CPUExecutionProvider": 7}
    assert session.describe() == "CPU"
    assert session.remark is None


def test_threads_are_handed_to_onnxruntime(model_path: Path) -> None:
    session = Model.open(model_path, provider="cpu", threads=1).session
    assert session.ort.get_session_options().intra_op_num_threads == 1


def test_cuda_that_cannot_be_had_is_an_error_that_names_what_is_missing(
    model_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(providers, "cuda_obstacles", lambda: ("libcudnn is missing", "libcublas is missing"))
    with pytest.raises(ProviderError) as caught:
        Model.open(model_path, provider="cuda")
    assert str(caught.value) == (
        "CUDA cannot be used: libcudnn is missing; libcublas is missing; "
        "the libraries come with: pip install 'enas-toolchain[runtime-cuda]'"
    )


def test_auto_falls_back_and_says_why(model_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(providers, "cuda_obstacles", lambda: ("libcudnn is missing",))
    session = Model.open(model_path, provider="auto").session
    assert session.device == "cpu"
    assert session.remark == "CUDA cannot be used: libcudnn is missing"


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (MemoryError(), "MemoryError"),
        (RuntimeError("[ONNXRuntimeError] : 6 : RUNTIME_EXCEPTION : out of memory\nin a kernel"), "out of memory"),
    ],
)
def test_auto_falls_back_where_cuda_fails_while_a_session_is_made(
    error: Exception, reason: str, model_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    create = providers._create

    def only_on_the_cpu(*arguments: Any, **options: Any) -> Session:
        if len(arguments[1]) > 1:
            raise error
        return create(*arguments, **options)

    monkeypatch.setattr(providers, "cuda_obstacles", lambda: ())
    monkeypatch.setattr(providers, "_create", only_on_the_cpu)
    session = Model.open(model_path, provider="auto").session
    assert (session.device, session.remark) == ("cpu", f"CUDA cannot be used: {reason}")


def test_auto_is_silent_where_there_is_no_gpu_and_cuda_is_an_error_of_one_line(
    model_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(providers, "_load_failure", lambda library: f"{library} is missing")
    assert Model.open(model_path, provider="auto").session.remark is None
    with pytest.raises(ProviderError, match=r"^CUDA cannot be used: no NVIDIA driver; the libraries come with: "):
        Model.open(model_path, provider="cuda")


def test_a_cuda_graph_is_not_recorded_on_the_cpu(model_path: Path) -> None:
    with pytest.raises(ProviderError, match=r"^a CUDA graph takes CUDA, but the session runs on the CPU$"):
        open_session(model_path.read_bytes(), provider="cpu", threads=1, tuning=Tuning(cuda_graph=True))


def test_spinning_can_be_turned_off(model_path: Path) -> None:
    tuning = Tuning(spinning=False)
    session = open_session(model_path.read_bytes(), provider="cpu", threads=2, tuning=tuning)
    assert session.ort.get_session_options().get_session_config_entry("session.intra_op.allow_spinning") == "0"


def _without_cuda() -> bool:
    return bool(providers.cuda_obstacles())


@pytest.mark.skipif("not _without_cuda()", reason="CUDA works here")
def test_a_session_that_came_up_on_the_cpu_is_not_believed_to_be_on_cuda(
    model_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    # The checks before the session find nothing: what the session says afterwards has to be enough.
    monkeypatch.setattr(providers, "cuda_obstacles", lambda: ())
    with pytest.raises(ProviderError, match="CUDA cannot be used: the session came up on CPUExecutionProvider"):
        Model.open(model_path, provider="cuda")
    assert Model.open(model_path, provider="auto").session.device == "cpu"
    assert capfd.readouterr().err == ""


@pytest.mark.gpu
@pytest.mark.skipif("_without_cuda()", reason="onnxruntime has no CUDA here")
def test_cuda_runs_every_heavy_node(model_path: Path) -> None:
    session = Model.open(model_path, provider="cuda").session
    assert session.device == "cuda"
    assert session.nodes["CUDAExecutionProvider"] > 0


@pytest.mark.gpu
@pytest.mark.skipif("_without_cuda()", reason="onnxruntime has no CUDA here")
def test_cuda_takes_the_search_and_the_graph_it_is_asked_for(model_path: Path) -> None:
    tuning = Tuning(conv_search="heuristic", cuda_graph=True)
    session = open_session(model_path.read_bytes(), provider="cuda", threads=None, tuning=tuning)
    options = session.ort.get_provider_options()["CUDAExecutionProvider"]
    assert options["cudnn_conv_algo_search"] == "HEURISTIC"
    assert options["enable_cuda_graph"] == "1"


def test_a_broken_file_is_told_before_missing_cuda(tmp_path: Path) -> None:
    path = tmp_path / "text.onnx"
    path.write_text("this is not a model")
    with pytest.raises(ArtifactError, match="not an ONNX file"):
        Model.open(path, provider="cuda")
