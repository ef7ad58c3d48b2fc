# Our sources inside each CPU backend; included by i2_s-type.patch where its list of sources is complete.
include(${CMAKE_CURRENT_LIST_DIR}/kernels.cmake)
list(APPEND GGML_CPU_SOURCES
    ${EDGELLM_KERNEL_SOURCES}
    ${EDGELLM_NATIVE}/attention/forward.cpp
    ${EDGELLM_NATIVE}/barrier.c
    ${EDGELLM_NATIVE}/exports.cpp
    ${EDGELLM_NATIVE}/few/matmul.cpp
    ${EDGELLM_NATIVE}/i2_s/matmul.cpp
    ${EDGELLM_NATIVE}/packed/storage.cpp
    ${EDGELLM_NATIVE}/q2_0_g128/dot.c
    ${EDGELLM_NATIVE}/ternary/buffer.cpp
    ${EDGELLM_NATIVE}/ternary/pack.cpp
)
