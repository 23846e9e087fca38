#include <cstdio>
#include <cstdlib>

#include "program.h"

void penstock::app::end_program(int code) {
#if defined(PENSTOCK_SANITIZED_ADDRESS) || defined(PENSTOCK_SANITIZED_THREAD)
  std::exit(code);  // NOLINT(concurrency-mt-unsafe): as at the end of `main`
#else
  std::fflush(nullptr);
  std::_Exit(code);
#endif
}
