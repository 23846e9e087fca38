// The standard output, whose reader may go before the end (`penstock … | head`).
#pragma once

#include <string_view>

namespace penstock::app {

// Whether the standard output is a pipe or socket that nobody reads any more.
[[nodiscard]] bool reader_has_gone();

// Writes now. Where the reader has gone, this and all that follows is written to nowhere. Another failure is left for
// the end of the program, which asks the stream.
void print_on(std::string_view text);

}  // namespace penstock::app
