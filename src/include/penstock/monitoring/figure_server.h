/// \file
/// A run's figures for Prometheus, which asks for them over HTTP.
///
///     penstock::FigureServer server(penstock::parse_listen_address("9464"));
///     server.show(figures);   // what GET /metrics answers from now on
#pragma once

#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "penstock/monitoring/figure.h"

namespace penstock {

/// Where a server takes connections.
struct ListenAddress {
  std::string address = "127.0.0.1";
  int port = 0;

  friend bool operator==(const ListenAddress&, const ListenAddress&) = default;
};

/// Reads "9464", "0.0.0.0:9464" or "[::1]:9464": loopback where no address is named. \throws Error (BadInput) that
/// speaks of `prometheus`.
[[nodiscard]] ListenAddress parse_listen_address(const std::string& text);

/// The figures in the text form of Prometheus, version 0.0.4: HELP, TYPE and a sample for each, with "penstock_" before
/// its name, "_total" behind one that only rises, and the rank as a label.
[[nodiscard]] std::string to_prometheus_text(const std::vector<Figure>& figures);

/// Answers GET /metrics with the last figures shown, on a thread of its own, until it ends. `show` is
/// thread-safe.
class FigureServer {
 public:
  /// \throws Error (BadInput) where the address is not this machine's or the port is taken.
  explicit FigureServer(const ListenAddress& address);
  FigureServer(const FigureServer&) = delete;
  FigureServer& operator=(const FigureServer&) = delete;
  FigureServer(FigureServer&&) = delete;
  FigureServer& operator=(FigureServer&&) = delete;
  ~FigureServer();

  /// Replaces the figures that are answered with.
  void show(const std::vector<Figure>& figures);
  /// The port that was asked for, or that the system chose for 0.
  [[nodiscard]] int port() const;

 private:
  class Daemon;
  std::unique_ptr<Daemon> daemon_;
};

}  // namespace penstock
