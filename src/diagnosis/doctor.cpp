#include "penstock/diagnosis/doctor.h"

#include <fmt/format.h>
#include <fmt/ranges.h>
#include <fstream>
#include <nlohmann/json.hpp>
#include <sched.h>
#include <thread>
#include <unistd.h>

#include <ATen/Parallel.h>

#include "penstock/base/error.h"
#include "penstock/base/listening.h"
#include "penstock/transport/c10d.h"
#include "penstock/transport/transport.h"

namespace penstock {
namespace {

// "GCC 12.2.0": what this was compiled with.
std::string compiler_name() {
#ifdef __clang__
  return __VERSION__;
#else
  return std::string("GCC ") + __VERSION__;
#endif
}

int cores_of_this_process() {
  cpu_set_t allowed;
  CPU_ZERO(&allowed);
  return sched_getaffinity(0, sizeof allowed, &allowed) == 0 ? CPU_COUNT(&allowed) : 0;
}

// A line of /proc/meminfo: "MemAvailable:   1234 kB".
Bytes memory_line(const std::string& name) {
  std::ifstream lines("/proc/meminfo");
  std::string key;
  std::int64_t kibibytes = 0;
  for (std::string unit; lines >> key >> kibibytes; std::getline(lines, unit))
    if (key == name + ":") return {kibibytes * 1024};
  return {};
}

std::string rate_name(double bytes_per_millisecond) {
  return to_string(Bytes{static_cast<std::int64_t>(bytes_per_millisecond * 1000)}) + "/s";
}

// Times of links reach down to microseconds.
std::string short_time(Milliseconds time) {
  return time.count < 1 ? fmt::format("{:.3g} µs", time.count * 1000) : to_string(time);
}

std::string backend_words(const BackendPresence& backend) {
  if (!backend.present) return backend.name + " not in this libtorch";
  return backend.name + (backend.used ? " present" : " present, not used by penstock");
}

nlohmann::ordered_json link_json(int from, int to, const MeasuredLink& link) {
  return {{"from", from},
          {"to", to},
          {"latency_ms", link.latency.count},
          {"bandwidth_bytes_per_ms", link.bytes_per_millisecond}};
}

std::string links_text(const Diagnosis& diagnosis) {
  if (diagnosis.links.empty())
    return diagnosis.why_no_links.empty() ? "" : "links      " + diagnosis.why_no_links + "\n";
  std::string text = fmt::format("\nlinks between {} ranks: one way, half of there and back\n", diagnosis.ranks);
  text += fmt::format("{:<10}{:>12}{:>16}", "ranks", "latency", "bandwidth");
  // All links have the sizes of the one that was measured furthest.
  const MeasuredLink* longest = &diagnosis.links.front();
  for (const MeasuredLink& link : diagnosis.links)
    if (link.samples.size() > longest->samples.size()) longest = &link;
  for (const LinkSample& sample : longest->samples) text += fmt::format("{:>10}", to_string(sample.bytes));
  text += "\n";
  for (const MeasuredLink& link : diagnosis.links) {
    // A micro sign is two bytes, and one column.
    const auto padded = [](const std::string& words, std::size_t width) {
      const std::size_t columns = words.size() - (words.find("µ") != std::string::npos ? 1 : 0);
      return std::string(width > columns ? width - columns : 0, ' ') + words;
    };
    text += fmt::format("{:<10}{}{:>16}", fmt::format("{} - {}", link.from, link.to),
                        padded(short_time(link.latency), 12), rate_name(link.bytes_per_millisecond));
    for (const LinkSample& sample : link.samples) text += padded(short_time(sample.median), 10);
    text += "\n";
  }
  text += "\nfor a file of costs:\n\"links\": [";
  for (const MeasuredLink& link : diagnosis.links)
    text += fmt::format("{}{},\n          {}", &link == diagnosis.links.data() ? "" : ",\n          ",
                        link_json(link.from, link.to, link).dump(), link_json(link.to, link.from, link).dump());
  return text + "]\n";
}

}  // namespace

MachineFacts machine_facts(const std::string& version) {
  MachineFacts facts;
  facts.penstock = version;
  facts.libtorch = libtorch_version();
  facts.compiler = compiler_name();
  facts.backends = c10d_backends();
  facts.devices = visible_devices();
  facts.cores = static_cast<int>(std::thread::hardware_concurrency());
  facts.usable_cores = cores_of_this_process();
  facts.threads = at::get_num_threads();
  facts.memory = memory_line("MemTotal");
  facts.available_memory = memory_line("MemAvailable");
  return facts;
}

void check_rendezvous(const Rendezvous& place) {
  ProcessSettings settings;
  settings.address = place.address;
  settings.port = place.port;
  check_process_settings(settings);
  ::close(listen_on(place.address, place.port));
}

std::vector<MeasuredLink> measure_links_of(const ProcessSettings& processes) {
  ProcessSettings settings = processes;
  settings.ranks = settings.processes;
  ProcessGroup group(settings);
  try {
    const auto ends = group.take_ends();
    return measure_links(*ends.front());
  } catch (const std::exception& error) {
    group.abort(error.what());
    throw;
  }
}

std::string to_text(const Diagnosis& diagnosis) {
  const MachineFacts& machine = diagnosis.machine;
  std::vector<std::string> backends;
  backends.reserve(machine.backends.size());
  for (const BackendPresence& backend : machine.backends) backends.push_back(backend_words(backend));
  std::string text = fmt::format(
      "penstock   {}\nlibtorch   {}\ncompiler   {}\nbackends   {}\ndevices    {}\n"
      "cores      {}, of which {} may be used; {} for an operation where nobody chooses\n"
      "memory     {}, of which {} available\n",
      machine.penstock, machine.libtorch, machine.compiler, fmt::join(backends, ", "), fmt::join(machine.devices, ", "),
      machine.cores, machine.usable_cores, counted(machine.threads, "thread"), to_string(machine.memory),
      to_string(machine.available_memory));
  if (diagnosis.place)
    text += fmt::format("meeting    port {} of {} is free\n", diagnosis.place->port, diagnosis.place->address);
  return text + links_text(diagnosis);
}

std::string to_json(const Diagnosis& diagnosis) {
  using Json = nlohmann::ordered_json;
  const MachineFacts& machine = diagnosis.machine;
  Json document = {{"penstock", machine.penstock}, {"libtorch", machine.libtorch}, {"compiler", machine.compiler}};
  for (const BackendPresence& backend : machine.backends)
    document["backends"][backend.name] = {{"present", backend.present}, {"used", backend.used}};
  document["devices"] = machine.devices;
  document["cores"] = machine.cores;
  document["usable_cores"] = machine.usable_cores;
  document["threads"] = machine.threads;
  document["memory_bytes"] = machine.memory.count;
  document["available_memory_bytes"] = machine.available_memory.count;
  if (diagnosis.place) document["free"] = {{"address", diagnosis.place->address}, {"port", diagnosis.place->port}};
  if (!diagnosis.why_no_links.empty()) document["why_no_links"] = diagnosis.why_no_links;
  document["links"] = Json::array();
  document["samples"] = Json::array();
  for (const MeasuredLink& link : diagnosis.links) {
    document["links"].push_back(link_json(link.from, link.to, link));
    document["links"].push_back(link_json(link.to, link.from, link));
    for (const LinkSample& sample : link.samples)
      document["samples"].push_back({{"from", link.from},
                                     {"to", link.to},
                                     {"bytes", sample.bytes.count},
                                     {"median_ms", sample.median.count},
                                     {"fastest_ms", sample.fastest.count}});
  }
  return document.dump(1) + "\n";
}

}  // namespace penstock
