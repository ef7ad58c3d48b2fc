# Our sources inside each CPU backend; included by i2_s-type.patch where its list of sources is complete.
#
# The kernels of each instruction set are one file, compiled for exactly that set, whatever the rest is compiled for;
# which of them run is decided on the machine (ternary/dispatch.cpp).
set(EDGELLM_TERNARY ${CMAKE_CURRENT_LIST_DIR}/ternary)
set(EDGELLM_FEW ${CMAKE_CURRENT_LIST_DIR}/few)
list(APPEND GGML_CPU_SOURCES
    ${CMAKE_CURRENT_LIST_DIR}/barrier.c
    ${CMAKE_CURRENT_LIST_DIR}/i2_s_matmul.cpp
    ${EDGELLM_FEW}/matmul.cpp
    ${EDGELLM_TERNARY}/activations.cpp
    ${EDGELLM_TERNARY}/buffer.cpp
    ${EDGELLM_TERNARY}/dispatch.cpp
    ${EDGELLM_TERNARY}/exports.cpp
    ${EDGELLM_TERNARY}/pack.cpp
    ${EDGELLM_TERNARY}/scalar.cpp
)

include(CheckCXXCompilerFlag)

# edgellm_kernels(LEVEL FILES FLAG...): adds files for one instruction set, unless the compiler is too old for the last
# flag; EDGELLM_HAS_LEVEL tells the files that choose. The warnings are about gcc 12's own headers of AVX-512.
macro(edgellm_kernels level files)
    set(edgellm_flags ${ARGN})
    list(GET edgellm_flags -1 edgellm_flag)
    check_cxx_compiler_flag(${edgellm_flag} EDGELLM_HAS_${level})
    if (EDGELLM_HAS_${level})
        list(APPEND GGML_CPU_SOURCES ${files})
        set_source_files_properties(${files} PROPERTIES COMPILE_OPTIONS "${edgellm_flags};-Wno-uninitialized;-Wno-maybe-uninitialized")
        set_property(SOURCE ${EDGELLM_TERNARY}/dispatch.cpp ${EDGELLM_FEW}/matmul.cpp
            APPEND PROPERTY COMPILE_DEFINITIONS EDGELLM_HAS_${level})
    endif()
endmacro()

if (GGML_SYSTEM_ARCH STREQUAL "x86")
    edgellm_kernels(AVX2 ${EDGELLM_TERNARY}/avx2.cpp -march=haswell)
    edgellm_kernels(AVX_VNNI ${EDGELLM_TERNARY}/avx_vnni.cpp -march=haswell -mavxvnni)
    edgellm_kernels(AVX512_VNNI "${EDGELLM_TERNARY}/avx512_vnni.cpp;${EDGELLM_FEW}/blocks32_avx512_vnni.cpp;${EDGELLM_FEW}/q6_k_avx512_vnni.cpp" -march=cascadelake)
    edgellm_kernels(AMX ${EDGELLM_TERNARY}/amx.cpp -march=cascadelake -mamx-tile -mamx-int8)
elseif (GGML_SYSTEM_ARCH STREQUAL "ARM")
    edgellm_kernels(NEON_DOTPROD ${EDGELLM_TERNARY}/neon_dotprod.cpp -march=armv8.2-a+dotprod)
    edgellm_kernels(NEON_I8MM ${EDGELLM_TERNARY}/neon_i8mm.cpp -march=armv8.2-a+dotprod+i8mm)
endif()
