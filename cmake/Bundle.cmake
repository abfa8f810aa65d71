# The target `bundle`: one archive that runs on any Linux with a glibc that is new enough, and needs no package there.
# bundle.sh makes it from a list of what goes where. BASIN_BUNDLE_TESTS adds the test programs, the benchmarks, and the
# sources of the tests and examples; `ctest` is not needed to run those:
#   cd basin-*; BASIN_BINARY_DIR=$PWD BASIN_SOURCE_DIR=$PWD/source tests/wire_test
# GPU: of the programs those alone that bench/gpu.sh runs, so that the archive has half of the size.
set(BASIN_BUNDLE_TESTS OFF CACHE STRING "Put the tests and benchmarks into the bundle: ON; GPU: what bench/gpu.sh runs alone")

# All programs below the folder that a plain build makes, tests included.
function(basin_programs_below folder result)
  get_property(targets DIRECTORY ${folder} PROPERTY BUILDSYSTEM_TARGETS)
  get_property(children DIRECTORY ${folder} PROPERTY SUBDIRECTORIES)
  set(found)
  foreach(target ${targets})
    get_target_property(type ${target} TYPE)
    get_target_property(excluded ${target} EXCLUDE_FROM_ALL)
    if(type STREQUAL EXECUTABLE AND NOT excluded)
      list(APPEND found ${target})
    endif()
  endforeach()
  foreach(child ${children})
    basin_programs_below(${child} more)
    list(APPEND found ${more})
  endforeach()
  set(${result} ${found} PARENT_SCOPE)
endfunction()

set(bundle_name basin-${PROJECT_VERSION}-linux-${CMAKE_SYSTEM_PROCESSOR})
set(bundle_archive ${PROJECT_BINARY_DIR}/${bundle_name}.tar.zst)
get_property(programs GLOBAL PROPERTY BASIN_PROGRAMS)

# Lines "folder in the bundle: what is copied there", and the files that the archive is made anew for.
set(content ".: ${PROJECT_SOURCE_DIR}/LICENSE\n")
set(inputs ${PROJECT_SOURCE_DIR}/LICENSE ${PROJECT_SOURCE_DIR}/cmake/bundle.sh)
foreach(program ${programs})
  string(APPEND content "bin: $<TARGET_FILE:${program}>\n")
endforeach()
foreach(kind FILE SONAME_FILE LINKER_FILE)
  string(APPEND content "lib: $<TARGET_${kind}:basin_client_library>\n")
endforeach()
# The Python package: what pip needs to install it from python/, and the package itself.
file(GLOB python_files CONFIGURE_DEPENDS ${PROJECT_SOURCE_DIR}/python/pyproject.toml ${PROJECT_SOURCE_DIR}/python/README.md)
# By their endings: Python's own caches come and go, and each would make CMake run again.
file(GLOB_RECURSE package_files CONFIGURE_DEPENDS ${PROJECT_SOURCE_DIR}/python/basin/*.py ${PROJECT_SOURCE_DIR}/python/basin/*.pyi
  ${PROJECT_SOURCE_DIR}/python/basin/py.typed)
list(APPEND inputs ${python_files} ${package_files})
foreach(file ${python_files})
  string(APPEND content "python: ${file}\n")
endforeach()
if(package_files)
  string(APPEND content "python: ${PROJECT_SOURCE_DIR}/python/basin\n")
endif()

set(made ${programs} basin_client_library)
if(BASIN_BUNDLE_TESTS)
  basin_programs_below(${PROJECT_SOURCE_DIR} all_programs)
  list(REMOVE_ITEM all_programs ${programs})
  file(READ ${PROJECT_SOURCE_DIR}/bench/gpu.py of_gpu)
  foreach(program ${all_programs})
    get_target_property(folder ${program} RUNTIME_OUTPUT_DIRECTORY)
    # What is in bin is started by tests of whole clusters, and gpu_* by those that gpu.py names.
    if(BASIN_BUNDLE_TESTS STREQUAL GPU AND NOT of_gpu MATCHES "['/]${program}'" AND NOT program MATCHES "^gpu_" AND NOT folder MATCHES "/bin$")
      list(REMOVE_ITEM all_programs ${program})
      continue()
    endif()
    # bin, tests, bench or examples: all as deep as bin, so the same RUNPATH serves them.
    file(RELATIVE_PATH folder ${PROJECT_BINARY_DIR} ${folder})
    string(APPEND content "${folder}: $<TARGET_FILE:${program}>\n")
  endforeach()
  foreach(folder bench docs examples tests)
    string(APPEND content "source: ${PROJECT_SOURCE_DIR}/${folder}\n")
    # All that is copied, whatever its kind.
    file(GLOB_RECURSE sources CONFIGURE_DEPENDS ${PROJECT_SOURCE_DIR}/${folder}/*)
    list(FILTER sources EXCLUDE REGEX "/__pycache__/")
    list(APPEND inputs ${sources})
  endforeach()
  list(APPEND made ${all_programs})
endif()

set(bundle_content ${PROJECT_BINARY_DIR}/bundle/content.txt)
file(GENERATE OUTPUT ${bundle_content} CONTENT "${content}")
add_custom_command(OUTPUT ${bundle_archive}
  COMMAND ${PROJECT_SOURCE_DIR}/cmake/bundle.sh ${bundle_content} ${PROJECT_VERSION} ${PROJECT_BINARY_DIR}/bundle/${bundle_name}
    ${bundle_archive}
  DEPENDS ${made} ${inputs} ${bundle_content}
  COMMENT "Bundling ${bundle_name}.tar.zst" VERBATIM)
add_custom_target(bundle DEPENDS ${bundle_archive})
