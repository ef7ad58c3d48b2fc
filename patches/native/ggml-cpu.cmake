# Our sources inside each CPU backend; included by i2_s-type.patch where its list of sources is complete.
#
# The kernels of each instruction set are one file, compiled for exactly that set, whatever the rest is compiled for;
# which of them run is decided on the machine (ternary/dispatch.cpp).
set(EDGELLM_TERNARY ${CMAKE_CURRENT_LIST_DIR}/ternary)
list(APPEND GGML_CPU_SOURCES
    ${CMAKE_CURRENT_LIST_DIR}/i2_s_matmul.cpp
    ${EDGELLM_TERNARY}/activations.cpp
    ${EDGELLM_TERNARY}/buffer.cpp
    ${EDGELLM_TERNARY}/dispatch.cpp
    ${EDGELLM_TERNARY}/pack.cpp
    ${EDGELLM_TERNARY}/scalar.cpp
)

include(CheckCXXCompilerFlag)

# edgellm_kernels(NAME FLAG...): adds ternary/NAME.cpp, unless the compiler is too old for the last flag.
macro(edgellm_kernels name)
    string(TOUPPER "EDGELLM_HAS_${name}" edgellm_has)
    set(edgellm_flags ${ARGN})
    list(GET edgellm_flags -1 edgellm_flag)
    check_cxx_compiler_flag(${edgellm_flag} ${edgellm_has})
    if (${edgellm_has})
        list(APPEND GGML_CPU_SOURCES ${EDGELLM_TERNARY}/${name}.cpp)
        set_source_files_properties(${EDGELLM_TERNARY}/${name}.cpp PROPERTIES COMPILE_OPTIONS "${edgellm_flags}")
        set_property(SOURCE ${EDGELLM_TERNARY}/dispatch.cpp APPEND PROPERTY COMPILE_DEFINITIONS ${edgellm_has})
    endif()
endmacro()

if (GGML_SYSTEM_ARCH STREQUAL "x86")
    edgellm_kernels(avx2 -march=haswell)
    edgellm_kernels(avx_vnni -march=haswell -mavxvnni)
    edgellm_kernels(avx512_vnni -march=cascadelake)
    edgellm_kernels(amx -march=cascadelake -mamx-tile -mamx-int8)
elseif (GGML_SYSTEM_ARCH STREQUAL "ARM")
    edgellm_kernels(neon_dotprod -march=armv8.2-a+dotprod)
    edgellm_kernels(neon_i8mm -march=armv8.2-a+dotprod+i8mm)
endif()
