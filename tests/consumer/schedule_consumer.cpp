#include <iostream>

#include <penstock/schedule/generators.h>
#include <penstock/schedule/verify.h>

// Exit code 0 only when the installed package generated, proved and lowered a schedule.
int main() {
  const penstock::VerifiedSchedule schedule = penstock::verify(penstock::one_f_one_b_schedule(3, 5), {});
  const penstock::Schedule lowered = penstock::lower(schedule).get();
  std::cout << "3 ranks, 5 microbatches, proved\n";
  return lowered == schedule.get() ? 1 : 0;
}
