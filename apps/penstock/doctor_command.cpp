#include <fmt/format.h>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "penstock/base/error.h"
#include "penstock/diagnosis/doctor.h"
#include "penstock/launch/environment.h"
#include "penstock/launch/launch.h"

#include "commands.h"
#include "processes.h"

namespace penstock::app {
namespace {

struct DoctorOptions {
  std::string address;
  int port = 0;
  int processes = 2;
  std::string listen;
  double join_timeout = 120;
  double peer_timeout = 30;
  bool no_links = false;
  bool json = false;
};

// A check behind that for whole numbers; it has no words for the help, which would show them as the parser writes them.
std::function<std::string(const std::string&)> between(int least, int most) {
  return [=](const std::string& text) {
    const int value = std::stoi(text);
    return value >= least && value <= most ? std::string()
                                           : fmt::format("{} is not one of {} to {}", text, least, most);
  };
}

std::optional<Rendezvous> place_of(const DoctorOptions& options) {
  if (options.address.empty() && options.port == 0) return std::nullopt;
  if (options.port == 0)
    throw bad_input(fmt::format("the address {} without a port", options.address), "both of them",
                    "add --master-port, or set MASTER_PORT");
  return Rendezvous{options.address.empty() ? "127.0.0.1" : options.address, options.port};
}

// Where nobody started this process as a rank, the variables may still say where ranks are going to meet.
void take_variables(DoctorOptions& options) {
  if (options.address.empty()) options.address = environment_variable("MASTER_ADDR").value_or("");
  const std::string port = environment_variable("MASTER_PORT").value_or("");
  if (options.port != 0 || port.empty()) return;
  const std::string complaint = whole_number<int>(port);
  constexpr std::size_t most_digits = 5;
  if (!complaint.empty() || port.size() > most_digits)
    throw bad_input(fmt::format("MASTER_PORT is '{}'", port), "a whole number from 1 to 65535",
                    "set it to a free port, or unset it");
  options.port = std::stoi(port);
}

int launch_doctors(const DoctorOptions& options) {
  LaunchSettings settings;
  settings.processes = options.processes;
  settings.name = "penstock";
  settings.command = {"/proc/self/exe", "doctor",
                      "--join-timeout", fmt::format("{}", options.join_timeout),
                      "--peer-timeout", fmt::format("{}", options.peer_timeout)};
  if (const auto place = place_of(options))
    settings.command.insert(settings.command.end(),
                            {"--master-addr", place->address, "--master-port", std::to_string(place->port)});
  if (options.json) settings.command.emplace_back("--json");
  LaunchHooks hooks;
  hooks.line = [](const std::string& line) { fmt::print(stderr, "{}\n", line); };
  const LaunchResult result = launch(settings, hooks);
  if (result.outcome == LaunchOutcome::Failed) fmt::print(stderr, "penstock: {}\n", result.message);
  return exit_code(result);
}

int run(DoctorOptions options) {
  const std::optional<ProcessSettings> own = own_process();
  const bool alone = !own || own->processes == 1;
  if (alone) {
    take_variables(options);
    if (const auto place = place_of(options)) check_rendezvous(*place);
  }
  Diagnosis diagnosis;
  diagnosis.machine = machine_facts(PENSTOCK_VERSION);
  diagnosis.place = place_of(options);
  if (options.no_links) diagnosis.why_no_links = "not measured: --no-links";
  if (!diagnosis.machine.backends.front().used) diagnosis.why_no_links = "not measured: this penstock has no Gloo";
  if (diagnosis.why_no_links.empty()) {
    if (alone) return launch_doctors(options);
    ProcessSettings processes = *own;
    processes.own_address = options.listen;
    processes.join_timeout = Milliseconds{options.join_timeout * 1000};
    processes.peer_timeout = Milliseconds{options.peer_timeout * 1000};
    diagnosis.ranks = processes.processes;
    diagnosis.links = measure_links_of(processes);
  }
  if (own && own->process != 0) return 0;
  fmt::print("{}", options.json ? to_json(diagnosis) : to_text(diagnosis));
  return 0;
}

}  // namespace

Command add_doctor_command(CLI::App& app) {
  auto options = std::make_shared<DoctorOptions>();
  CLI::App* command =
      app.add_subcommand("doctor", "Versions, devices, backends, a free port, and the measured links between ranks");
  constexpr int most_processes = 64;
  command->add_option("--master-addr", options->address,
                      "Check this address, where ranks are going to meet: is it this machine's?");
  command->add_option("--master-port", options->port, "Check this port there: is it free?")
      ->check(whole_number<int>, "")
      ->check(between(1, 65'535), "");
  command
      ->add_option("--processes", options->processes,
                   "How many processes to start here and measure, unless a launcher has started them")
      ->check(whole_number<int>, "")
      ->check(between(2, most_processes), "")
      ->capture_default_str();
  command->add_option("--listen", options->listen, "Address at which other processes reach this one, as in train");
  command->add_option("--join-timeout", options->join_timeout, "Seconds within which all processes must have come")
      ->check(CLI::Validator(CLI::PositiveNumber).description(""))
      ->capture_default_str();
  command->add_option("--peer-timeout", options->peer_timeout, "Seconds of silence until a process counts as lost")
      ->check(CLI::Validator(CLI::PositiveNumber).description(""))
      ->capture_default_str();
  command->add_flag("--no-links", options->no_links, "Measure nothing");
  command->add_flag("--json", options->json, "Answer as JSON, with the links as in a cost file");
  return [options] { return run(*options); };
}

}  // namespace penstock::app
