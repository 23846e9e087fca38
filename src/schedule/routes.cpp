#include "penstock/schedule/routes.h"

#include "penstock/base/index.h"

namespace penstock {

Routes::Routes(const Schedule& schedule)
    : microbatches_(as_size(schedule.microbatches)), ranks_(as_size(schedule.stages) * microbatches_) {
  for (std::int32_t rank = 0; rank < schedule.ranks(); ++rank)
    for (const Action& action : entry(schedule.actions, rank))
      if (action.kind == ActionKind::Forward)
        ranks_[action.stage.index() * microbatches_ + action.microbatch.index()] = {rank};
}

}  // namespace penstock
