#include "program.h"

int main(int argc, char** argv) { penstock::app::end_program(penstock::app::run_program(argc, argv)); }
