# Our sources inside libllama; included at the end of src/CMakeLists.txt by native-sources.patch.
set(edgellm_sources ${CMAKE_CURRENT_LIST_DIR}/stamp.cpp ${CMAKE_CURRENT_LIST_DIR}/bitnet_files.cpp)
target_sources(llama PRIVATE ${edgellm_sources})
set_source_files_properties(${edgellm_sources} PROPERTIES SKIP_UNITY_BUILD_INCLUSION ON)
