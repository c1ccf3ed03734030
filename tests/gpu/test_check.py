"""The command that checks the kernels on the GPU at hand, without one."""

from types import SimpleNamespace

import pytest
import torch
from tests.gpu.crashing import crashing_cases, failing_cases

from segcontext import cli
from segcontext.errors import RecipeError
from segcontext.gpu import availability, trust
from segcontext.gpu.record import Verdict
from segcontext.gpu.trust import Site, is_trusted
from segcontext.gpu_check import OPERATIONS, Finding, check_kernels, verdicts
from segcontext.gpu_check.cases import all_cases
from segcontext.gpu_check.examining import examine


@pytest.fixture
def interpreting(monkeypatch):
    """For the processes that are started; this one does not run kernels."""
    pytest.importorskip("triton")
    monkeypatch.setenv("TRITON_INTERPRET", "1")


def test_the_kernels_agree_in_the_interpreter(interpreting, capsys, monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cli.main(["check-gpu", "--small", "--only", "gated_by_mask", "confusion_from_logits"]) == 0
    said = capsys.readouterr().out
    assert said.count(": ok") == 14
    assert "Nothing is kept of this" in said
    assert not (tmp_path / "segcontext").exists()


def test_a_whole_check_is_kept(capsys, monkeypatch, tmp_path):
    """On a GPU that is only said to be there."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    properties = SimpleNamespace(name="NVIDIA H200", major=9, minor=0)
    for name, found in (
        *(("is_available", True), ("current_device", 0)),
        *(("get_device_name", "NVIDIA H200"), ("get_device_properties", properties)),
    ):
        monkeypatch.setattr(torch.cuda, name, lambda *_, found=found: found)
    findings = [finding("local_attention", times=(0.5, 2.0)), finding("em_attention", agreed=False, times=(1.0, 2.0))]
    monkeypatch.setattr("segcontext.gpu_check.check_kernels", lambda *_, **__: findings)
    trust.forget()
    assert cli.main(["check-gpu"]) == 1
    said = capsys.readouterr().out
    assert "taken" in said
    assert "wrong" in said
    assert [path.name[:12] for path in (tmp_path / "segcontext" / "kernels").iterdir()] == ["nvidia-h200-"]
    site = Site(torch.device("cuda", 0), torch.float32, False)
    assert [is_trusted(name, site) for name in ("local_attention", "em_attention")] == [True, False]
    trust.forget()


@pytest.mark.parametrize("words", [(), ("--device", "cpu")])
def test_without_a_gpu_it_says_what_it_needs(capsys, monkeypatch, words):
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert cli.main(["check-gpu", *words]) == 2
    assert "NVIDIA GPU of compute capability 8.0" in " ".join(capsys.readouterr().err.split())


def test_one_that_crashes_does_not_stop_the_others(interpreting):
    told = []
    findings = check_kernels("cpu", timeout=5, tell=told.append, cases=crashing_cases)
    assert findings == told
    assert [(each.what, each.agreed, each.failure) for each in findings] == [
        ("fine", True, None),
        ("aborts", False, "its process ended (SIGABRT)"),
        ("hangs", False, "no answer within 5 s"),
    ]


def test_a_process_ends_after_a_case_that_fails(interpreting):
    sent = []
    examine(SimpleNamespace(send=sent.append), failing_cases, {}, "cpu", 0, 1)
    assert sent[0] is None
    assert [(each.what, each.agreed, each.failure) for each in sent[1:]] == [
        ("fine", True, None),
        ("wrong", False, None),
        ("ill_conditioned", True, None),
        ("fails", False, "RuntimeError: out of resource: shared memory"),
    ]


def finding(operation="op", *, gradients=False, agreed=True, times=(None, None)):
    return Finding(operation, "float32", gradients, "", 0.0, agreed, *times)


def test_what_is_taken():
    findings = [
        *(finding("fast"), finding("fast", times=(1.0, 3.0)), finding("fast", times=(1.01, 1.0))),
        *(finding("slower", times=(1.0, 3.0)), finding("slower", times=(1.1, 1.0))),
        *(finding("wrong", agreed=False), finding("wrong", times=(1.0, 3.0))),
        *(finding("fast", gradients=True), finding("fast", gradients=True)),
    ]
    assert verdicts(findings) == [
        Verdict("fast", "float32", False, True),
        Verdict("slower", "float32", False, False),
        Verdict("wrong", "float32", False, False),
        Verdict("fast", "float32", True, False),
    ]


def test_every_operation_is_checked_and_timed_in_every_direction():
    cases = all_cases(small=False, interpreted=False)
    assert {case.operation for case in cases} == set(OPERATIONS)
    kinds = {(case.operation, case.dtype, case.gradients) for case in cases}
    assert {(case.operation, case.dtype, case.gradients) for case in cases if case.timed} == kinds
    assert {dtype for name, dtype, _ in kinds if name == "local_attention"} == set(availability.DTYPES)
    assert {name for name, _, gradients in kinds if gradients} == {"em_attention", "local_attention", "gated_by_mask"}
    assert not [case for case in all_cases(small=True, interpreted=True) if case.timed or case.dtype == torch.bfloat16]


def test_an_unknown_operation():
    with pytest.raises(RecipeError, match="Did you mean 'gated_by_mask'"):
        check_kernels("cpu", only=["gated_by_masks"])


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"rounds": 0}, "rounds must be at least 1, not 0"),
        ({"rounds": -1}, "not -1"),
        ({"timeout": 0}, "timeout must be seconds above 0, at most 86400, not 0"),
        ({"timeout": float("nan")}, "not nan"),
        ({"timeout": float("inf")}, "not inf"),
    ],
)
def test_impossible_rounds_and_seconds(interpreting, capsys, monkeypatch, options, said):
    monkeypatch.setattr("segcontext.gpu_check.checking._in_a_process", lambda *_: pytest.fail("a case was run"))
    with pytest.raises(RecipeError, match=said):
        check_kernels("cpu", small=True, **options)
    words = [f"--{name}={value}" for name, value in options.items()]
    assert cli.main(["check-gpu", "--small", *words]) == 2
    assert next(iter(options)) in capsys.readouterr().err


def test_where_nothing_can_run_the_process_says_why(monkeypatch):
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    sent = []
    examine(SimpleNamespace(send=sent.append), crashing_cases, {}, "cpu", 0, 1)
    assert sent == ["no CUDA device"]
