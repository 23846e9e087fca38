// The penstock program for tests that start it hundreds of times: libtorch, whose loading takes longer than most of
// what is asked of the program, is loaded once, and each start is a fork.
//
// As `penstock_forks --serve SOCKET` it takes requests from a socket of whole messages. A request is the working
// folder, the number of arguments, the arguments and the environment, each ended by a zero byte, with four descriptors:
// standard input, output and error, and a pipe that gets the process's id at once and its status (as `waitpid` has it)
// when it has ended, each 4 bytes. With other arguments, as when the launcher starts a worker, it is the program
// itself.
#include <array>
#include <cerrno>
#include <csignal>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <map>
#include <poll.h>
#include <string>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>
#include <utility>
#include <vector>

#include "program.h"

namespace {

constexpr std::size_t request_descriptors = 4;

struct Request {
  std::string folder;
  std::vector<std::string> arguments;
  std::vector<std::string> environment;
  std::array<int, request_descriptors> descriptors{};
};

// False where the other side is gone.
bool receive(int socket, Request& request) {
  std::vector<char> bytes(1 << 20);
  alignas(cmsghdr) std::array<char, CMSG_SPACE(sizeof(int) * request_descriptors)> control{};
  iovec place{bytes.data(), bytes.size()};
  msghdr message{};
  message.msg_iov = &place;
  message.msg_iovlen = 1;
  message.msg_control = control.data();
  message.msg_controllen = control.size();
  const ssize_t size = ::recvmsg(socket, &message, MSG_CMSG_CLOEXEC);
  const cmsghdr* header = size > 0 ? CMSG_FIRSTHDR(&message) : nullptr;
  if (header == nullptr || header->cmsg_len != CMSG_LEN(sizeof(int) * request_descriptors)) return false;
  std::memcpy(request.descriptors.data(), CMSG_DATA(header), sizeof(int) * request_descriptors);
  std::vector<std::string> parts;
  for (const char* at = bytes.data(); at < bytes.data() + size; at += parts.back().size() + 1) parts.emplace_back(at);
  request.folder = parts.at(0);
  const auto end = parts.begin() + 2 + std::stol(parts.at(1));
  request.arguments.assign(parts.begin() + 2, end);
  request.environment.assign(end, parts.end());
  return true;
}

std::vector<char*> as_list(std::vector<std::string>& texts) {
  std::vector<char*> list;
  list.reserve(texts.size() + 1);
  for (std::string& text : texts) list.push_back(text.data());
  list.push_back(nullptr);
  return list;
}

[[noreturn]] void be_the_program(Request request) {
  for (int standard = 0; standard < 3; ++standard)
    ::dup2(request.descriptors.at(static_cast<std::size_t>(standard)), standard);
  for (const int descriptor : request.descriptors) ::close(descriptor);
  if (::chdir(request.folder.c_str()) != 0) std::_Exit(127);
  static std::vector<char*> environment = as_list(request.environment);
  ::environ = environment.data();
  std::vector<char*> arguments = as_list(request.arguments);
  penstock::app::end_program(penstock::app::run_program(static_cast<int>(request.arguments.size()), arguments.data()));
}

// Whether the other side is there to be told.
bool tell(int pipe, std::int32_t number) { return ::write(pipe, &number, sizeof number) == sizeof number; }

void serve(int socket) {
  // Only so that a wait for a request ends when a process has ended.
  struct sigaction action{};
  action.sa_handler = [](int) {};
  ::sigaction(SIGCHLD, &action, nullptr);
  sigset_t blocked;
  sigset_t before;
  ::sigemptyset(&blocked);
  ::sigaddset(&blocked, SIGCHLD);
  ::pthread_sigmask(SIG_BLOCK, &blocked, &before);
  std::map<pid_t, int> pipes;
  for (;;) {
    pollfd ready{socket, POLLIN, 0};
    const int found = ::ppoll(&ready, 1, nullptr, &before);
    int status = 0;
    for (pid_t ended = ::waitpid(-1, &status, WNOHANG); ended > 0; ended = ::waitpid(-1, &status, WNOHANG)) {
      static_cast<void>(tell(pipes.at(ended), status));
      ::close(pipes.at(ended));
      pipes.erase(ended);
    }
    if (found <= 0) continue;
    Request request;
    if (!receive(socket, request)) return;
    const pid_t process = ::fork();
    if (process == 0) {
      std::signal(SIGCHLD, SIG_DFL);
      ::pthread_sigmask(SIG_SETMASK, &before, nullptr);
      ::close(socket);
      for (const auto& [other, pipe] : pipes) ::close(pipe);
      be_the_program(std::move(request));
    }
    for (std::size_t standard = 0; standard < 3; ++standard) ::close(request.descriptors.at(standard));
    static_cast<void>(tell(request.descriptors.back(), process));
    if (process > 0) pipes[process] = request.descriptors.back();
  }
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 3 || std::strcmp(argv[1], "--serve") != 0)
    penstock::app::end_program(penstock::app::run_program(argc, argv));
  serve(std::stoi(argv[2]));
  return 0;
}
