"""The same schedules and plans on torch.distributed.pipelining, the runtime of PyTorch.

    stages = [PipelineStage(module, index, plan.to_schedule().stages, device) for ...]   # those of this process's rank
    runtime = ps.torch.schedule(plan, stages, loss_fn)
    runtime.step(x, target=y, losses=losses)
"""

from __future__ import annotations

import os
import tempfile
from typing import Any, Callable, List, Optional, Sequence, Union

from penstock import _core
from penstock.errors import BadInput


def schedule_value(plan: Union[_core.Plan, _core.Schedule]) -> _core.Schedule:
    """The Schedule, if PyTorch's runtime can run it: each stage on one rank, and with a backward. Raises BadInput for others."""
    value = plan.to_schedule() if isinstance(plan, _core.Plan) else plan
    if not isinstance(value, _core.Schedule):
        raise BadInput(f"a {type(plan).__name__}; expected a plan or a schedule; make one with ps.plan or ps.schedule")
    if any(len(holders) > 1 for holders in value.placement):
        raise BadInput(
            f"{value!r}, which keeps a stage on two ranks; expected one rank for each, as PyTorch's runtime has them; "
            "take another, such as dualpipev or zb-v"
        )
    if value.forward_only:
        raise BadInput(f"{value!r}, which has no backward; expected one that trains; take another")
    return value


def stages_of_rank(plan: Union[_core.Plan, _core.Schedule], rank: int) -> List[int]:
    """The stages that a rank holds, ascending."""
    return [stage for stage, holders in enumerate(schedule_value(plan).placement) if holders == [rank]]


def schedule(plan: Union[_core.Plan, _core.Schedule], stages: Sequence[Any], loss_fn: Optional[Callable] = None, **options: Any):
    """PyTorch's runtime with the actions of a plan or a schedule; it adds the sends and receives itself.

    stages: the `PipelineStage`s of this process's rank (`stages_of_rank`). options: those of PyTorch's schedules, such as
    `scale_grads`. The batch must be a multiple of the microbatches. Needs torch.distributed and PyTorch 2.11 or newer.
    """
    from torch.distributed.pipelining import schedules

    value = schedule_value(plan)
    if not stages:
        raise BadInput("no stages; expected those of this process's rank; make them with PipelineStage")
    mine = sorted(stage.stage_index for stage in stages)
    wanted = stages_of_rank(value, stages[0].group_rank)
    if mine != wanted:
        raise BadInput(f"stages {mine} on rank {stages[0].group_rank}; expected {wanted}, as the schedule has them; make these")
    runtime = schedules._PipelineScheduleRuntime(list(stages), value.microbatches, loss_fn=loss_fn, **options)
    handle, path = tempfile.mkstemp(suffix=".csv")
    try:
        os.close(handle)
        value.to_csv(path)
        runtime._load_csv(path)
    finally:
        os.unlink(path)
    return runtime
