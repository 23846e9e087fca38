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
