/// \file
/// All that a program needs to train a network of its own on several devices. Link `penstock::penstock`.
///
/// | to | see |
/// |---|---|
/// | describe a network as layers | `Layer`, `Network` (nn/layer.h), `layer_of` |
/// | see whether it keeps its bits under any cut | `audit` (diagnosis/audit.h) |
/// | train it in a folder, with checkpoints and evaluation | `train` (run/trainer.h), `TrainSettings` |
/// | make each step oneself | `Pipeline` (pipeline/pipeline.h), `CheckpointWriter` (checkpoint/checkpoint.h) |
/// | measure its layers, choose cut and schedule | `measured_costs` (run/train.h), `make_plans` (plan/plan.h) |
/// | make, prove, simulate and draw schedules | schedules.h |
/// | turn text into tokens as a published model does | tokenizer/tokenizer.h |
///
/// docs/cpp.md leads from nothing to a run that is resumed on another number of stages; examples/train_from_cpp is a
/// whole program.
#pragma once

#include "penstock/base/listening.h"
#include "penstock/checkpoint/checkpoint.h"
#include "penstock/diagnosis/audit.h"
#include "penstock/nn/batch_norm.h"
#include "penstock/nn/dropout.h"
#include "penstock/nn/networks.h"
#include "penstock/pipeline/pipeline.h"
#include "penstock/run/train.h"
#include "penstock/run/trainer.h"
#include "penstock/schedules.h"
#include "penstock/tokenizer/tokenizer.h"
#include "penstock/transport/c10d.h"
