#include "penstock/base/thread.h"

#include <fmt/format.h>

namespace penstock {

Error no_room_for_thread(const std::system_error& reason) {
  return run_failed(fmt::format("cannot start a thread: {}", reason.code().message()), "room for another thread",
                    "raise the limit (ulimit -u, pids.max of the control group), or use fewer ranks or processes here");
}

}  // namespace penstock
