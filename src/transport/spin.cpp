#include "transport/spin.h"

#include "penstock/transport/transport.h"

namespace penstock {

double spin_us_for(int ranks) { return ranks <= static_cast<int>(std::thread::hardware_concurrency()) ? 200.0 : 0.0; }

}  // namespace penstock
