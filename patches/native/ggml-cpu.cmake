# Our sources inside each CPU backend; included by i2_s-type.patch where its list of sources is complete.
list(APPEND GGML_CPU_SOURCES ${CMAKE_CURRENT_LIST_DIR}/i2_s_matmul.cpp)
