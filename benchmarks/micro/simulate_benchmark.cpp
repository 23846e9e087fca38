// Actions a second on one core: the verifier, the simulator with and without memory over time, the text form.
#include <benchmark/benchmark.h>
#include <fmt/format.h>

#include "penstock/schedule/generators.h"
#include "penstock/schedule/verify.h"
#include "penstock/sim/simulate.h"

namespace penstock {
namespace {

void play_one_f_one_b(benchmark::State& state, bool record_memory) {
  const auto ranks = static_cast<int>(state.range(0));
  const auto microbatches = static_cast<int>(state.range(1));
  const VerifiedSchedule schedule = verify(make_schedule("1f1b", ranks, microbatches));
  const Cost cost =
      uniform_cost(schedule->stages, {{1}, {1}, {1}, {4096}, {1024}, {4096}, {4096}, {8192}}, {{0.1}, 10'000});
  for ([[maybe_unused]] auto round : state)
    benchmark::DoNotOptimize(simulate(schedule, cost, {.record_memory = record_memory}));
  state.SetItemsProcessed(state.iterations() * 2LL * ranks * microbatches);
}

void simulate_times(benchmark::State& state) { play_one_f_one_b(state, false); }
void simulate_times_and_memory(benchmark::State& state) { play_one_f_one_b(state, true); }

void summarise_step(benchmark::State& state) {
  const VerifiedSchedule schedule = verify(make_schedule("1f1b", 64, 512));
  const Timeline timeline = simulate(schedule, uniform_cost(schedule->stages, {{1}, {1}, {1}, {4096}, {}, {}, {}, {}}));
  for ([[maybe_unused]] auto round : state) benchmark::DoNotOptimize(summarise(timeline));
  state.SetItemsProcessed(state.iterations() * 2LL * 64 * 512);
}

Schedule zero_bubble(const benchmark::State& state) {
  return make_schedule("zb-h1", static_cast<int>(state.range(0)), static_cast<int>(state.range(1)));
}

void count_actions(benchmark::State& state) {
  state.SetItemsProcessed(state.iterations() * 3 * state.range(0) * state.range(1));
}

void verify_schedule(benchmark::State& state) {
  const Schedule schedule = zero_bubble(state);
  for ([[maybe_unused]] auto round : state) benchmark::DoNotOptimize(verify(schedule));
  count_actions(state);
}

// What a step of a search costs: both together have to do two million actions a second.
void verify_and_simulate(benchmark::State& state) {
  const Schedule schedule = zero_bubble(state);
  const Cost cost =
      uniform_cost(schedule.stages, {{1}, {1}, {1}, {4096}, {1024}, {4096}, {4096}, {8192}}, {{0.1}, 1e4});
  for ([[maybe_unused]] auto round : state) benchmark::DoNotOptimize(simulate(verify(schedule), cost));
  count_actions(state);
}

// One rank that exchanges messages with all others: what is looked up by peer must not be looked through.
void verify_lower_and_simulate_star(benchmark::State& state) {
  const auto others = static_cast<std::int32_t>(state.range(0));
  std::string centre;
  std::string rest;
  for (std::int32_t k = 0; k <= others; ++k) centre += fmt::format("{}F0,", 2 * k);
  for (std::int32_t k = others; k > 0; --k) centre += fmt::format("{}B0,", 2 * k);
  for (std::int32_t k = 1; k <= others; ++k) rest += fmt::format("{0}F0,{0}B0\n", 2 * k - 1);
  const Schedule schedule = parse_schedule(centre + "0B0\n" + rest);
  const Cost cost = uniform_cost(schedule.stages, {{1}, {1}, {1}, {4096}, {1024}, {4096}, {4096}, {8192}});
  for ([[maybe_unused]] auto round : state) benchmark::DoNotOptimize(simulate(lower(verify(schedule)), cost));
  state.SetItemsProcessed(state.iterations() * 2 * (2LL * others + 1));
}

void write_and_read_text(benchmark::State& state) {
  const Schedule schedule = zero_bubble(state);
  for ([[maybe_unused]] auto round : state) benchmark::DoNotOptimize(parse_schedule(to_csv(schedule)));
  count_actions(state);
}

BENCHMARK(verify_schedule)->Args({8, 24})->Args({64, 512})->Args({512, 4096})->Unit(benchmark::kMillisecond);
BENCHMARK(verify_and_simulate)->Args({8, 24})->Args({64, 512})->Args({512, 4096})->Unit(benchmark::kMillisecond);
BENCHMARK(verify_lower_and_simulate_star)->Arg(1'000)->Arg(100'000)->Unit(benchmark::kMillisecond);
BENCHMARK(write_and_read_text)->Args({8, 24})->Args({64, 512})->Unit(benchmark::kMillisecond);
BENCHMARK(simulate_times)->Args({8, 24})->Args({64, 512})->Args({512, 4096})->Unit(benchmark::kMillisecond);
BENCHMARK(simulate_times_and_memory)->Args({8, 24})->Args({64, 512})->Args({512, 4096})->Unit(benchmark::kMillisecond);
BENCHMARK(summarise_step)->Unit(benchmark::kMillisecond);

}  // namespace
}  // namespace penstock

BENCHMARK_MAIN();
