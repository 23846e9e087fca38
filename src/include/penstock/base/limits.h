/// \file
/// The limits that the system sets to a process. They are checked before a run begins, so that a missing resource is
/// named at once and does not end the run later.
#pragma once

#include <string>

namespace penstock {

/// Makes sure that this process can open so many more descriptors, and raises its soft limit where the hard one lets
/// it.
/// \param what needs them, for the message: "8 processes".
/// \throws Error (RunFailed) that names the limit and the number that is needed.
void need_descriptors(int more, const std::string& what);

/// Makes sure that the stack of a thread, which the system gave a size when this process began, holds 1 MiB: libtorch
/// overflows one of 64 KiB.
/// \param what needs it, for the message: "8 stages".
/// \throws Error (RunFailed) that names the limit and the size that is needed.
void need_stack(const std::string& what);

/// Makes sure that this process can start so many more threads at this moment: starts them, and ends them again.
/// \throws Error (RunFailed) that names the limits and the number that is needed.
void need_threads(int more, const std::string& what);

}  // namespace penstock
