#include "penstock/schedule/routes.h"

namespace penstock {

Routes::Routes(const Schedule& schedule)
    : microbatches_(static_cast<std::size_t>(schedule.microbatches)),
      ranks_(static_cast<std::size_t>(schedule.stages) * microbatches_) {
  for (std::int32_t rank = 0; rank < schedule.ranks(); ++rank)
    for (const Action& action : schedule.actions[static_cast<std::size_t>(rank)])
      if (action.kind == ActionKind::Forward)
        ranks_[action.stage.index() * microbatches_ + action.microbatch.index()] = {rank};
}

}  // namespace penstock
