// A file descriptor that is closed with its owner.
#pragma once

#include <utility>

namespace penstock::launching {

class Descriptor {
 public:
  Descriptor() = default;
  // Takes a descriptor that a system call returned and moves it above standard error: a child that puts its own 0, 1
  // and 2 in place must not meet it there. \throws Error (RunFailed) if the call had failed; `what` names the thing.
  Descriptor(int opened, const char* what);
  Descriptor(const Descriptor&) = delete;
  Descriptor& operator=(const Descriptor&) = delete;
  Descriptor(Descriptor&& other) noexcept : number_(std::exchange(other.number_, -1)) {}
  Descriptor& operator=(Descriptor&& other) noexcept {
    std::swap(number_, other.number_);
    return *this;
  }
  ~Descriptor() { close(); }

  [[nodiscard]] int number() const { return number_; }
  [[nodiscard]] bool open() const { return number_ >= 0; }
  void close();

 private:
  int number_ = -1;
};

// Both ends are closed by exec.
struct Pipe {
  Pipe();

  Descriptor read_end;
  Descriptor write_end;
};

}  // namespace penstock::launching
