#include "penstock/monitoring/figure_server.h"

#include <charconv>
#include <cmath>
#include <fmt/format.h>
#include <microhttpd.h>
#include <mutex>
#include <string_view>
#include <unistd.h>
#include <utility>

#include "penstock/base/error.h"
#include "penstock/base/listening.h"

namespace penstock {
namespace {

constexpr int most_port = 65'535;

Error no_listen_address(const std::string& text) {
  return bad_input(fmt::format("`prometheus` is \"{}\"", shortened(text)),
                   "a port from 1 to 65535, or an address of this machine and a port, such as 0.0.0.0:9464",
                   "correct `prometheus`");
}

// As Prometheus reads doubles.
std::string sample_value(double value) {
  if (std::isnan(value)) return "NaN";
  if (std::isinf(value)) return value > 0 ? "+Inf" : "-Inf";
  return fmt::format("{}", value);
}

std::string sample_name(const Figure& figure) {
  return fmt::format("penstock_{}{}", figure.name, figure.only_rises ? "_total" : "");
}

}  // namespace

ListenAddress parse_listen_address(const std::string& text) {
  ListenAddress parsed;
  const std::size_t colon = text.rfind(':');
  const std::string port = colon == std::string::npos ? text : text.substr(colon + 1);
  const char* const end = port.data() + port.size();
  const auto [read, error] = std::from_chars(port.data(), end, parsed.port);
  if (error != std::errc() || read != end || parsed.port < 1 || parsed.port > most_port) throw no_listen_address(text);
  if (colon == std::string::npos) return parsed;
  std::string address = text.substr(0, colon);
  if (address.starts_with('[') && address.ends_with(']')) address = address.substr(1, address.size() - 2);
  if (address.empty()) throw no_listen_address(text);
  parsed.address = std::move(address);
  return parsed;
}

std::string to_prometheus_text(const std::vector<Figure>& figures) {
  std::string text;
  std::string before;
  for (const Figure& figure : figures) {
    const std::string name = sample_name(figure);
    // Only the first of the ranks' samples has a head.
    if (name != before)
      text += fmt::format("# HELP {} {}\n# TYPE {} {}\n", name, figure.meaning, name,
                          figure.only_rises ? "counter" : "gauge");
    text += fmt::format("{}{} {}\n", name, figure.rank ? fmt::format("{{rank=\"{}\"}}", *figure.rank) : "",
                        sample_value(figure.value));
    before = name;
  }
  return text;
}

namespace {

int listen(const ListenAddress& address) {
  try {
    return listen_on(address.address, address.port);
  } catch (const Error& error) {
    const std::string reason = error.what();
    throw bad_input(fmt::format("`prometheus` cannot listen: {}", reason.substr(0, reason.find(';'))),
                    "an address of this machine and a free port", "choose another port");
  }
}

}  // namespace

class FigureServer::Daemon {
 public:
  explicit Daemon(const ListenAddress& address) : socket_(listen(address)) {
    port_ = port_of(socket_);
    constexpr unsigned most_connections = 16;
    constexpr unsigned idle_seconds = 10;
    daemon_ = MHD_start_daemon(MHD_USE_INTERNAL_POLLING_THREAD, 0, nullptr, nullptr, &Daemon::answer_to, this,
                               MHD_OPTION_LISTEN_SOCKET, socket_, MHD_OPTION_CONNECTION_LIMIT, most_connections,
                               MHD_OPTION_CONNECTION_TIMEOUT, idle_seconds, MHD_OPTION_END);
    if (daemon_ == nullptr) {
      ::close(socket_);
      throw run_failed("cannot start the thread that answers Prometheus", "a thread and a few descriptors",
                       "raise the limits (ulimit -n, ulimit -u), or drop `prometheus`");
    }
  }
  Daemon(const Daemon&) = delete;
  Daemon& operator=(const Daemon&) = delete;
  Daemon(Daemon&&) = delete;
  Daemon& operator=(Daemon&&) = delete;
  // Closes the socket too.
  ~Daemon() { MHD_stop_daemon(daemon_); }

  void show(std::string text) {
    const std::scoped_lock lock(mutex_);
    text_ = std::move(text);
  }
  [[nodiscard]] int port() const { return port_; }

 private:
  // NOLINTNEXTLINE(readability-function-size): libmicrohttpd's own signature
  static MHD_Result answer_to(void* self, MHD_Connection* connection, const char* url, const char* method,
                              const char* /*version*/, const char* /*upload*/, std::size_t* upload_size,
                              void** /*context*/) {
    *upload_size = 0;
    return static_cast<Daemon*>(self)->answer(connection, url, method);
  }

  MHD_Result answer(MHD_Connection* connection, std::string_view url, std::string_view method) {
    if (method != "GET" && method != "HEAD") return send(connection, MHD_HTTP_METHOD_NOT_ALLOWED, "only GET\n");
    if (url != "/metrics") return send(connection, MHD_HTTP_NOT_FOUND, "the figures are at /metrics\n");
    const std::scoped_lock lock(mutex_);
    return send(connection, MHD_HTTP_OK, text_);
  }

  static MHD_Result send(MHD_Connection* connection, unsigned code, std::string text) {
    MHD_Response* response = MHD_create_response_from_buffer(text.size(), text.data(), MHD_RESPMEM_MUST_COPY);
    if (response == nullptr) return MHD_NO;
    MHD_add_response_header(response, MHD_HTTP_HEADER_CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8");
    const MHD_Result sent = MHD_queue_response(connection, code, response);
    MHD_destroy_response(response);
    return sent;
  }

  int socket_;
  int port_ = 0;
  MHD_Daemon* daemon_ = nullptr;
  std::mutex mutex_;
  std::string text_;  // guarded by `mutex_`
};

FigureServer::FigureServer(const ListenAddress& address) : daemon_(std::make_unique<Daemon>(address)) {}
FigureServer::~FigureServer() = default;

void FigureServer::show(const std::vector<Figure>& figures) { daemon_->show(to_prometheus_text(figures)); }

int FigureServer::port() const { return daemon_->port(); }

}  // namespace penstock
