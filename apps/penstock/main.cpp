#include <CLI/CLI.hpp>

int main(int argc, char** argv) {
  CLI::App app("penstock: pipeline-parallel training");
  CLI11_PARSE(app, argc, argv);
}
