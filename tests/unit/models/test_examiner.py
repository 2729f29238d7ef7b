"""Packages are opened in processes of their own, with limits."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import onnx
import pytest
from onnx import TensorProto, helper
from tests.support import models

from tailrace.contracts.language.load import load_contract
from tailrace.errors import Unavailable
from tailrace.models.errors import PackageRefused
from tailrace.models.manifest import Part, sha256
from tailrace.models.package.examiner import ExaminationLimits, Examiner
from tailrace.models.package.open import Verified

LIMITS = ExaminationLimits(memory_bytes=512 << 20, seconds=3.0, batch_rows=1_000)


@pytest.fixture(scope="module")
def examiner() -> Iterator[Examiner]:
    examiner = Examiner(LIMITS).start()
    yield examiner
    examiner.close()


def verified(kind: str = "logistic", **parts: bytes) -> Verified:
    built = models.package(kind)
    changed = {**built.parts, **parts}
    digests = {name: Part(sha256=sha256(data), size=len(data)) for name, data in changed.items()}
    return Verified(built.manifest.model_copy(update={"parts": digests}), changed)


def burdened(nodes: list[Any], initializers: list[Any]) -> Verified:
    """The logistic package with nodes in front of its output that add the tensor `burden`, which is zero."""
    model = onnx.load_from_string(models.package().parts["model"])
    output = models.package().manifest.output
    for node in model.graph.node:
        for at, name in enumerate(node.output):
            if name == output:
                node.output[at] = "light"
    model.graph.initializer.extend(initializers)
    model.graph.node.extend(nodes)
    kind = next(o.type.tensor_type.elem_type for o in model.graph.output if o.name == output)
    model.graph.node.append(helper.make_node("Cast", ["burden"], ["burden_cast"], to=kind))
    model.graph.node.append(helper.make_node("Add", ["light", "burden_cast"], [output]))
    return verified(model=model.SerializeToString())


def slow() -> Verified:
    """Multiplies matrices in a loop, for longer than anybody waits."""
    body = helper.make_graph(
        [
            helper.make_node("MatMul", ["state", "square"], ["next"]),
            helper.make_node("Identity", ["go"], ["go_on"]),
        ],
        "body",
        [
            helper.make_tensor_value_info("at", TensorProto.INT64, []),
            helper.make_tensor_value_info("go", TensorProto.BOOL, []),
            helper.make_tensor_value_info("state", TensorProto.FLOAT, [100, 100]),
        ],
        [
            helper.make_tensor_value_info("go_on", TensorProto.BOOL, []),
            helper.make_tensor_value_info("next", TensorProto.FLOAT, [100, 100]),
        ],
    )
    zero = [0.0] * 10_000
    return burdened(
        [
            helper.make_node("Loop", ["times", "", "square"], ["looped"], body=body),
            helper.make_node("ReduceSum", ["looped"], ["burden"], keepdims=0),
        ],
        [
            helper.make_tensor("times", TensorProto.INT64, [], [10**9]),
            helper.make_tensor("square", TensorProto.FLOAT, [100, 100], zero),
        ],
    )


def large() -> Verified:
    """Asks for 8 GB where the graph has a few bytes."""
    shape = helper.make_tensor("shape", TensorProto.INT64, [1], [2_000_000_000])
    return burdened(
        [
            helper.make_node("ConstantOfShape", ["shape"], ["zeros"]),
            helper.make_node("ReduceSum", ["zeros"], ["burden"], keepdims=0),
        ],
        [shape],
    )


def refused(examiner: Examiner, package: Verified, contract: Any = None) -> PackageRefused:
    with pytest.raises(PackageRefused) as caught:
        examiner(package, contract or models.contract())
    return caught.value


def at_work(parent: int) -> int | None:
    """A child of the process that has used a tenth of a second of CPU."""
    for child in Path(f"/proc/{parent}/task/{parent}/children").read_text().split():
        user, system = Path(f"/proc/{child}/stat").read_text().rpartition(")")[2].split()[11:13]
        if int(user) + int(system) >= os.sysconf("SC_CLK_TCK") // 10:
            return int(child)
    return None


@pytest.mark.parametrize("kind", ["logistic", "forest", "boosting"])
def test_a_good_package_passes(kind: str, examiner: Examiner) -> None:
    examiner(verified(kind), models.contract())


def test_what_takes_too_long_is_ended(examiner: Examiner) -> None:
    assert refused(examiner, slow()).check == "time"
    examiner(verified(), models.contract())


def test_what_takes_too_much_memory_is_refused(examiner: Examiner) -> None:
    found = refused(examiner, large())
    assert (found.check, "512 MiB" in found.reason) == ("memory", True)
    examiner(verified(), models.contract())


def test_a_package_is_held_to_the_latency_of_the_contract(examiner: Examiner) -> None:
    text = models.CONTRACT.replace("TARGET", models.TARGETS["binary"])
    examiner(verified(), load_contract(text + "service_levels: {latency_p99: 1s}\n"))
    refusal = refused(
        examiner, verified("boosting"), load_contract(text + "service_levels: {latency_p99: 1ms}\n")
    )
    assert refusal.check == "latency"


def test_a_process_that_dies_of_a_package_takes_nothing_with_it(examiner: Examiner) -> None:
    waits = examiner.start()._process
    assert waits is not None
    with ThreadPoolExecutor(1) as other:
        verdict = other.submit(refused, examiner, slow())
        while not (child := at_work(waits.pid)):
            assert not verdict.done()
            time.sleep(0.01)
        os.kill(child, signal.SIGSEGV)
        assert (verdict.result().check, "SIGSEGV" in verdict.result().reason) == ("crash", True)
    examiner(verified(), models.contract())
    assert examiner._process is waits


def test_an_examiner_that_is_ended_from_outside_is_started_again(examiner: Examiner) -> None:
    examiner(verified(), models.contract())
    process = examiner._process
    assert process is not None
    os.kill(process.pid, signal.SIGKILL)
    with contextlib.suppress(Unavailable):  # where it was found out in the middle of things
        examiner(verified(), models.contract())
    examiner(verified(), models.contract())
    assert examiner._process is not process


def test_what_has_passed_is_known_to_others_and_what_was_refused_is_not(
    tmp_path: Path, examiner: Examiner
) -> None:
    first = Examiner(LIMITS, tmp_path / "examined")
    first._process = examiner.start()._process
    first(verified(), models.contract())
    refused(first, verified(golden=b"{}"))
    assert len(list((tmp_path / "examined").iterdir())) == 1
    second = Examiner(LIMITS, tmp_path / "examined")
    second(verified(), models.contract())
    assert second._process is None
    # Under another contract it is another question.
    assert first._passed_file(verified().manifest, models.contract()) != first._passed_file(
        verified().manifest, models.contract("regression")
    )
