"""An upstream archive of a few files that builds in seconds, so that tests run the whole build for real.

Its llama.cpp is a CMake project with a library `llama` of two sources, an `edgellm_stamp`, and the real tools as
empty programs.
"""

import hashlib
import io
import tarfile
from pathlib import Path

from edgellm.engine.builds.builder import TOOLS

NAME = "tiny_llama-1.0.tar.gz"
CMAKE = """\
cmake_minimum_required(VERSION 3.14)
project(tiny C CXX)
set(CMAKE_RUNTIME_OUTPUT_DIRECTORY ${CMAKE_BINARY_DIR}/bin)
set(CMAKE_LIBRARY_OUTPUT_DIRECTORY ${CMAKE_BINARY_DIR}/bin)
add_library(llama SHARED answer.cpp slow.cpp edgellm/stamp.cpp)
target_include_directories(llama PRIVATE include)
""" + "".join(f"add_executable({name} tool.cpp)\n" for name in TOOLS)
LLAMA_H = "#pragma once\n#define LLAMA_API\n"
ANSWER = "int answer() {\n    return 41;\n}\n"
PATCH = """\
Subject: Give the right answer
Reason: temporary
Forwarded: no
Drop-When: never
Touches: answer.cpp
---
diff --git a/answer.cpp b/answer.cpp
--- a/answer.cpp
+++ b/answer.cpp
@@ -1,3 +1,3 @@
 int answer() {
-    return 41;
+    return 42;
 }
"""
STAMP = """\
#include "stamp.h"
extern "C" const char * edgellm_stamp(void) { return EDGELLM_STAMP; }
"""


def make(
    directory: Path, *, slow: str = "int slow() { return 0; }\n", patch: str = PATCH, stamp: str = STAMP
) -> tuple[Path, Path]:
    """Write a patches directory and the archive it pins, and return both. `slow` is the text of one source."""
    archive = directory / NAME
    files = {
        "llama_cpp/__init__.py": "",
        "llama_cpp/llama_cpp.py": "",
        "vendor/llama.cpp/.git": "gitdir: nowhere\n",
        "vendor/llama.cpp/CMakeLists.txt": CMAKE,
        "vendor/llama.cpp/include/llama.h": LLAMA_H,
        "vendor/llama.cpp/answer.cpp": ANSWER,
        "vendor/llama.cpp/slow.cpp": slow,
        "vendor/llama.cpp/tool.cpp": "int main() { return 0; }\n",
        "README.md": "not needed",
    }
    with tarfile.open(archive, "w:gz") as tar:
        for name, text in files.items():
            info = tarfile.TarInfo(f"tiny_llama-1.0/{name}")
            info.size = len(text.encode())
            tar.addfile(info, io.BytesIO(text.encode()))
    patches = directory / "patches"
    (patches / "native").mkdir(parents=True)
    (patches / "native" / "stamp.cpp").write_text(stamp)
    (patches / "answer.patch").write_text(patch)
    (patches / "series").write_text("# one patch\nanswer.patch\n")
    data = archive.read_bytes()
    (patches / "UPSTREAM").write_text(
        f'package = "tiny-llama"\nversion = "1.0"\narchive = "{NAME}"\nsize = {len(data)}\n'
        f'sha256 = "{hashlib.sha256(data).hexdigest()}"\nrepository = "tiny/llama"\ncommit = "0"\nggml = "0"\n'
    )
    return patches, archive
