// Tells which patch stack a loaded library was built from, so that edgellm never runs on another one unnoticed.
// stamp.h is written when the patches are applied (edgellm/engine/builds/patches.py).

#include "llama.h"
#include "stamp.h"

extern "C" LLAMA_API const char * edgellm_stamp(void);

const char * edgellm_stamp(void) {
    return EDGELLM_STAMP;
}
