# penstock_run_path(TARGET)
#
# Where a program finds libtorch once it is installed: first in the lib folder of its own prefix, wherever that was moved
# to, for packages that bring libtorch along; then in the libtorch that it was built with. PENSTOCK_INSTALL_RPATH puts
# others in their place. It is a RUNPATH, which LD_LIBRARY_PATH goes before; RPATH would win over it.
function(penstock_run_path target)
  set(folders ${PENSTOCK_INSTALL_RPATH})
  if(NOT folders)
    file(RELATIVE_PATH to_libraries /prefix/${CMAKE_INSTALL_BINDIR} /prefix/${CMAKE_INSTALL_LIBDIR})
    set(folders $ORIGIN/${to_libraries} ${PENSTOCK_LIBTORCH_FOLDER}/lib)
  endif()
  set_target_properties(${target} PROPERTIES INSTALL_RPATH "${folders}")
  target_link_options(${target} PRIVATE -Wl,--enable-new-dtags)
endfunction()
