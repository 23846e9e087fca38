# The libraries that penstock stands on; script/bootstrap installs all of them.
find_package(Threads REQUIRED)
find_package(fmt REQUIRED)
find_package(nlohmann_json REQUIRED)
find_package(tomlplusplus REQUIRED)
find_package(CLI11 REQUIRED)

if(PENSTOCK_TORCH)
  # The wheel that script/bootstrap puts into .venv, unless CMAKE_PREFIX_PATH names a libtorch of one's own.
  file(GLOB PENSTOCK_LIBTORCH_FALLBACK ${CMAKE_CURRENT_SOURCE_DIR}/.venv/lib/python3*/site-packages/torch)
  include(PenstockLibtorch)
endif()

# Programs are linked with tcmalloc, the libraries are not: whose program it is chooses (docs/decisions/0022).
# Sanitizers bring an allocator of their own.
if(PENSTOCK_TORCH AND PENSTOCK_TCMALLOC AND NOT PENSTOCK_SANITIZE)
  # Debian's package of the library alone has no link without a version.
  find_library(PENSTOCK_TCMALLOC_LIBRARY NAMES tcmalloc_minimal libtcmalloc_minimal.so.4)
  if(NOT PENSTOCK_TCMALLOC_LIBRARY)
    message(STATUS "tcmalloc is not installed: programs allocate with the C library, which takes 4 to 8 % more of a step")
  endif()
endif()

function(penstock_allocator target)
  if(PENSTOCK_TCMALLOC_LIBRARY AND NOT PENSTOCK_SANITIZE)
    # Nothing names it, so that a linker which drops what is not needed has to be told.
    target_link_options(${target} PRIVATE -Wl,--no-as-needed)
    target_link_libraries(${target} PRIVATE ${PENSTOCK_TCMALLOC_LIBRARY})
  endif()
endfunction()
