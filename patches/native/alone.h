// Products of so few rows are computed row by row, as if each came alone: a token gets the same bits alone and in
// company. A few tokens of several sequences and drafted tokens come in such numbers. Included by C and C++.
#pragma once

enum { EDGELLM_ALONE = 16 };
