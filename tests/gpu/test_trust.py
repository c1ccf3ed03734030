"""When kernels run unasked: after a record, or a switch, and never again after a failure."""

import json
import logging
import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from torch.autograd import gradcheck, gradgradcheck

from segcontext import ops
from segcontext.errors import KernelError
from segcontext.gpu import record, trust
from segcontext.gpu.record import CHECKED, Verdict, digest_of_checked, machine, read_verdicts, record_path, write_record
from segcontext.gpu.trust import Site, is_trusted
from segcontext.ops.implementations import choose, use_implementation
from segcontext.ops.launching import launched

CUDA = Site(torch.device("cuda", 0), torch.bfloat16, True)
CPU = Site(torch.device("cpu"), torch.float64, True)


@pytest.fixture(autouse=True)
def forgetful(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.delenv("SEGCONTEXT_TRITON", raising=False)
    trust.forget()
    yield
    trust.forget()


@pytest.fixture
def gpu(monkeypatch):
    """A GPU that can be asked for its name."""
    properties = SimpleNamespace(name="NVIDIA H200 NVL", major=9, minor=0)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda index: properties)
    return properties


def test_without_a_record_it_is_said_once_which_command_makes_one(gpu, caplog):
    assert not any(is_trusted(name, CUDA) for name in ("local_attention", "em_attention", "local_attention"))
    (said,) = (record.getMessage() for record in caplog.records)
    assert "have not been checked on this NVIDIA H200 NVL" in said
    assert "segcontext check-gpu" in said


def test_a_record_goes_by_all_that_a_check_runs_through(gpu, tmp_path):
    package = tmp_path / "segcontext"
    shutil.copytree(Path(record.__file__).parents[1], package, ignore=shutil.ignore_patterns("__pycache__"))
    assert all((package / name).exists() for name in CHECKED)
    whole = digest_of_checked(package)
    assert machine(0)["kernels"] == whole
    calling = [path for path in package.rglob("*.py") if "ops.launching import" in path.read_text(encoding="utf-8")]
    assert len(calling) > 5
    others = ("gpu/kernels/em.py", "gpu_check/label_cases.py", "types.py", "inference/protocol.py", "metrics/labels.py")
    for path in (*calling, *(package / name for name in others)):
        before = path.read_bytes()
        path.write_bytes(before + b"#\n")
        assert digest_of_checked(package) != whole, path
        path.write_bytes(before)
    (package / "zoo.py").write_text("")
    assert digest_of_checked(package) == whole


def test_what_a_record_holds_is_taken(gpu, caplog):
    verdicts = [
        Verdict("local_attention", "bfloat16", True, True),
        Verdict("local_attention", "float32", True, False),
        Verdict("gated_by_mask", "bfloat16", False, True),
    ]
    path = write_record(machine(0), verdicts, [{"operation": "local_attention", "error": 1e-3}])
    assert path.name.startswith("nvidia-h200-nvl-")
    assert read_verdicts(machine(0)) == verdicts
    assert is_trusted("local_attention", CUDA)
    assert not is_trusted("local_attention", CUDA._replace(dtype=torch.float32))
    assert not is_trusted("gated_by_mask", CUDA)
    assert is_trusted("gated_by_mask", CUDA._replace(gradients=False))
    assert choose("local_attention", None, {"triton": None, "native": None}, CUDA) == "triton"
    assert not caplog.records


@pytest.mark.parametrize("change", ["gpu", "torch", "kernels", "format", "damage"])
def test_a_record_of_another_machine_or_version_counts_as_none(gpu, monkeypatch, change):
    write_record(machine(0), [Verdict("local_attention", "bfloat16", True, True)], [])
    if change == "gpu":
        gpu.name = "NVIDIA A100"
    elif change == "torch":
        monkeypatch.setattr(torch, "__version__", "9.9")
    elif change == "kernels":
        monkeypatch.setattr(record, "digest_of_checked", lambda package: "others")
    else:
        path = record_path(machine(0))
        text = path.read_text()
        path.write_text(json.dumps({**json.loads(text), "format": 0}) if change == "format" else text[:-20])
    assert not is_trusted("local_attention", CUDA)


def test_a_record_is_read_once(gpu, monkeypatch):
    reads = []
    monkeypatch.setattr(trust, "read_verdicts", lambda found_on: reads.append(found_on))
    for _ in range(3):
        is_trusted("local_attention", CUDA)
    assert len(reads) == 1


def test_the_switch(monkeypatch):
    monkeypatch.setenv("SEGCONTEXT_TRITON", "1")
    assert is_trusted("local_attention", CPU)
    assert choose("op", None, {"triton": None, "native": None}, CPU) == "triton"
    assert choose("op", None, {"triton": None, "native": None}) == "native"


@pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated")
def test_transformed_functions_take_other_forms(monkeypatch):
    monkeypatch.setenv("SEGCONTEXT_TRITON", "1")
    seen = []

    def call(x):
        seen.append(choose("op", None, {"triton": None}, CPU))
        return x

    torch.func.vmap(call)(torch.ones(2))
    call(torch.ones(2))
    assert seen == ["reference", "triton"]


