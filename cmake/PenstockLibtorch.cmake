# Defines penstock::libtorch: the headers and shared libraries of the libtorch that CMake finds, or of PENSTOCK_LIBTORCH.
#
# libtorch's own package file is only looked for, not read: that of a CUDA build refuses to load on a machine without the
# CUDA toolkit, of which penstock needs nothing. The installed package reads this file too.
if(NOT TARGET penstock::libtorch)
  find_path(PENSTOCK_LIBTORCH_FOLDER share/cmake/Torch/TorchConfig.cmake
            HINTS $ENV{PENSTOCK_LIBTORCH} ${Torch_DIR}/../../.. ${Torch_ROOT} $ENV{Torch_ROOT}
            PATHS ${PENSTOCK_LIBTORCH_FALLBACK} PATH_SUFFIXES torch
            DOC "libtorch's top folder: the one that holds include/, lib/ and share/")
  if(NOT PENSTOCK_LIBTORCH_FOLDER)
    # A prefix may also be given as libtorch's share/cmake, as `python -c "import torch; print(torch.utils.cmake_prefix_path)"` prints it.
    unset(PENSTOCK_LIBTORCH_FOLDER CACHE)
    find_path(PENSTOCK_LIBTORCH_CMAKE Torch/TorchConfig.cmake DOC "libtorch's share/cmake")
    if(PENSTOCK_LIBTORCH_CMAKE)
      get_filename_component(PENSTOCK_LIBTORCH_FOLDER ${PENSTOCK_LIBTORCH_CMAKE}/../.. ABSOLUTE)
    else()
      message(FATAL_ERROR "penstock: got no libtorch, expected a folder with share/cmake/Torch/TorchConfig.cmake; "
                          "run script/bootstrap, or name yours with -DCMAKE_PREFIX_PATH=…")
    endif()
  endif()
  file(STRINGS ${PENSTOCK_LIBTORCH_FOLDER}/include/torch/headeronly/version.h lines
       REGEX "define TORCH_VERSION_(MAJOR|MINOR|PATCH) ")
  string(REGEX MATCHALL "[0-9]+" PENSTOCK_LIBTORCH_VERSION "${lines}")
  list(JOIN PENSTOCK_LIBTORCH_VERSION . PENSTOCK_LIBTORCH_VERSION)
  if(PENSTOCK_LIBTORCH_VERSION VERSION_LESS 2.11)
    message(FATAL_ERROR "penstock: got libtorch '${PENSTOCK_LIBTORCH_VERSION}' in ${PENSTOCK_LIBTORCH_FOLDER}, expected 2.11 or newer; "
                        "run script/bootstrap, or name a newer one with -DCMAKE_PREFIX_PATH=…")
  endif()
  add_library(penstock::libtorch INTERFACE IMPORTED GLOBAL)
  set_target_properties(penstock::libtorch PROPERTIES INTERFACE_INCLUDE_DIRECTORIES
    "${PENSTOCK_LIBTORCH_FOLDER}/include;${PENSTOCK_LIBTORCH_FOLDER}/include/torch/csrc/api/include")
  # What libtorch was built with decides what its headers declare: its own package file says it.
  file(STRINGS ${PENSTOCK_LIBTORCH_FOLDER}/share/cmake/Caffe2/Caffe2Targets.cmake PENSTOCK_LIBTORCH_DEFINITIONS
       REGEX "INTERFACE_COMPILE_DEFINITIONS \"USE_")
  string(REGEX MATCHALL "USE_[A-Z0-9_]+" PENSTOCK_LIBTORCH_DEFINITIONS "${PENSTOCK_LIBTORCH_DEFINITIONS}")
  list(REMOVE_DUPLICATES PENSTOCK_LIBTORCH_DEFINITIONS)
  # libtorch's headers lay some of their types out otherwise without NDEBUG, with which libtorch itself is built: whoever includes
  # them defines it, in whichever build type.
  set_target_properties(penstock::libtorch PROPERTIES INTERFACE_COMPILE_DEFINITIONS "${PENSTOCK_LIBTORCH_DEFINITIONS};NDEBUG")
  # libtorch.so names the back ends (CPU, and CUDA where it was built) that register themselves when loaded; no code of
  # ours calls it, so the linker must be told to keep it. The symbols of CUDA's own libraries resolve at load time.
  target_link_options(penstock::libtorch INTERFACE -Wl,--allow-shlib-undefined)
  target_link_libraries(penstock::libtorch INTERFACE
    -Wl,--push-state,--no-as-needed ${PENSTOCK_LIBTORCH_FOLDER}/lib/libtorch.so -Wl,--pop-state
    ${PENSTOCK_LIBTORCH_FOLDER}/lib/libtorch_cpu.so ${PENSTOCK_LIBTORCH_FOLDER}/lib/libc10.so)
  foreach(library torch_cuda c10_cuda)
    if(EXISTS ${PENSTOCK_LIBTORCH_FOLDER}/lib/lib${library}.so)
      target_link_libraries(penstock::libtorch INTERFACE ${PENSTOCK_LIBTORCH_FOLDER}/lib/lib${library}.so)
    endif()
  endforeach()
  message(STATUS "penstock: libtorch ${PENSTOCK_LIBTORCH_VERSION} in ${PENSTOCK_LIBTORCH_FOLDER}")
endif()
