# The libraries that penstock stands on; script/bootstrap installs all of them.
if(EMSCRIPTEN)
  include(PenstockHeaderLibraries)
  return()
endif()
find_package(Threads REQUIRED)
find_package(fmt REQUIRED)
find_package(nlohmann_json REQUIRED)
find_package(tomlplusplus REQUIRED)
find_package(CLI11 REQUIRED)
find_package(ICU REQUIRED COMPONENTS uc)
find_package(ZLIB REQUIRED)
# They have no package files, and stand where the compiler looks by itself.
find_library(PENSTOCK_PCRE2_LIBRARY pcre2-8 REQUIRED)
find_library(PENSTOCK_MICROHTTPD_LIBRARY microhttpd REQUIRED)

if(PENSTOCK_TORCH)
  # The wheel that script/bootstrap puts into .venv, unless CMAKE_PREFIX_PATH names a libtorch of one's own.
  file(GLOB PENSTOCK_LIBTORCH_FALLBACK ${CMAKE_CURRENT_SOURCE_DIR}/.venv/lib/python3*/site-packages/torch)
  include(PenstockLibtorch)
endif()

# Debian's package of the library alone has no link without a version.
find_library(PENSTOCK_TCMALLOC_LIBRARY NAMES tcmalloc_minimal libtcmalloc_minimal.so.4)

# Programs are linked with tcmalloc, the libraries are not: whose program it is chooses (docs/decisions/0022).
# Sanitizers bring an allocator of their own.
function(penstock_allocator target)
  if(PENSTOCK_SANITIZE OR NOT PENSTOCK_TCMALLOC)
    return()
  endif()
  if(PENSTOCK_TCMALLOC_LIBRARY)
    # Nothing names it, so that a linker which drops what is not needed has to be told.
    target_link_libraries(${target} PRIVATE -Wl,--push-state,--no-as-needed ${PENSTOCK_TCMALLOC_LIBRARY} -Wl,--pop-state)
  else()
    message(STATUS "tcmalloc is not installed: ${target} allocates with the C library, which takes 4 to 8 % more of a step")
  endif()
endfunction()