def test_the_compiler_can_ask(monkeypatch):
    monkeypatch.setenv("SEGCONTEXT_TRITON", "1")

    def call(x):
        form = choose("op", None, {"triton": None, "native": None}, Site.of(x))
        return x + 1 if form == "triton" else x - 1

    assert torch.compile(call, backend="eager", fullgraph=True)(torch.zeros(1)) == 1


def broken(*tensors):
    raise RuntimeError("out of resource: shared memory\nRequired: much")


def squares(x, y):
    return x.square() * y


def test_what_fails_unasked_is_logged_and_not_chosen_again(monkeypatch, caplog):
    monkeypatch.setenv("SEGCONTEXT_TRITON", "1")
    x, y = torch.rand(2, 3, dtype=torch.float64, requires_grad=True)
    for site in (CPU, CPU._replace(gradients=False)):
        assert launched("op", None, site, broken, squares, x, y) is None
    assert [record.getMessage() for record in caplog.records] == [
        "The kernels of op for the GPU are not used any more: RuntimeError: out of resource: shared memory."
    ]
    assert choose("op", None, {"triton": None, "native": None}, CPU) == "native"
    assert choose("another", None, {"triton": None, "native": None}, CPU) == "triton"


def test_what_fails_by_name_is_an_error():
    x = torch.ones(2)
    with pytest.raises(KernelError, match="op for the GPU, which were asked for by name, failed: RuntimeError: out of"):
        launched("op", "triton", CPU, broken, squares, x, x)
    with use_implementation("triton"), pytest.raises(KernelError):
        launched("op", None, CPU, broken, squares, x, x)


def test_memory_is_the_user_s_business():
    def full(*tensors):
        raise torch.OutOfMemoryError("CUDA out of memory")

    with pytest.raises(torch.OutOfMemoryError):
        launched("op", None, CPU, full, squares, torch.ones(1), torch.ones(1))


class Half(torch.autograd.Function):
    """Kernels without a backward pass."""

    @staticmethod
    def forward(ctx, x, y):
        return x.square() * y

    @staticmethod
    def backward(ctx, slope):
        raise RuntimeError("no registers left")


def test_a_backward_pass_that_fails_gives_the_plain_form_s_gradients(caplog):
    x, y = (each.clone().requires_grad_() for each in torch.rand(2, 3, dtype=torch.float64))
    out = launched("op", None, CPU, Half.apply, squares, x, y)
    out.sum().backward()
    assert torch.equal(x.grad, 2 * x.detach() * y.detach())
    assert torch.equal(y.grad, x.detach().square())
    assert "not used any more: in the backward pass: RuntimeError: no registers left" in caplog.text
    assert not is_trusted("op", CPU)


def test_guarded_calls_have_all_derivatives():
    def call(x, y, nothing=None):
        return launched("op", None, CPU, lambda x, y, _: (squares(x, y), x.detach()), both, x, y, nothing)[0]

    def both(x, y, _):
        return squares(x, y), x.detach()

    x, y = (each.clone().requires_grad_() for each in torch.rand(2, 3, dtype=torch.float64))
    assert gradcheck(call, (x, y))
    assert gradgradcheck(call, (x, y))
    out = call(x, y.detach())
    first, second = (torch.autograd.grad(out.sum(), x, retain_graph=True)[0] for _ in range(2))
    assert torch.equal(first, second)


def test_operations_fall_back(monkeypatch, caplog):
    """The real operations, with kernels that fail, unasked."""
    monkeypatch.setenv("SEGCONTEXT_TRITON", "1")
    monkeypatch.setenv("TRITON_INTERPRET", "1")
    pytest.importorskip("triton")
    x, bases = torch.rand(1, 9, 4), torch.rand(3, 4)
    maps = torch.rand(1, 4, 3, 3)
    for name in ("local_attention.by_triton", "gated_by_mask.gate", "resized_argmax.by_triton"):
        module, function = name.split(".")
        monkeypatch.setitem(vars(__import__(f"segcontext.ops.{module}", fromlist=["_"])), function, broken)
    monkeypatch.setattr("segcontext.ops.em_triton.em_attention", broken)
    calls = (
        lambda **how: ops.local_attention(maps, maps, maps, **how),
        lambda **how: ops.gated_by_mask(maps, maps[..., :1], **how),
        lambda **how: ops.resized_argmax(maps, (5, 5), align_corners=True, **how),
        lambda **how: ops.em_attention(x, bases, projection=(torch.ones(4, 4), None), **how).reconstruction,
    )
    with caplog.at_level(logging.WARNING):
        for call in calls:
            torch.testing.assert_close(call(), call(implementation="reference"))
            with pytest.raises(KernelError):
                call(implementation="triton")
    assert len(caplog.records) == len(calls)
