# Our sources inside libllama; included at the end of src/CMakeLists.txt by native-sources.patch.
target_sources(llama PRIVATE ${CMAKE_CURRENT_LIST_DIR}/stamp.cpp)
set_source_files_properties(${CMAKE_CURRENT_LIST_DIR}/stamp.cpp PROPERTIES SKIP_UNITY_BUILD_INCLUSION ON)
