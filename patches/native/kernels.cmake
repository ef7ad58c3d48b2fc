# The kernels, and the files that choose among them at run time. A kernel file is compiled for exactly one instruction
# set, whatever the rest of the library is compiled for. None of these files needs ggml, so the CPU backends
# (ggml-cpu.cmake) and the checker (tests/kernels) share this list. Needs GGML_SYSTEM_ARCH, sets EDGELLM_KERNEL_SOURCES.
set(EDGELLM_NATIVE ${CMAKE_CURRENT_LIST_DIR})
set(EDGELLM_DISPATCH_SOURCES
    ${EDGELLM_NATIVE}/attention/kernels.cpp
    ${EDGELLM_NATIVE}/few/kernels.cpp
    ${EDGELLM_NATIVE}/i2_s/kernels.cpp
    ${EDGELLM_NATIVE}/ternary/kernels.cpp
)
set(EDGELLM_KERNEL_SOURCES
    ${EDGELLM_DISPATCH_SOURCES}
    ${EDGELLM_NATIVE}/attention/scalar.cpp
    ${EDGELLM_NATIVE}/cpu.cpp
    ${EDGELLM_NATIVE}/i2_s/scalar.cpp
    ${EDGELLM_NATIVE}/ternary/activations.cpp
    ${EDGELLM_NATIVE}/ternary/experts.cpp
    ${EDGELLM_NATIVE}/ternary/scalar.cpp
)

include(CheckCXXCompilerFlag)

set(EDGELLM_COMPILED SCALAR)  # levels, as cpu.h names them

# edgellm_level(LEVEL FILES FLAG...): adds the kernels of one level, unless the compiler is too old for the last flag.
# EDGELLM_HAS_LEVEL says so to the files that choose. gcc 12's own AVX-512 headers cause the two warnings.
macro(edgellm_level level files)
    set(edgellm_flags ${ARGN})
    list(GET edgellm_flags -1 edgellm_flag)
    check_cxx_compiler_flag(${edgellm_flag} EDGELLM_HAS_${level})
    if (EDGELLM_HAS_${level})
        foreach(edgellm_file ${files})
            list(APPEND EDGELLM_KERNEL_SOURCES ${EDGELLM_NATIVE}/${edgellm_file})
            set_source_files_properties(${EDGELLM_NATIVE}/${edgellm_file}
                PROPERTIES COMPILE_OPTIONS "${edgellm_flags};-Wno-uninitialized;-Wno-maybe-uninitialized")
        endforeach()
        set_property(SOURCE ${EDGELLM_DISPATCH_SOURCES} APPEND PROPERTY COMPILE_DEFINITIONS EDGELLM_HAS_${level})
        string(APPEND EDGELLM_COMPILED "|${level}")
    endif()
endmacro()

if (GGML_SYSTEM_ARCH STREQUAL "x86")
    edgellm_level(AVX2 "attention/x86/avx2.cpp;i2_s/x86/avx2.cpp;ternary/x86/avx2.cpp" -march=haswell)
    edgellm_level(AVX_VNNI ternary/x86/avx_vnni.cpp -march=haswell -mavxvnni)
    edgellm_level(AVX512 attention/x86/avx512.cpp -march=skylake-avx512)
    edgellm_level(AVX512_VNNI
        "few/x86/blocks32_avx512_vnni.cpp;few/x86/q6_k_avx512_vnni.cpp;i2_s/x86/avx512_vnni.cpp;ternary/x86/avx512_vnni.cpp"
        -march=cascadelake)
    edgellm_level(AMX ternary/x86/amx.cpp -march=cascadelake -mamx-tile -mamx-int8)
elseif (GGML_SYSTEM_ARCH STREQUAL "ARM")
    edgellm_level(NEON_DOTPROD "attention/arm/neon.cpp;i2_s/arm/neon_dotprod.cpp;ternary/arm/neon_dotprod.cpp" -march=armv8.2-a+dotprod)
    edgellm_level(NEON_I8MM ternary/arm/neon_i8mm.cpp -march=armv8.2-a+dotprod+i8mm)
endif()
set_source_files_properties(${EDGELLM_NATIVE}/cpu.cpp
    PROPERTIES COMPILE_DEFINITIONS "EDGELLM_COMPILED=${EDGELLM_COMPILED}")
