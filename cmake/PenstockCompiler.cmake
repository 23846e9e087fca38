# How every target is compiled: C++20, warnings, sanitizers, ccache.
set(CMAKE_CXX_STANDARD 20)
set(CMAKE_CXX_STANDARD_REQUIRED ON)
set(CMAKE_CXX_EXTENSIONS OFF)
set(CMAKE_POSITION_INDEPENDENT_CODE ON)
set(CMAKE_EXPORT_COMPILE_COMMANDS ON)
if(NOT CMAKE_BUILD_TYPE AND NOT CMAKE_CONFIGURATION_TYPES)
  set(CMAKE_BUILD_TYPE Release CACHE STRING "Build type" FORCE)
endif()

# The headers of libraries are most of a build: `release`, `asan`, `tsan` and `tidy` compile the sources of a target as a few files.
if(PENSTOCK_FEW_FILES)
  set(CMAKE_UNITY_BUILD ON)
  set(CMAKE_UNITY_BUILD_BATCH_SIZE 20)
endif()

# libtorch's headers lay some of their types out otherwise without NDEBUG, with which libtorch itself is built: every preset
# defines it, and penstock's own invariants are checked with or without.
add_library(penstock_compiler INTERFACE)
set_target_properties(penstock_compiler PROPERTIES EXPORT_NAME compiler)
target_compile_features(penstock_compiler INTERFACE cxx_std_20)

# Every directory-wide option also reaches the precompiled header, so that one header serves all rooms.
add_compile_options(-Wall -Wextra -Wpedantic -Wshadow -Wnon-virtual-dtor -Wold-style-cast -Woverloaded-virtual)
if(PENSTOCK_WERROR)
  add_compile_options(-Werror)
endif()
if(PENSTOCK_SANITIZE)
  # Undefined behaviour ends the test instead of printing a line that nobody reads. `vptr` asks for type information that
  # libtorch, built without sanitizers, keeps to itself.
  add_compile_options(-fsanitize=${PENSTOCK_SANITIZE} -fno-sanitize=vptr -fno-sanitize-recover=all -fno-omit-frame-pointer -g1)
  add_link_options(-fsanitize=${PENSTOCK_SANITIZE})
  # Compilers name their sanitizers' macros differently.
  if(PENSTOCK_SANITIZE STREQUAL "thread")
    add_compile_definitions(PENSTOCK_SANITIZED_THREAD)
  else()
    add_compile_definitions(PENSTOCK_SANITIZED_ADDRESS)
  endif()
  # GCC's own manual warns that its flow analysis sees uninitialised values in instrumented code that has none; the release
  # build, which is not instrumented, keeps the warning.
  if(CMAKE_CXX_COMPILER_ID STREQUAL "GNU")
    add_compile_options(-Wno-maybe-uninitialized)
    # libtorch's headers hold a fence, which GCC's thread sanitizer does not model and says so wherever it is inlined.
    if(PENSTOCK_SANITIZE STREQUAL "thread")
      add_compile_options(-Wno-tsan)
    endif()
  endif()
endif()

# Gives a program the sanitizers' settings and suppressions (script/sanitizers/), however it is started.
function(penstock_sanitizer_settings target)
  if(PENSTOCK_SANITIZE)
    target_sources(${target} PRIVATE ${PROJECT_SOURCE_DIR}/cmake/sanitizer_settings.cpp)
    set_source_files_properties(
      ${PROJECT_SOURCE_DIR}/cmake/sanitizer_settings.cpp TARGET_DIRECTORY ${target}
      PROPERTIES SKIP_PRECOMPILE_HEADERS ON
                 COMPILE_DEFINITIONS "PENSTOCK_SUPPRESSIONS=\"${PROJECT_SOURCE_DIR}/script/sanitizers\"")
  endif()
endfunction()

find_program(PENSTOCK_CCACHE ccache)
if(PENSTOCK_CCACHE)
  # The sloppiness lets ccache see through the precompiled header, as its manual asks for with GCC.
  set(PENSTOCK_LAUNCHER ${CMAKE_COMMAND} -E env CCACHE_BASEDIR=${PROJECT_SOURCE_DIR} CCACHE_NOHASHDIR=1
                        CCACHE_SLOPPINESS=pch_defines,time_macros,include_file_mtime,include_file_ctime
                        ${PENSTOCK_CCACHE})
  set(CMAKE_CXX_COMPILER_LAUNCHER ${PENSTOCK_LAUNCHER})
  set(CMAKE_C_COMPILER_LAUNCHER ${PENSTOCK_LAUNCHER})
  if(CMAKE_CXX_COMPILER_ID STREQUAL "GNU")
    add_compile_options($<$<COMPILE_LANGUAGE:CXX>:-fpch-preprocess>)
  endif()
endif()
