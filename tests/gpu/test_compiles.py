"""What the operations launch compiles for a named GPU without one, and spills no register."""

import os
import re
import subprocess
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from segcontext.gpu import boundary, em_output, em_steps, fusion, gating, largest, local_attention, small_products

triton = pytest.importorskip("triton")
pytestmark = pytest.mark.skipif(
    os.environ.get("TRITON_INTERPRET") == "1", reason="the interpreter's kernels cannot be compiled"
)

#: Compute capability 9.0 (H100, H200), and the shared memory of one program there, in bytes.
CAPABILITY, SHARED = 90, 227 * 1024
TYPES = {
    torch.float32: "*fp32",
    torch.bfloat16: "*bf16",
    torch.float16: "*fp16",
    torch.int64: "*i64",
    torch.int32: "*i32",
    torch.uint8: "*u8",
}


class Recorder:
    """Stands in for a kernel and notes what it is launched with."""

    def __init__(self, kernel, launches):
        self.kernel, self.launches = kernel, launches

    def __getitem__(self, grid):
        assert all(side >= 1 for side in grid)
        return lambda *args, **options: self.launches.append((self.kernel, args, options))


@pytest.fixture
def launches(monkeypatch):
    """Everything that is launched, instead of being run."""
    from triton.runtime.jit import JITFunction

    from segcontext.gpu.kernels import bases, boundary, em, fusion, gating, largest, local, output

    found = []
    for module in (bases, boundary, em, fusion, gating, largest, local, output):
        for name in module.__all__:
            if isinstance(getattr(module, name), JITFunction):
                monkeypatch.setattr(module, name, Recorder(getattr(module, name), found))
    return found


def compiled(kernel, args, options, capability=CAPABILITY):
    """Registers, spilled bytes and shared memory of a launch, specialised as Triton would."""
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    how = {name: options.pop(name) for name in ("num_warps", "num_stages") if name in options}
    values = dict(zip(kernel.arg_names, args, strict=False)) | options
    signature, constants, attributes = {}, {}, {}
    for place, name in enumerate(kernel.arg_names):
        value = values[name]
        if isinstance(value, torch.Tensor):
            signature[name] = TYPES[value.dtype]
        elif name in options or (isinstance(value, int) and value == 1):
            signature[name], constants[(place,)] = "constexpr", value
            continue
        else:
            signature[name] = "fp32" if isinstance(value, float) else "i32"
        if isinstance(value, torch.Tensor) or (isinstance(value, int) and value % 16 == 0):
            attributes[(place,)] = [["tt.divisibility", 16]]
    source = ASTSource(kernel, signature, constexprs=constants, attrs=attributes)
    built = triton.compile(source, target=GPUTarget("cuda", capability, 32), options=how)
    return built.asm["ptx"], built.metadata.shared


def spilled(ptx, folder):
    """Bytes that the assembler spills."""
    assembler = Path(triton.__file__).parent / "backends" / "nvidia" / "bin" / "ptxas"
    if not assembler.exists():
        pytest.skip("this Triton brings no assembler")
    (folder / "kernel.ptx").write_text(ptx)
    architecture = re.search(r"\.target (\w+)", ptx).group(1)
    command = [assembler, "-v", f"--gpu-name={architecture}", folder / "kernel.ptx", "-o", folder / "kernel.o"]
    said = subprocess.run(command, capture_output=True, text=True, check=True).stderr
    return SimpleNamespace(
        bytes=int(re.search(r"(\d+) bytes spill stores", said).group(1)),
        registers=int(re.search(r"Used (\d+) registers", said).group(1)),
    )


def check(launches, folder, expected):
    assert [kernel.fn.__name__ for kernel, _, _ in launches] == expected
    for kernel, args, options in launches:
        ptx, shared = compiled(kernel, args, dict(options))
        assert spilled(ptx, folder).bytes == 0, kernel.fn.__name__
        assert shared <= SHARED, kernel.fn.__name__


