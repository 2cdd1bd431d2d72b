"""Crashes: where a process of tests ends, by a fault in C or for a hang, one test fails by it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from xdist.scheduler import LoadGroupScheduling

if TYPE_CHECKING:
    from xdist.workermanage import WorkerController

__all__ = ["SurvivingScheduling"]

# A process begins its last test only when it knows that nothing comes behind it.
ENOUGH = 2


class SurvivingScheduling(LoadGroupScheduling):  # type: ignore[misc]  # it has no types
    """Scheduling by groups as xdist does it, which comes to an end where a process does not.

    xdist 3.8 gives what this process ever did to the others, who wait for good once they were
    given nothing that is still to be done; its successor waits for good with one test; and the
    test that ended the one ends the next.
    """

    def remove_node(self, node: WorkerController) -> str | None:
        """Give others what the process has not begun; return the test in which it ended."""
        left = [
            test
            for unit in self.assigned_work.pop(node).values()
            for test, is_done in unit.items()
            if not is_done
        ]
        for test in left[1:]:
            self.workqueue.setdefault(self._split_scope(test), {})[test] = False
        for other in self.assigned_work:
            self._reschedule(other)
        return left[0].removesuffix(f"@{self._split_scope(left[0])}") if left else None

    def _reschedule(self, node: WorkerController) -> None:
        if node not in self.registered_collections:
            return  # one that has just been started
        super()._reschedule(node)
        while not node.shutting_down and self._pending_of(self.assigned_work[node]) < ENOUGH:
            super()._reschedule(node)
