"""Pipeline-parallel training: schedules, plans, and an engine for any list of torch modules.

    import penstock as ps

    ps.schedule("zb-v", ranks=4, microbatches=8)            # draws itself in a notebook
    plan = ps.plan(ps.LayerCosts.load("cost.json"), ranks=4, batch=64, memory="12GiB")
    pipe = ps.Pipeline(layers, loss, plan=plan, optimizer=ps.AdamW(lr=3e-4))
    result = pipe.step(x, y)                                # .loss, .losses, .outputs, .timeline

Schedules, costs, timelines and plans need no torch. `Pipeline` and what else stands on the engine imports it when it is first
named, and needs the version of torch that penstock was built against.
"""

from penstock._core import (
    Comparison,
    Cost,
    LayerCosts,
    Plan,
    Schedule,
    Synthesis,
    Timeline,
    compare,
    loop_placement,
    plan,
    schedule,
    schedules,
    synthesise,
    wave_placement,
)
from penstock._built_with import VERSION as __version__
from penstock.errors import BadInput, Error, RunFailed
from penstock.optimizers import SGD, AdamW

# Of the engine, by the module that defines them: torch is imported when one of them is asked for.
_OF_THE_ENGINE = {
    "Evaluation": "penstock.engine",
    "Pipeline": "penstock.engine",
    "StepResult": "penstock.engine",
    "whole": "penstock.engine",
    "audit": "penstock.examine",
    "profile": "penstock.examine",
    "engine": None,
    "hf": None,
    "torch": None,
}

__all__ = [
    "AdamW", "BadInput", "Comparison", "Cost", "Error", "LayerCosts", "Plan", "RunFailed", "SGD", "Schedule", "Synthesis", "Timeline",
    "compare", "loop_placement", "plan", "schedule", "schedules", "synthesise", "wave_placement", "__version__", *_OF_THE_ENGINE,
]


def __getattr__(name):
    import importlib

    if name not in _OF_THE_ENGINE:
        raise AttributeError(f"module 'penstock' has no attribute {name!r}")
    module = _OF_THE_ENGINE[name]
    if module is None:
        return importlib.import_module(f"penstock.{name}")
    return getattr(importlib.import_module(module), name)


def __dir__():
    return sorted(__all__)
