#include "program.h"

int main(int argc, char** argv) { return penstock::app::run_program(argc, argv); }