@pytest.mark.parametrize(("capability", "shared"), [(80, 163 * 1024), (89, 99 * 1024)])
def test_what_is_largest_fits_onto_smaller_gpus(launches, monkeypatch, capability, shared):
    for module in (em_steps, em_output, local_attention):
        monkeypatch.setattr(module, "shared_memory", lambda device: shared)
    x, shares, folded = (torch.empty(2, *size, dtype=torch.bfloat16) for size in ((256, 512), (256, 64), (64, 512)))
    em_steps.summed(x, folded, torch.empty(2, 64), keep=True)
    em_output.em_output(x, shares, folded, torch.empty(512, 512, dtype=x.dtype), torch.empty(512, dtype=x.dtype))
    query, value = torch.empty(2, 16, 16, 256, dtype=x.dtype), torch.empty(2, 16, 16, 512, dtype=x.dtype)
    out, sums = local_attention._attend(query, query, value, 2, 3, 1 / 16)
    local_attention._slopes(query, query, value, out, sums, value, 2, 3, 1 / 16)
    for kernel, args, options in launches:
        _, needed = compiled(kernel, args, dict(options), capability)
        assert needed <= shared, (kernel.fn.__name__, options)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_em_attention(launches, tmp_path, dtype):
    x, folded, offset = torch.empty(2, 256, 512, dtype=dtype), torch.empty(2, 64, 512, dtype=dtype), torch.empty(2, 64)
    if dtype == torch.bfloat16:
        em_steps.summed(x, folded, offset, keep=True)
        em_steps.summed(x, folded, offset)
    else:
        em_steps.assign(x, folded, offset)
    em_steps.em_mix(x, folded, offset, folded)
    em_steps.em_slope(x, folded, offset, x, folded, offset, True)
    names = ["sums", "sums"] if dtype == torch.bfloat16 else ["assign"]
    check(launches, tmp_path, [*names, "mix", "slope"])


def test_bases(launches, tmp_path):
    found, masses, before = torch.empty(2, 3, 64, 512), torch.empty(2, 3, 64), torch.empty(2, 64, 512)
    weight, bias = torch.empty(512, 512, dtype=torch.bfloat16), torch.empty(512, dtype=torch.bfloat16)
    small_products.finish(found, masses, before, weight, bias, "l2", 1e-6, True)
    small_products.product(before, weight, transposed=True, centre=True, dtype=torch.bfloat16)
    check(launches, tmp_path, ["finish", "product", "finish", "product"])


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_local_attention(launches, tmp_path, dtype):
    query, value = torch.empty(2, 16, 16, 256, dtype=dtype), torch.empty(2, 16, 16, 512, dtype=dtype)
    out, sums = local_attention._attend(query, query, value, 2, 3, 1 / 16)
    local_attention._slopes(query, query, value, out, sums, value, 2, 3, 1 / 16)
    check(launches, tmp_path, ["attend", "slope", "slope", "slope"])


@pytest.mark.parametrize("layout", [torch.channels_last, torch.contiguous_format])
def test_gating(launches, tmp_path, layout):
    x, logits = (
        torch.empty(2, 512, *size, dtype=torch.bfloat16).to(memory_format=layout) for size in ((128, 256), (16, 32))
    )
    gating._gate(x, logits, 1.0, True)
    gating._slopes(x, logits, x, 1.0, True)
    check(launches, tmp_path, ["gate", "slope", "collect"])


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_output(launches, tmp_path, dtype):
    x, shares, means = (torch.empty(2, *size, dtype=dtype) for size in ((256, 512), (256, 64), (64, 512)))
    em_output.em_output(x, shares, means, torch.empty(512, 512, dtype=dtype), torch.empty(512, dtype=dtype))
    check(launches, tmp_path, ["output"])


@pytest.mark.parametrize("classes", [19, 171])
def test_largest(launches, tmp_path, classes):
    logits = torch.empty(1, classes, 128, 256, dtype=torch.bfloat16)
    largest._count(logits, torch.empty(1, 1024, 2048, dtype=torch.uint8), [1024, 2048], 255, True)
    largest._argmax(logits, [1024, 2048], [1024, 2048], True, torch.uint8)
    # Nothing is resized here.
    largest._argmax(logits, [128, 256], [128, 256], True, torch.uint8)
    check(launches, tmp_path, ["largest"] * 3)


@pytest.mark.parametrize("classes", [19, 171])
def test_fusion(launches, tmp_path, classes):
    view = fusion.View(torch.empty(1, classes, 65, 129), (513, 1025), (512, 1024), True)
    fusion.fuse([view], (1024, 2048), dtype=torch.uint8)
    check(launches, tmp_path, ["fuse"])


def test_boundary(launches, tmp_path):
    boundary._count(torch.empty(2, 1024, 2048, dtype=torch.int32), 19, [3.0, 5.0, 9.0, 12.0])
    check(launches, tmp_path, ["mark", "match"])
