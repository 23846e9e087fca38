#include "penstock/optim/loss_scale.h"

namespace penstock {

void LossScale::saw(bool finite) {
  if (!finite) {
    scale /= 2;
    clean_steps = 0;
  } else if (++clean_steps == growth_interval) {
    scale *= 2;
    clean_steps = 0;
  }
}

}  // namespace penstock
