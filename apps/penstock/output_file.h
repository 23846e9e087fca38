// Where a command writes what it makes: the file's name says the format.
#pragma once

#include <string>
#include <vector>

namespace penstock::app {

struct OutputFormat {
  std::string name;    // as --format takes it
  std::string suffix;  // with its dot
};

// Refuses a file that cannot be written, before the work. Empty stands for the terminal.
// \param option that named it, as messages say it: "--output".
void check_output(const std::string& file, const std::string& option = "--output");

// The same, and the format that the file is to have: the one that was asked for, or else that of its suffix, or of
// neither the first of `formats`. Throws Error (BadInput) where the suffix says another one, or, with nothing asked
// for, none of `formats`.
[[nodiscard]] std::string format_of_output(const std::string& file, const std::string& asked,
                                           const std::vector<OutputFormat>& formats,
                                           const std::string& option = "--output");

// The same for a command that writes one format only.
void check_output_is(const OutputFormat& format, const std::string& file, const std::string& option = "--output");

}  // namespace penstock::app
