"""A loop that is turned by hand, over a fake backend whose answers tell whether memory held exactly what it should."""

from typing import Any

import pytest

from server.engine.frames import Report, Said, Step, Submit
from server.engine.loop.loop import EngineLoop
from server.engine.request import GenerationRequest
from server.engine.scheduler.sequence import Chunk
from server.engine.scheduler.slots import Layout
from tests.server.engine.fake_backend import FakeBackend, answer_to


class Driver:
    """Turns a loop by hand and keeps what it reports."""

    def __init__(self, backend: FakeBackend) -> None:
        self.backend = backend
        self.reports: list[Report] = []
        self.warnings: list[str] = []
        self.loop = EngineLoop(backend, self._take, target_s=0.1, warn=self.warnings.append)
        self._check_plans()
        self.n_submitted = 0
        self.requests: dict[int, GenerationRequest] = {}

    def _check_plans(self) -> None:
        """Whatever goes on as the step before did is what would be planned anew, where nothing is guessed."""
        scheduler = self.loop.scheduler
        plan = scheduler.plan

        def checked() -> list[Chunk]:
            chunks = plan()
            if not scheduler.guesser:
                assert [_as_planned(each) for each in chunks] == [_as_planned(each) for each in scheduler._fill({})]
            return chunks

        scheduler.plan = checked  # type: ignore[method-assign]

    def _take(self, step: Step) -> None:
        self.reports += step.reports

    def submit(self, prompt: tuple[int, ...], **fields: Any) -> int:
        id = self.n_submitted
        self.n_submitted += 1
        self.requests[id] = GenerationRequest(prompt=prompt, **fields)
        self.loop.put(Submit(id, self.requests[id]))
        return id

    def finish(self) -> None:
        for _ in range(100_000):
            self.loop.turn()
            scheduler = self.loop.scheduler
            if not scheduler.active and not scheduler.waiting:
                return
        pytest.fail("it does not come to an end")

    def of(self, kind: type[Any], id: int) -> list[Any]:
        return [report for report in self.reports if isinstance(report, kind) and report.id == id]

    def answer(self, id: int, index: int = 0) -> list[int]:
        return [said.token for said in self.of(Said, id) if said.answer == index]

    def expected(self, id: int) -> list[int]:
        request = self.requests[id]
        room = self.backend.layout.n_ctx_seq + 1 - len(request.prompt)
        return answer_to(
            request.prompt, room if request.max_tokens is None else min(request.max_tokens, room),
            request.adapters or (),
        )  # fmt: skip

    def check_clean(self) -> None:
        """Nothing is left of what was under way, and the cells are counted as memory has them."""
        scheduler = self.loop.scheduler
        assert not self.warnings, "\n".join(self.warnings)
        assert self.backend.n_choosers == 0
        assert scheduler.slots.cells.n_busy == 0
        assert scheduler.slots.cells.n_used == self.backend.n_used
        for slot, held in zip(scheduler.slots.all, self.backend._memory, strict=True):
            assert list(slot.tokens) == [token for _, token in held]


def _as_planned(chunk: Chunk) -> tuple[object, ...]:
    return (
        chunk.sequence,
        chunk.slot,
        chunk.start,
        chunk.end,
        list(chunk.tokens),
        chunk.n_rows,
        chunk.row,
        chunk.all_rows,
    )


def layout(**fields: Any) -> Layout:
    values: dict[str, Any] = {"n_slots": 3, "n_ctx_seq": 40, "n_cells": 40, "n_batch": 8, "n_outputs": 3, **fields}
    return Layout(**values)
