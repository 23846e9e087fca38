// What ends the workers' own children when the launcher is killed.
#pragma once

#include <sys/types.h>

#include "descriptor.h"

namespace penstock::launching {

// A process that sleeps until the launcher is gone and then kills every process group of an attempt. The kernel kills
// the workers themselves (PR_SET_PDEATHSIG), but not what they have started.
class Keeper {
 public:
  // \param groups how many process groups there will be at most.
  explicit Keeper(int groups);
  Keeper(const Keeper&) = delete;
  Keeper& operator=(const Keeper&) = delete;
  Keeper(Keeper&&) = delete;
  Keeper& operator=(Keeper&&) = delete;
  // Ends the keeper and leaves the groups alone.
  ~Keeper();

  // A worker writes its process id here before it becomes what it is to be, as a `pid_t`. Closed by exec.
  [[nodiscard]] int descriptor() const { return pipe_.write_end.number(); }

 private:
  Pipe pipe_;
  pid_t process_ = -1;
};

}  // namespace penstock::launching
