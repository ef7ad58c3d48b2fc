# Our sources inside libggml-base; included at the end of ggml/src/CMakeLists.txt by i2_s-type.patch.
target_sources(ggml-base PRIVATE
    ${CMAKE_CURRENT_LIST_DIR}/i2_s/dequantize.c
    ${CMAKE_CURRENT_LIST_DIR}/q2_0_g128/convert.c
)
