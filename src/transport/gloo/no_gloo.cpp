// Where libtorch was built without Gloo, or Gloo's headers are missing.
#include "penstock/base/error.h"

#include "transport/gloo/backend.h"

namespace penstock {

bool has_backend() { return false; }

c10::intrusive_ptr<c10d::Backend> make_backend(const ProcessSettings&, const c10::intrusive_ptr<c10d::Store>&) {
  throw bad_input("a penstock that was built without Gloo", "a libtorch with USE_C10D_GLOO, and libgloo-dev's headers",
                  "install them and build again, or train in one process");
}

}  // namespace penstock
