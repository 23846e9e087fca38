# penstock_room(NAME SOURCES … [ROOMS …] [LIBRARIES …] [TORCH])
#
# One room: the static library penstock_NAME (penstock::NAME) from src/NAME, with headers for programs in
# include/penstock/NAME and for other rooms in src/include/penstock/NAME. ROOMS are the
# rooms that its headers may include; script/check_arrows holds every #include against the table of the design.
# LIBRARIES are private. TORCH puts the room below the libtorch line: it links libtorch and uses the precompiled header.
function(penstock_room name)
  cmake_parse_arguments(ROOM "TORCH" "" "SOURCES;ROOMS;LIBRARIES" ${ARGN})
  set(target penstock_${name})
  add_library(${target} STATIC ${ROOM_SOURCES})
  add_library(penstock::${name} ALIAS ${target})
  set_target_properties(${target} PROPERTIES EXPORT_NAME ${name})
  target_include_directories(${target} PUBLIC $<BUILD_INTERFACE:${PROJECT_SOURCE_DIR}/include>
                                              $<BUILD_INTERFACE:${PROJECT_SOURCE_DIR}/src/include>
                                              $<INSTALL_INTERFACE:${CMAKE_INSTALL_INCLUDEDIR}>
                                       PRIVATE ${PROJECT_SOURCE_DIR}/src)
  target_link_libraries(${target} PUBLIC penstock_compiler PRIVATE ${ROOM_LIBRARIES})
  foreach(room ${ROOM_ROOMS})
    target_link_libraries(${target} PUBLIC penstock_${room})
  endforeach()
  if(ROOM_TORCH)
    target_link_libraries(${target} PUBLIC penstock::libtorch)
    penstock_precompiled(${target})
  endif()
  set_property(GLOBAL APPEND PROPERTY PENSTOCK_ROOMS ${target})
endfunction()

# Lets a target that includes libtorch share the one precompiled header. libtorch brings the headers of a newer fmt than
# Debian's and hides its symbols, so below the line fmt is header-only: nothing there may link Debian's library by chance.
function(penstock_precompiled target)
  if(NOT TARGET penstock_precompiled_header)
    file(WRITE ${PROJECT_BINARY_DIR}/penstock_precompiled_header.cpp "")
    add_library(penstock_precompiled_header OBJECT ${PROJECT_BINARY_DIR}/penstock_precompiled_header.cpp)
    target_link_libraries(penstock_precompiled_header PRIVATE penstock_compiler penstock::libtorch)
    target_compile_definitions(penstock_precompiled_header PRIVATE FMT_HEADER_ONLY)
    target_precompile_headers(penstock_precompiled_header PRIVATE <torch/torch.h>)
  endif()
  target_compile_definitions(${target} PRIVATE FMT_HEADER_ONLY)
  get_target_property(type ${target} TYPE)
  if(type STREQUAL "EXECUTABLE")
    # CMake gives programs -fPIE, and GCC takes no precompiled header that was made with -fPIC for those.
    set_target_properties(${target} PROPERTIES POSITION_INDEPENDENT_CODE OFF)
    target_compile_options(${target} PRIVATE -fPIC)
  endif()
  target_precompile_headers(${target} REUSE_FROM penstock_precompiled_header)
endfunction()
