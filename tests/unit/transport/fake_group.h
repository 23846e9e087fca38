// Two ends of a process group of c10d in one process: what one sends the other receives.
#pragma once

#include <algorithm>
#include <array>
#include <condition_variable>
#include <cstring>
#include <deque>
#include <memory>
#include <mutex>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include <ATen/ATen.h>
#include <torch/csrc/distributed/c10d/Backend.hpp>

namespace penstock {

// What both ends share.
class FakeLine {
 public:
  struct Transfer {
    at::Tensor tensor;
    bool done = false;
    bool aborted = false;
  };
  using Transfers = std::deque<std::shared_ptr<Transfer>>;

  // As when one end's process has gone: waits and new sends throw.
  void close() {
    const std::scoped_lock lock(mutex_);
    closed_ = true;
    changed_.notify_all();
  }

  std::shared_ptr<Transfer> send(int from, at::Tensor tensor) { return put(sends_.at(from), std::move(tensor)); }
  std::shared_ptr<Transfer> receive(int to, at::Tensor tensor) { return put(receives_.at(1 - to), std::move(tensor)); }
  // Whether it is done, not aborted.
  bool wait(Transfer& transfer) {
    std::unique_lock lock(mutex_);
    changed_.wait(lock, [&] { return transfer.done || transfer.aborted || closed_; });
    if (transfer.done) return true;
    if (!transfer.aborted) throw std::runtime_error("connection closed by peer");
    return false;
  }
  // As when the last reference to its work has gone. Its memory is used until then, aborted or not: a sanitizer sees if
  // it has been freed.
  void forget(const std::shared_ptr<Transfer>& transfer) {
    const std::scoped_lock lock(mutex_);
    std::size_t pending = 0;
    for (auto* ends : {&sends_, &receives_})
      for (Transfers& transfers : *ends) pending += std::erase(transfers, transfer);
    if (pending != 0) std::memset(transfer->tensor.mutable_data_ptr(), 0, transfer->tensor.nbytes());
  }
  void abort(Transfer& transfer) {
    const std::scoped_lock lock(mutex_);
    transfer.aborted = true;
    changed_.notify_all();
  }

 private:
  std::shared_ptr<Transfer> put(Transfers& transfers, at::Tensor tensor) {
    const std::scoped_lock lock(mutex_);
    if (closed_) throw std::runtime_error("connection closed by peer");
    auto transfer = std::make_shared<Transfer>();
    transfer->tensor = std::move(tensor);
    transfers.push_back(transfer);
    flow();
    return transfer;
  }
  void flow() {
    for (std::size_t from = 0; from < sends_.size(); ++from) {
      Transfers& sends = sends_.at(from);
      Transfers& receives = receives_.at(from);
      for (; !sends.empty() && !receives.empty(); sends.pop_front(), receives.pop_front()) {
        const at::Tensor& sent = sends.front()->tensor;
        std::memcpy(receives.front()->tensor.mutable_data_ptr(), sent.const_data_ptr(), sent.nbytes());
        sends.front()->done = receives.front()->done = true;
      }
    }
    changed_.notify_all();
  }

  std::mutex mutex_;
  std::condition_variable changed_;
  std::array<Transfers, 2> sends_;     // by sender
  std::array<Transfers, 2> receives_;  // by the sender whose they are
  bool closed_ = false;
};

class FakeWork final : public c10d::Work {
 public:
  FakeWork(FakeLine& line, std::shared_ptr<FakeLine::Transfer> transfer)
      : line_(line), transfer_(std::move(transfer)) {}
  FakeWork(const FakeWork&) = delete;
  FakeWork& operator=(const FakeWork&) = delete;
  FakeWork(FakeWork&&) = delete;
  FakeWork& operator=(FakeWork&&) = delete;
  ~FakeWork() override { line_.forget(transfer_); }
  bool wait(std::chrono::milliseconds /*timeout*/) override { return line_.wait(*transfer_); }
  void abort() override { line_.abort(*transfer_); }

 private:
  FakeLine& line_;
  std::shared_ptr<FakeLine::Transfer> transfer_;
};

class FakeGroup final : public c10d::Backend {
 public:
  FakeGroup(FakeLine& line, int process) : Backend(process, 2), line_(line) {}
  [[nodiscard]] const std::string getBackendName() const override { return "fake"; }  // NOLINT: as the class above
  c10::intrusive_ptr<c10d::Work> send(std::vector<at::Tensor>& tensors, int /*to*/, int /*tag*/) override {
    return c10::make_intrusive<FakeWork>(line_, line_.send(getRank(), tensors.front()));
  }
  c10::intrusive_ptr<c10d::Work> recv(std::vector<at::Tensor>& tensors, int /*from*/, int /*tag*/) override {
    return c10::make_intrusive<FakeWork>(line_, line_.receive(getRank(), tensors.front()));
  }

 private:
  FakeLine& line_;
};

}  // namespace penstock
