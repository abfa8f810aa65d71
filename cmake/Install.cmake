# What `cmake --install` lays out: the programs, libbasin.so with its headers, and how CMake (basin::basin) and
# pkg-config (basin.pc) find it. All of it may be moved together to another prefix.
include(CMakePackageConfigHelpers)

get_property(programs GLOBAL PROPERTY BASIN_PROGRAMS)
if(programs)
  install(TARGETS ${programs} RUNTIME DESTINATION ${CMAKE_INSTALL_BINDIR})
endif()

if(TARGET basin_client_library)
  # What a user of the library is asked for: C++17 and the public headers, nothing of what it is made of.
  set_target_properties(basin_client_library PROPERTIES OUTPUT_NAME basin EXPORT_NAME basin
    VERSION ${PROJECT_VERSION} SOVERSION ${PROJECT_VERSION_MAJOR}
    INTERFACE_COMPILE_FEATURES cxx_std_17
    INTERFACE_INCLUDE_DIRECTORIES
      "$<BUILD_INTERFACE:${PROJECT_SOURCE_DIR}/worker/client/include>;$<INSTALL_INTERFACE:${CMAKE_INSTALL_INCLUDEDIR}>")
  install(TARGETS basin_client_library EXPORT basinTargets LIBRARY DESTINATION ${CMAKE_INSTALL_LIBDIR})
  install(DIRECTORY worker/client/include/basin DESTINATION ${CMAKE_INSTALL_INCLUDEDIR} FILES_MATCHING PATTERN "*.h")

  set(package ${CMAKE_INSTALL_LIBDIR}/cmake/basin)
  install(EXPORT basinTargets NAMESPACE basin:: DESTINATION ${package})
  configure_package_config_file(cmake/basinConfig.cmake.in ${PROJECT_BINARY_DIR}/basinConfig.cmake
    INSTALL_DESTINATION ${package})
  write_basic_package_version_file(${PROJECT_BINARY_DIR}/basinConfigVersion.cmake COMPATIBILITY SameMinorVersion)
  install(FILES ${PROJECT_BINARY_DIR}/basinConfig.cmake ${PROJECT_BINARY_DIR}/basinConfigVersion.cmake
    DESTINATION ${package})

  file(RELATIVE_PATH BASIN_PC_PREFIX /prefix/${CMAKE_INSTALL_LIBDIR}/pkgconfig /prefix)
  string(REGEX REPLACE "/$" "" BASIN_PC_PREFIX "${BASIN_PC_PREFIX}")
  configure_file(cmake/basin.pc.in ${PROJECT_BINARY_DIR}/basin.pc @ONLY)
  install(FILES ${PROJECT_BINARY_DIR}/basin.pc DESTINATION ${CMAKE_INSTALL_LIBDIR}/pkgconfig)
endif()
