# Run by CPack on what it is about to pack: the program looks for libraries beside itself and for libtorch where penstock-libtorch
# has put it; a tarball, which nothing resolves the dependencies of, brings along what a clean Debian lacks.
find_program(patchelf patchelf REQUIRED)
file(GLOB_RECURSE programs ${CPACK_TEMPORARY_INSTALL_DIRECTORY}/*)
list(FILTER programs INCLUDE REGEX "/bin/penstock$")
foreach(program IN LISTS programs)
  execute_process(COMMAND ${patchelf} --set-rpath [[$ORIGIN/../lib:$ORIGIN/../lib/penstock/torch/lib]] ${program} COMMAND_ERROR_IS_FATAL ANY)
  if(NOT CPACK_GENERATOR STREQUAL "TGZ")
    continue()
  endif()
  get_filename_component(prefix ${program} DIRECTORY)
  get_filename_component(prefix ${prefix} DIRECTORY)
  # The C and C++ libraries are of every Debian; libtorch is not ours to bring.
  file(GET_RUNTIME_DEPENDENCIES
       EXECUTABLES ${program}
       RESOLVED_DEPENDENCIES_VAR libraries
       UNRESOLVED_DEPENDENCIES_VAR unresolved
       DIRECTORIES ${CPACK_PENSTOCK_LIBTORCH}
       PRE_EXCLUDE_REGEXES "^ld-linux" "^lib(c|m|dl|rt|pthread|resolv|gcc_s|stdc\\+\\+)\\.so" "^lib(torch|c10|shm|gomp|caffe2|cudart|nccl)"
       POST_EXCLUDE_REGEXES "/torch/lib/")
  foreach(library IN LISTS libraries)
    get_filename_component(name ${library} NAME)
    file(INSTALL ${library} DESTINATION ${prefix}/lib TYPE SHARED_LIBRARY FOLLOW_SYMLINK_CHAIN)
    get_filename_component(real ${library} REALPATH)
    get_filename_component(real_name ${real} NAME)
    execute_process(COMMAND ${patchelf} --set-rpath [[$ORIGIN]] ${prefix}/lib/${real_name} COMMAND_ERROR_IS_FATAL ANY)
  endforeach()
endforeach()
