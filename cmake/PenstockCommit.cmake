# penstock_commit(TARGET): the header penstock_commit.h, with the commit that is built, or "unknown" outside of a checkout. It
# is looked up at every build, and written only if it has changed.
set(penstock_commit_script ${CMAKE_CURRENT_LIST_DIR}/write_commit.cmake)
function(penstock_commit target)
  set(header ${CMAKE_CURRENT_BINARY_DIR}/commit/penstock_commit.h)
  # Once here too: what looks at sources without building them finds it.
  execute_process(COMMAND ${CMAKE_COMMAND} -DSOURCE=${PROJECT_SOURCE_DIR} -DHEADER=${header} -P ${penstock_commit_script})
  add_custom_target(${target}_commit BYPRODUCTS ${header}
                    COMMAND ${CMAKE_COMMAND} -DSOURCE=${PROJECT_SOURCE_DIR} -DHEADER=${header} -P ${penstock_commit_script})
  add_dependencies(${target} ${target}_commit)
  target_include_directories(${target} PRIVATE ${CMAKE_CURRENT_BINARY_DIR}/commit)
endfunction()
