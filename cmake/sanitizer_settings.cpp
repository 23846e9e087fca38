// The sanitizers ask each program for these before main. They live in the program rather than in the environment, so
// that a test started by hand or by another test runs as it does under script/test.

#if defined(PENSTOCK_SANITIZED_ADDRESS) || defined(PENSTOCK_SANITIZED_THREAD)
#define PENSTOCK_ASKED_BY_SANITIZER \
  extern "C" __attribute__((visibility("default"), used, no_sanitize("address", "thread", "undefined")))

#if defined(PENSTOCK_SANITIZED_ADDRESS)
PENSTOCK_ASKED_BY_SANITIZER const char* __asan_default_options();
PENSTOCK_ASKED_BY_SANITIZER const char* __lsan_default_options();
PENSTOCK_ASKED_BY_SANITIZER const char* __ubsan_default_options();

// What was freed is kept from reuse up to 32 MiB, not 256: filling fresh pages took a tenth of the tests' time.
const char* __asan_default_options() {
  return "strict_string_checks=1:check_initialization_order=1:detect_stack_use_after_return=1:quarantine_size_mb=32";
}
const char* __lsan_default_options() { return "print_suppressions=0:suppressions=" PENSTOCK_SUPPRESSIONS "/lsan.supp"; }
const char* __ubsan_default_options() { return "print_stacktrace=1"; }
#endif

#if defined(PENSTOCK_SANITIZED_THREAD)
PENSTOCK_ASKED_BY_SANITIZER const char* __tsan_default_options();

const char* __tsan_default_options() {
  // libtorch is not instrumented: what its own calls of the C library do between its own threads is not ours to judge.
  return "ignore_noninstrumented_modules=1:second_deadlock_stack=1:halt_on_error=0:exitcode=66:"
         "suppressions=" PENSTOCK_SUPPRESSIONS "/tsan.supp";
}
#endif
#endif
