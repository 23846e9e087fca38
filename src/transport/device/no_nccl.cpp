// Where libtorch was built without NCCL: tensors on devices go through the host's memory.
#include "penstock/base/error.h"

#include "transport/device/direct.h"

namespace penstock {

bool has_nccl() { return false; }

DirectBackend nccl() {
  return {[](at::Device) { return std::string(); },
          [](const c10::intrusive_ptr<c10d::Store>&, int) -> c10::intrusive_ptr<c10d::Backend> {
            throw bad_input("a penstock that was built without NCCL", "a libtorch with USE_C10D_NCCL",
                            "build with it, or leave tensors to the host's memory");
          }};
}

}  // namespace penstock
