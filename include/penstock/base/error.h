/// \file
/// The errors that penstock throws. The library never prints, exits or aborts: it throws `Error` for everything that a
/// caller or the world can get wrong and `InvariantViolation` for what only a defect of penstock itself can cause.
///
///     try {
///       penstock::train(settings, observer);
///     } catch (const penstock::Error& error) {  // one line: what was got, what was expected, what to do
///       std::cerr << error.what() << '\n';
///       return error.kind() == penstock::ErrorKind::BadInput ? 2 : 1;
///     }
#pragma once

#include <cstdint>
#include <functional>
#include <stdexcept>
#include <string>
#include <string_view>

namespace penstock {

/// What went wrong, as a caller needs to tell it apart. The command line exits with 2 for `BadInput`, 1 for
/// `RunFailed`.
enum class ErrorKind {
  BadInput,   ///< A setting, file or argument is not usable; nothing was started or written.
  RunFailed,  ///< The input was good, the run was not: a full disk, a layer that threw, a lost peer.
};

/// The one exception type for everything outside penstock's control. Its message is one line that says what was got,
/// what was expected and what to do.
class Error : public std::runtime_error {
 public:
  Error(ErrorKind kind, const std::string& message) : std::runtime_error(message), kind_(kind) {}

  [[nodiscard]] ErrorKind kind() const noexcept { return kind_; }

 private:
  ErrorKind kind_;
};

/// A broken invariant of penstock itself: a defect to be reported, never the caller's fault.
class InvariantViolation : public std::logic_error {
 public:
  using std::logic_error::logic_error;
};

/// A setting in a message: its name between back quotes, `` `eval_every` ``, with _ for each -. The library does not
/// know what the caller's interface calls it; an interface that has other names shows its own (`with_fields_named`).
[[nodiscard]] std::string field(std::string_view name);

/// The text with another name for each setting. \param name_of gets a name without back quotes and returns what stands
/// there instead of name and quotes, or nothing to leave them.
[[nodiscard]] std::string with_fields_named(std::string_view text,
                                            const std::function<std::string(const std::string& name)>& name_of);

/// The three parts of a good message. Example:
/// `bad_input(field("stages") + " is 9", "at most 8, the number of layers", "lower `stages` or raise `layers`")`
/// reads "`stages` is 9; expected at most 8, the number of layers; lower `stages` or raise `layers`".
[[nodiscard]] Error bad_input(const std::string& got, const std::string& expected, const std::string& remedy);

/// The same three parts for a run that failed on good input.
[[nodiscard]] Error run_failed(const std::string& got, const std::string& expected, const std::string& remedy);

/// A number of things in a message: "1 rank", "3 ranks", "2 microbatches". `thing` is one of them.
[[nodiscard]] std::string counted(std::int64_t count, std::string_view thing);

/// What a message shows of a name or path that may be of any length: `most` bytes of it, or less so that no character
/// of UTF-8 is cut, and "…"; all of it where it is no longer.
[[nodiscard]] std::string shortened(std::string_view text, std::size_t most = 100);

/// Throws `InvariantViolation` with `what` where `holds` is false.
inline void check_invariant(bool holds, const char* what) {
  if (!holds) throw InvariantViolation(what);
}

}  // namespace penstock
